"""Prompts as ReCon's teacher reads them, and captions without the words of classes."""

import pytest

from contrast3d.teachers.prompts import PREFIXES, SUFFIXES, masked, prompts_of, some_prompts, words_of


def test_there_are_twenty_prefixes_times_three_suffixes():
    prompts = prompts_of("night_stand")
    assert len(PREFIXES) == len(set(PREFIXES)) == 20
    assert len(SUFFIXES) == 3
    assert len(prompts) == len(set(prompts)) == 60
    assert prompts[0] == "night stand."
    assert "A night stand with white background." in prompts
    assert "A point cloud model of night stand with black context." in prompts
    assert "A 3D rendering image of a night stand." in prompts


@pytest.mark.shared
def test_prompts_equal_those_of_the_released_code(shared):
    import torch

    released = torch.load(shared / "parity" / "recon_zeroshot_micro.pt", weights_only=True)
    texts = [text for value in released.values() for text in strings(value)]
    wanted = {text for text in texts if "airplane" in text}
    assert len(wanted) >= 60
    assert set(prompts_of("airplane")) <= wanted


def strings(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for inner in values for text in strings(inner)]


def test_some_prompts_are_spread_and_begin_with_the_name():
    assert some_prompts("cup", 1) == ["cup."]
    assert len(set(some_prompts("cup", 8))) == 8
    assert some_prompts("cup", 60) == prompts_of("cup")
    assert {text[-9:] for text in some_prompts("cup", 3)} == {"cup.", "ckground.", " context."}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Brick  1 x  2 with Clip", "1 x 2 with Clip"),
        ("BRICKS and two bricks", "and two"),
        ("Technic Connector (Pin/Bush) with 2 Studs", "with 2 Studs"),
        ("Minifig Axe with Twin-Axe", "with Twin"),
        ("Wheelbarrow, Crosswheel 3.5/10", "3.5/10"),
        ("Rimmed, but scrim-like", "but like"),  # the word within a longer one, at either end
        ("Aircraft", "Aircraft"),
        ("Technic Pin", ""),
        ("", ""),
    ],
)
def test_masked_descriptions_hold_no_word_of_a_class(text, left):
    words = ["brick", "technic", "connector", "pin", "bush", "minifig", "axe", "wheel", "rim"]
    assert masked(text, words) == left


def test_short_words_go_only_alone():
    assert masked("tv tvx x TV", ["tv"]) == "tvx x"
    assert masked("a sofa", []) == "a sofa"


def test_words_of_classes():
    assert words_of(["night_stand", "TV stand"]) == ["night", "stand", "tv"]
