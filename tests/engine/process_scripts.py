"""Runs that are killed, interrupted or spread over ranks, each in a process of its own.

A script, so that all of them fork from one process that has done nothing but import. Its argument is the
folder for the runs.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from toys import Noisier, Plain, ToyLoader, measure

from contrast3d.engine.distributed import cleanup, setup
from contrast3d.engine.loop import train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.settings import Training

SETTINGS = Training(epochs=6, lr=1e-2, checkpoint_seconds=0.02)


class Slow(ToyLoader):
    """Takes its time, and sends `number` to the own process at batch `at`."""

    def __init__(self, number=None, at=None):
        super().__init__()
        self.number, self.at = number, at

    def batch(self, epoch, step):
        time.sleep(0.03)
        if (epoch, step) == self.at:
            os.kill(os.getpid(), self.number)
        return super().batch(epoch, step)


def forked(function, *args):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = function(*args) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def train_slowly(folder, number=None, at=None):
    outcome = train(Noisier(), Slow(number, at), SETTINGS, RunDir(folder), on_epoch=measure, quiet=True)
    return outcome.exit_code


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(folder):
    """kill -9 at random moments, up to eight times, until the run finishes."""
    draw = random.Random(0)
    kills = 0
    while True:
        pid = forked(train_slowly, folder / "killed")
        if kills < 8:
            time.sleep(draw.uniform(0.02, 0.25))
            os.kill(pid, signal.SIGKILL)
        if exit_code(pid) == 0:
            break
        kills += 1
    assert kills >= 3, kills


def interrupt(folder):
    """Ctrl-C and SIGTERM save and leave with the shell's codes; the third call finishes."""
    for number, at in ((signal.SIGINT, (1, 2)), (signal.SIGTERM, (3, 0))):
        assert exit_code(forked(train_slowly, folder / "interrupted", number, at)) == 128 + number
    assert exit_code(forked(train_slowly, folder / "interrupted")) == 0


def impatient(folder):
    """A second Ctrl-C does not wait for the step to end."""

    class Stuck(ToyLoader):
        def batch(self, epoch, step):
            (folder / "stuck").touch()
            time.sleep(60)

    def train_stuck():
        try:
            train(Plain(), Stuck(), SETTINGS, quiet=True)
        except SystemExit as error:
            return error.code

    pid = forked(train_stuck)
    while not (folder / "stuck").exists():
        time.sleep(0.005)
    for _ in range(2):  # far enough apart that a busy machine does not merge the two
        os.kill(pid, signal.SIGINT)
        time.sleep(1.0)
    assert exit_code(pid) == 130


def train_rank(rank, world, folder, epochs_before_stop):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{epochs_before_stop}",
                            rank=rank, world_size=world)
    ranks = setup("cpu")
    assert (ranks.rank, ranks.world) == (rank, world)

    class Share(ToyLoader):
        def batch(self, epoch, step):
            if rank == 1 and (epoch, step) == (epochs_before_stop, 0):  # one rank alone is told to stop
                signal.raise_signal(signal.SIGTERM)
            return super().batch(epoch, step)

    method = Plain()
    if rank == 1:
        torch.nn.init.zeros_(method.encoder[0].weight)  # rank 0 decides where training starts
    settings = Training(epochs=6, lr=1e-2, accumulate=2)
    outcome = train(method, Share(rank=rank, world=world), settings, RunDir(folder / "ranks"), quiet=True)
    cleanup()
    return outcome.exit_code


def ranks(folder):
    """Two gloo processes, stopped within their fourth epoch and resumed."""
    for epochs_before_stop, code in ((3, 143), (-1, 0)):
        pids = [forked(train_rank, rank, 2, folder, epochs_before_stop) for rank in range(2)]
        codes = [exit_code(pid) for pid in pids]
        assert codes == [code, code], codes


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports much of torch; the forks need not again
    runs = Path(sys.argv[1])
    assert exit_code(forked(train_slowly, runs / "whole")) == 0
    for story in (kill, interrupt, impatient, ranks):
        story(runs)
