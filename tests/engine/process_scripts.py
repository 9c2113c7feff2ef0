"""Runs that are killed, interrupted or spread over ranks, each in a process of its own.

A script of its own, so that processes are forked from one that has done nothing but import.
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
    def batch(self, epoch, step):
        time.sleep(0.02)
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


def train_slowly(folder):
    return train(Noisier(), Slow(), SETTINGS, RunDir(folder), on_epoch=measure, quiet=True).exit_code


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(path):
    while not path.exists():
        time.sleep(0.005)


def kill(folder):
    """kill -9 at random moments until the run survives, against a run that was never touched."""
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
    assert exit_code(forked(train_slowly, folder / "whole")) == 0


def interrupt(folder):
    """Ctrl-C and SIGTERM save and leave with the shell's codes; the third call finishes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        pid = forked(train_slowly, folder / "interrupted")
        wait_for(folder / "interrupted" / "state.pt")
        time.sleep(0.1)
        os.kill(pid, number)
        assert exit_code(pid) == 128 + number
    assert exit_code(forked(train_slowly, folder / "interrupted")) == 0
    assert exit_code(forked(train_slowly, folder / "whole")) == 0


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
    wait_for(folder / "stuck")
    for _ in range(2):
        time.sleep(0.05)
        os.kill(pid, signal.SIGINT)
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
    scripts = {"kill": kill, "interrupt": interrupt, "impatient": impatient, "ranks": ranks}
    scripts[sys.argv[1]](Path(sys.argv[2]))
