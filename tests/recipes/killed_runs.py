"""A run that is left alone and one that is killed ten times; prints at which steps the second one went on.

A script, so that all processes fork from one that has done nothing but import: importing is most of what a start
costs. Its argument is a folder with shapes.npz.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import sklearn.model_selection  # noqa: F401  imported here once, not in each fork
import tiny
import torch

from contrast3d import cli
from contrast3d.engine.run_dir import RunDir
from contrast3d.recipes import evaluate, pretrain, table  # noqa: F401

NAME = "simclr-ldraw40"
KILLS = 10


def arguments(run: str | Path) -> list[str]:
    """`contrast3d` ...: SimCLR on the shapes of shapes.npz for some seconds."""
    recipe = tiny.shrunk(
        table.find(NAME), dataset="shapes.npz", shape_points=64, epochs=120, checkpoint_seconds=0.1, probe_every=50,
        augmentation="report",
    )
    return ["pretrain", NAME, *tiny.flags(NAME, recipe), "--out", str(run), "--device", "cpu", "--threads", "1",
            "--quiet"]


def forked(run: Path) -> int:
    """The process id of a fork that runs the command line."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        code = cli.main(arguments(run))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(run: Path, step: int, seconds: float) -> int:
    """Go on at `step`, and kill -9 the process so long after its first epoch; where the next one will go on."""
    log = run / "metrics.jsonl"
    written = lambda: log.exists() and log.stat().st_mtime_ns  # noqa: E731
    before, pid = written(), forked(run)
    # first it takes back the lines after `step`, then it writes them again
    while written() == before or max((line["step"] for line in RunDir(run).metrics()), default=0) <= step:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it ended before it was killed"
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL, "it ended before it was killed"
    return RunDir(run).load_state()["step"]


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports much of torch
    assert exit_code(forked(Path("whole"))) == 0
    length = RunDir("whole").metrics()[-1]["seconds"]
    draw, steps = random.Random(0), [0]
    for _ in range(KILLS):
        steps.append(killed(Path("killed"), steps[-1], draw.uniform(0.0, length / (KILLS + 5))))
    assert exit_code(forked(Path("killed"))) == 0
    print(json.dumps(steps[1:]))
