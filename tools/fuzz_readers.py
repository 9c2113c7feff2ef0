"""Feed changed files to the readers of shape files, for minutes or hours: points or one clear error must come out.

    python tools/fuzz_readers.py --minutes 10

What breaks a reader is kept as a file in --keep, and its seed printed; exit code 1 where there was any. Memory is
limited to --gigabytes, so that a reader that believes what a file declares is found out, and a reading of more than
--seconds counts as broken too.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "data")]
import shape_folder as made

from contrast3d.data.shape_files import read_shape
from contrast3d.errors import DataError


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="of the first file; default: the time")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--gigabytes", type=float, default=8, help="of address space")
    parser.add_argument("--seconds", type=int, default=20, help="for one file")
    options = parser.parse_args()
    limit = int(options.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_slow)
    originals = made.originals()
    seed = int(time.time()) * 1000 if options.seed is None else options.seed
    end, tried, read, found = time.monotonic() + 60 * options.minutes, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            rng = np.random.default_rng(seed + tried)
            name = str(rng.choice(sorted(originals)))
            path = Path(folder) / f"file{Path(name).suffix}"
            path.write_bytes(made.mutated(originals[name], rng))
            problem, whole = _problem(path, options.seconds)
            read += whole
            if problem:
                found += 1
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{seed + tried}-{name}").write_bytes(path.read_bytes())
                print(f"seed {seed + tried}, {name}: {problem}", flush=True)
            tried += 1
    print(f"{tried} files, {read} of them still readable, {found} findings")
    return 1 if found else 0


def _problem(path: Path, seconds: int) -> tuple[str, bool]:
    """What is wrong with how a file is read ("" for nothing), and whether points came out."""
    signal.alarm(seconds)
    try:
        points = read_shape(path, 32)
        good = points.shape == (32, 3) and np.isfinite(points).all()
        return ("" if good else "points that are none"), True
    except DataError as error:
        bad = "\n" in str(error) or "MemoryError" in str(error) or "allocate" in str(error)
        return (f"an error that is none: {error}" if bad else ""), False
    except BaseException:
        return traceback.format_exc(), False
    finally:
        signal.alarm(0)


def _too_slow(*_) -> None:
    raise TimeoutError("too slow")


if __name__ == "__main__":
    sys.exit(main())
