"""Where a number comes from, and how it is written: results/NAME.json."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from contrast3d.engine.run_dir import replacing


def commit() -> str:
    """The commit this code runs from ("+dirty": its files differ), or the package version without git."""
    package = Path(__file__).parents[1]
    # an installed package may lie inside some other repository, which then does not track it
    tracked = _git(package, "ls-files", "--error-unmatch", "errors.py")
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    if tracked and head:
        dirty = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return f"{head}+dirty" if dirty else head
    try:
        return f"contrast3d {version('contrast3d')}"
    except PackageNotFoundError:
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def command() -> str:
    """The command line of this process, without the path of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def device_name(device: torch.device | str = "cpu") -> str:
    """The model of the accelerator, or architecture and thread count of the CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def provenance(device: torch.device | str = "cpu") -> dict[str, str]:
    """commit, command and device of this process, as a result carries them."""
    return {"commit": commit(), "command": command(), "device": device_name(device)}


def slug(text: str) -> str:
    """`text` as part of a file's name: "SimCLR, batch 32" is simclr-batch-32."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def write_json(path: Path | str, content: dict | list) -> Path:
    """Write `content` in one step: a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())
    return path
