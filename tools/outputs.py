"""Write the built files, or compare them with those that are there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write(files: dict[Path, bytes]) -> None:
    """Write each file atomically and print its sha256."""
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".partial")
        temporary.write_bytes(content)
        os.replace(temporary, path)
        _tell(path, content, "written")


def check(files: dict[Path, bytes]) -> None:
    """Print the sha256 of each built file; exit with an error where the file on disk is another."""
    same = {path: path.is_file() and path.read_bytes() == content for path, content in files.items()}
    for path, content in files.items():
        _tell(path, content, "identical" if same[path] else "DIFFERENT")
    if not all(same.values()):
        raise SystemExit("the files in the package are not those that this script builds")


def _tell(path: Path, content: bytes, verdict: str) -> None:
    print(f"{hashlib.sha256(content).hexdigest()}  {len(content):>9,} bytes  {path.name}  {verdict}")
