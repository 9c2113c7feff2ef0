"""Batches made ahead are those that were asked for, and are made once each."""

import threading

import pytest
import torch

from contrast3d.engine.ahead import Ahead

GPU = torch.device("cuda")  # nothing is put there


def test_in_order_one_ahead_and_once_each():
    made, second = [], threading.Event()

    def make(number):
        made.append((number, threading.current_thread() is threading.main_thread()))
        if number == 1:
            second.set()
        return 10 * number

    with Ahead(make, GPU) as batches:
        assert batches.batch(0) == 0
        assert second.wait(10)  # begun before it is asked for
        assert [batches.batch(n) for n in (1, 2, 3)] == [10, 20, 30]
    numbers = [n for n, _ in made]
    assert numbers[:4] == [0, 1, 2, 3]
    assert len(set(numbers)) == len(numbers)
    assert not any(on_main for _, on_main in made)


def test_any_number_may_come_next():
    with Ahead(lambda n: n, GPU) as batches:
        assert [batches.batch(n) for n in (7, 3, 4, 4)] == [7, 3, 4, 4]


def test_an_error_is_raised_where_the_batch_is_asked_for():
    def make(number):
        if number == 1:
            raise ValueError("no batch 1")
        return number

    with Ahead(make, GPU) as batches:
        assert batches.batch(0) == 0
        with pytest.raises(ValueError, match="no batch 1"):
            batches.batch(1)


def test_on_the_cpu_nothing_is_made_ahead():
    made = []
    with Ahead(made.append, torch.device("cpu")) as batches:
        batches.batch(5)
    assert made == [5]


def test_threads_are_those_of_the_training():
    with Ahead(lambda _: torch.get_num_threads(), GPU) as batches:
        assert batches.batch(0) == torch.get_num_threads()
