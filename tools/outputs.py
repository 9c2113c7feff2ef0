"""Write the built files, or compare them with those in the package."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def check_or_write(files: dict[Path, bytes], check: bool) -> None:
    """Print the sha256 of each built file; write it, or with `check` exit with an error where it differs."""
    different = []
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        if not check:
            temporary = path.with_suffix(".partial")
            temporary.write_bytes(content)
            os.replace(temporary, path)
            verdict = "written"
        elif path.is_file() and path.read_bytes() == content:
            verdict = "identical"
        else:
            verdict = "DIFFERENT"
            different.append(path.name)
        print(f"{digest}  {path.name}  {len(content):,} bytes  {verdict}")
    if different:
        raise SystemExit(f"the rebuilt {', '.join(different)} differ from those in the package")
