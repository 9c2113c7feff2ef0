"""What 1,000 to 100,000 shapes cost, each stage in a process of its own, and what two processes gain.

    python benchmarks/scale.py --json benchmarks/results/scale.json

Reading a folder of meshes into the cache and reopening it, pre-training, embedding and exact search, with the recipe
simclr-ldraw40. The shapes are those of LDraw-40, repeated; the files are links to 1,000 different ones. Prints the
tables of docs/scale.md. It has no reference of its own: the others do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import harness  # before torch: sets how OpenMP threads wait
import numpy as np
import torch

import contrast3d as c3d
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.results import write_json
from contrast3d.engine import distributed
from contrast3d.engine.loop import train
from contrast3d.nn.partwise import Partwise
from contrast3d.recipes.simclr_ldraw40 import RECIPE

DIFFERENT = 1_000  # files and shapes; the rest repeat them
MILLION = 1_000_000
QUERIES = 20


def repeated(count: int, num_points: int = RECIPE.shape_points) -> ShapeSet:
    """(count, num_points, 3) points that take the memory of as many different shapes."""
    points = RECIPE.shapes("train", Path("data")).points[:DIFFERENT, :num_points]
    return ShapeSet(points[torch.arange(count) % len(points)], title=f"{count} shapes")


def cache_stage(count: int, folder: Path, seconds: float) -> dict[str, float]:
    """A folder of convex hulls as OFF files, about 100 triangles each, read twice."""
    os.environ["CONTRAST3D_CACHE"] = str(folder / "cache")
    files = folder / "files"
    write_files(files, count)
    rates = {}
    for name in ("read", "reopen"):
        start = time.perf_counter()
        shapes = c3d.load(files, num_points=RECIPE.shape_points)
        rates[name] = time.perf_counter() - start
        assert len(shapes) == count, len(shapes)
    return {"shapes": count, "seconds": rates["read"], "reopen_s": rates["reopen"]}


def write_files(folder: Path, count: int) -> None:
    from scipy.spatial import ConvexHull

    originals = folder / "0"
    originals.mkdir(parents=True)
    for number, points in enumerate(repeated(min(count, DIFFERENT)).points[:, :64].numpy()):
        points = points + np.random.default_rng(number).normal(0, 1e-3, points.shape)  # flat parts have no hull
        faces = ConvexHull(points).simplices
        lines = [f"OFF\n{len(points)} {len(faces)} 0", *("{:.5f} {:.5f} {:.5f}".format(*p) for p in points),
                 *("3 {} {} {}".format(*f) for f in faces)]
        (originals / f"{number}.off").write_text("\n".join(lines) + "\n")
    for number in range(DIFFERENT, count):
        place = folder / str(number // DIFFERENT)
        place.mkdir(exist_ok=True)
        os.link(originals / f"{number % DIFFERENT}.off", place / f"{number % DIFFERENT}.off")


def pretrain_stage(count: int, folder: Path, seconds: float) -> dict[str, float]:
    """Steps of the recipe for so many seconds; under torchrun, by all processes together."""
    ranks = distributed.setup("cpu")
    shapes = repeated(count)
    loader, method = RECIPE.make_loader(shapes, ranks), RECIPE.make_method(len(shapes))
    settings = dataclasses.replace(RECIPE.training(), max_seconds=2.0)
    train(method, loader, settings, quiet=True)  # the kernels are loaded, the memory is held
    done = train(method, loader, dataclasses.replace(settings, max_seconds=seconds), quiet=True)
    distributed.cleanup()
    return {"shapes": done.steps * RECIPE.batch_size, "seconds": done.seconds}


def embed_stage(count: int, folder: Path, seconds: float) -> dict[str, float]:
    """Into an index on disk, as `contrast3d embed` does, of shapes with as many points as a view has; then queries."""
    reader = Partwise(RECIPE.make_encoder(), RECIPE.num_points).eval()
    shapes = repeated(count, RECIPE.num_points)
    c3d.embed(reader, ShapeSet(shapes.points[:64]))
    start = time.perf_counter()
    found = c3d.embed(reader, shapes, out=folder / "index")
    spent = time.perf_counter() - start
    times = []
    for row in range(QUERIES):
        start = time.perf_counter()
        found.search(shapes.points[row % len(shapes)].numpy(), k=10)
        times.append(time.perf_counter() - start)
    return {"shapes": count, "seconds": spent, "search_s": float(np.median(times))}


STAGES: dict[str, Callable[[int, Path, float], dict[str, float]]] = {
    "cache": cache_stage, "pretrain": pretrain_stage, "embed": embed_stage,
}


def run_stage(name: str, count: int, threads: int, seconds: float) -> None:
    """In a process of its own: one JSON line with the stage's numbers and the process's peak memory."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="contrast3d-scale-") as folder, watched_memory() as peaks:
        numbers = STAGES[name](count, Path(folder), seconds)
    peak = max(peaks)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({**numbers, "peak_mb": peak}))


@contextlib.contextmanager
def watched_memory() -> Iterator[list[float]]:
    """MiB of private memory, ten times a second: pages of files mapped from the disk are not counted."""
    over, seen = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.1):
            seen.append(harness.resident_kib("RssAnon") / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def measured(name: str, count: int, threads: int, seconds: float, processes: int = 1) -> dict:
    """One row: the stage by a fresh process, or by several under torchrun, each with so many threads."""
    launch = [sys.executable] if processes == 1 else [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [__file__, "--stage", name, "--sizes", str(count), "--threads", str(threads), "--seconds", str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*launch, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} of {count} shapes failed:\n{done.stderr}")
    numbers = json.loads(done.stdout.splitlines()[-1])
    row = {"name": name, "size": count, "threads": threads, "processes": processes, **numbers}
    print(f"{name} {count:,}, {processes} x {threads} threads: {numbers}", file=sys.stderr)
    return row


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.quick:
        options.sizes, options.seconds, options.rounds = [64], 0.5, 1
    if options.stage:
        run_stage(options.stage, options.sizes[0], options.threads, options.seconds)
        return 0
    rows = [measured(name, n, options.threads, options.seconds) for name in STAGES for n in options.sizes]
    pairs = [measured("pretrain", options.sizes[0], 1, options.seconds, processes)
             for _ in range(options.rounds) for processes in (1, 2)]
    rows += pairs
    rates = [float(np.median([r["shapes"] / r["seconds"] for r in pairs if r["processes"] == n])) for n in (1, 2)]
    efficiency = rates[1] / (2 * rates[0])
    print(_markdown(rows[: -len(pairs)], efficiency))
    if options.json:
        write_json(options.json, {"meta": harness.metadata({}, options), "efficiency": efficiency, "rows": rows})
    return 0


def _markdown(rows: list[dict], efficiency: float) -> str:
    lines = ["| stage | shapes | ms a shape | private memory, MB | |", "|---|---|---|---|---|"]
    for row in rows:
        more = {"reopen_s": "opened again in {:.2f} s", "search_s": "a query {:.1f} ms, its encoding included"}
        note = "".join(text.format(row[k] * (1e3 if k == "search_s" else 1)) for k, text in more.items() if k in row)
        lines.append(f"| {row['name']} | {row['size']:,} | {1e3 * row['seconds'] / row['shapes']:.2f} | "
                     f"{row['peak_mb']:,.0f} | {note} |")
    lines += ["", f"Two processes of one thread pre-train at {efficiency:.0%} of twice the pace of one.", "",
              "| a million shapes | 1 process | 8 | 64 |", "|---|---|---|---|"]
    for name, what in {"cache": "read", "pretrain": "pre-train, an epoch", "embed": "embed"}.items():
        last = [row for row in rows if row["name"] == name][-1]
        hours = MILLION * last["seconds"] / last["shapes"] / 3600
        shared = efficiency if name == "pretrain" else 1.0  # the others talk to nobody
        lines.append(f"| {what} | " + " | ".join(_hours(hours / (n * (shared if n > 1 else 1)))
                                                 for n in (1, 8, 64)) + " |")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write meta and rows there")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="shapes")
    parser.add_argument("--threads", type=int, default=2, help="of every stage; two processes have one each")
    parser.add_argument("--seconds", type=float, default=20.0, help="of pre-training that a row measures")
    parser.add_argument("--rounds", type=int, default=3, help="of one process and two by turns")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? The numbers mean nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
