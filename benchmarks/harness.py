"""What every benchmark shares: interleaved rounds, ceilings of the machine, resident memory, table and JSON.

A benchmark is a file beside this one that ends in `harness.main(__doc__, cases)`; see README.md.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# As the command line does, before torch is loaded: idle OpenMP threads that spin take the core our kernels need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import Tensor

from contrast3d.downstream.results import command, commit, write_json
from contrast3d.engine.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

TOLERANCES = {torch.float32: 5e-3, torch.float64: 1e-9}  # of results; torch's float32 batch norm is 3e-4 off
GLIBC_THRESHOLD = 128 * 1024  # bytes; the default of both thresholds
SETTLE_S = 0.02  # OpenMP threads told to spin do so for milliseconds after their last task
device = torch.device("cpu")  # where cases put their tensors; --device changes it before any is built


@dataclass(frozen=True)
class Case:
    """What one benchmark compares, at any number of threads.

    ours, reference: do the work once; a case may have no reference.
    flops, bytes: the least arithmetic and the least memory traffic of our algorithm, derived where the case is made.
    note: one sentence on what the row is up against beyond those two counts.
    difference: in float32 or float64, the largest difference between the results of the two, relative.
    wanted_ratio, wanted_peak_mb: what the project asks of the row.
    max_rounds: of a case too slow for as many rounds as the others.
    as_in_training: ours runs as `engine.train` and `extract` run it, with freed memory kept (engine/memory.py), and
        the reference at the C library's defaults, as plain PyTorch runs. Each is warmed up anew in each of its turns.
    """

    ours: Callable[[], object]
    flops: float
    bytes: float
    note: str
    reference: Callable[[], object] | None = None
    difference: Callable[[torch.dtype], float] | None = None
    wanted_ratio: float | None = None
    wanted_peak_mb: float | None = None
    max_rounds: int = 1000
    as_in_training: bool = False


@dataclass(frozen=True)
class Ceiling:
    """What this machine can do at one number of threads: FLOP/s of float32 products, bytes/s to and from memory."""

    flops: float
    bandwidth: float

    @classmethod
    def measure(cls, matmul_size: int = 2048, triad_size: int = 1 << 25, rounds: int = 5) -> Ceiling:
        """A square product, and a = b + s c (STREAM's triad) on arrays beyond every cache; the best of the rounds."""
        square = torch.rand(matmul_size, matmul_size, device=device)
        product = torch.empty_like(square)
        a, b, c = torch.rand(3, triad_size, device=device)
        matmul_s = min(_times(lambda: torch.mm(square, square, out=product), rounds))
        triad_s = min(_times(lambda: torch.add(b, c, alpha=0.5, out=a), rounds))
        return cls(2 * matmul_size**3 / matmul_s, 3 * a.element_size() * triad_size / triad_s)

    def ideal(self, case: Case) -> tuple[float, str]:
        """The time below which the case cannot fall by either count, in seconds, and the sentence that says so."""
        compute_s, memory_s = case.flops / self.flops, case.bytes / self.bandwidth
        limit = "arithmetic" if compute_s > memory_s else "memory"
        sentence = (
            f"limit: {limit}; {case.flops / 1e9:.3g} GFLOP at {self.flops / 1e9:.0f} GFLOP/s take "
            f"{_milliseconds(compute_s)} ms, {case.bytes / 1e6:.3g} MB at {self.bandwidth / 1e9:.1f} GB/s take "
            f"{_milliseconds(memory_s)} ms. {case.note}"
        )
        return max(compute_s, memory_s), sentence


def main(description: str, cases: Callable[[bool], Mapping[tuple[str, str], Callable[[], Case]]],
         arguments: list[str] | None = None, devices: tuple[str, ...] = ("cpu",)) -> int:
    """The command line of a benchmark.

    cases: whether to be quick -> {(name, variant): what builds the case}. Cases are built one at a time, so
    that their inputs do not share the memory. devices: those that cases can put their tensors on. Returns the exit
    code: 0, 1 where the results of a case differ (it then has no row), 2 for a name that no row has.
    """
    global device
    options = _parser(description, devices).parse_args(arguments)
    device = torch.device(options.device)
    wanted = {names: build for names, build in cases(options.quick).items() if options.only in " ".join(names)}
    if not wanted:
        known = ", ".join(" ".join(names) for names in cases(options.quick))
        print(f"no row is called {options.only!r}; there are {known}", file=sys.stderr)
        return 2
    if device.type != "cpu":  # threads of the processor only start its work
        options.threads = [torch.get_num_threads()]
    ceilings = _ceilings(options.threads, options.quick)
    rows, wrong = [], 0
    for (name, variant), build in wanted.items():
        try:
            measured = measure(build(), ceilings, options.rounds)
        except DifferentResultsError as error:
            print(f"{name} {variant}: {error}", file=sys.stderr)
            wrong = 1
        else:
            rows += [{"name": name, "variant": variant, **row} for row in measured]
    meta = metadata(ceilings, options)
    show(meta, rows)
    if options.json:
        write_json(options.json, {"meta": meta, "rows": rows})
    return wrong


def _parser(description: str, devices: tuple[str, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write meta and rows there")
    parser.add_argument("--rounds", type=_positive, default=7, help="of ours and the reference by turns (default 7)")
    parser.add_argument("--threads", type=_positive, nargs="+", default=[1, 2], help="(default 1 2)")
    parser.add_argument("--device", choices=devices, default="cpu", help="(default cpu)")
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose name and variant contain NAME")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? The numbers mean nothing")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _ceilings(threads: list[int], quick: bool) -> dict[int, Ceiling]:
    found = {}
    for count in threads:
        torch.set_num_threads(count)
        found[count] = Ceiling.measure(128, 1 << 16, 2) if quick else Ceiling.measure()
    return found


class DifferentResultsError(AssertionError):
    """Ours and the reference do not compute the same: there is nothing to time."""


def compare(case: Case) -> dict[str, float | None]:
    """The differences in float32 and float64; DifferentResultsError where one exceeds its tolerance."""
    if case.difference is None:
        return {"difference": None, "difference_float64": None}
    found = {dtype: case.difference(dtype) for dtype in TOLERANCES}
    for dtype, difference in found.items():
        if not difference <= TOLERANCES[dtype]:
            raise DifferentResultsError(f"{dtype} results differ by {difference:.0e}, allowed {TOLERANCES[dtype]:.0e}")
    return {"difference": found[torch.float32], "difference_float64": found[torch.float64]}


def measure(case: Case, ceilings: Mapping[int, Ceiling], rounds: int) -> list[dict]:
    """One row per number of threads, after the results have been compared; that also compiles the kernels."""
    differences = compare(case)
    gc.collect()
    rows = []
    for threads, ceiling in ceilings.items():
        torch.set_num_threads(threads)
        row = _measure(case, min(rounds, case.max_rounds))
        ideal_s, limit = ceiling.ideal(case)
        rows.append({"threads": threads, **row, "ceiling_share": ideal_s / row["median_s"], **differences,
                     "wanted_ratio": case.wanted_ratio, "wanted_peak_mb": case.wanted_peak_mb, "limit": limit,
                     "flops": case.flops, "bytes": case.bytes})
    return rows


def _measure(case: Case, rounds: int) -> dict:
    """Time and memory of one case at the present number of threads. The run for the memory is also the warm-up; what is
    freed in it goes back at once, so that only what is in use counts, not holes that earlier work left."""
    set_memory_kept(False)
    contenders = {"ours": case.ours}
    if case.reference:
        contenders["reference"] = case.reference
    peaks = {name: peak_growth_mb(run) for name, run in contenders.items()}
    prepare = {}
    if case.as_in_training:
        prepare = {name: partial(_warmed_up, run, keep=name == "ours") for name, run in contenders.items()}
    times = interleaved(contenders, rounds, prepare)
    set_memory_kept(False)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    spreads = {name: float(np.subtract(*np.percentile(values, [75, 25]))) for name, values in times.items()}
    reference_s = medians.get("reference")
    return {
        "median_s": medians["ours"], "spread_s": spreads["ours"],
        "reference_s": reference_s, "reference_spread_s": spreads.get("reference"),
        "ratio": reference_s and reference_s / medians["ours"],
        "peak_mb": peaks["ours"], "reference_peak_mb": peaks.get("reference"), "rounds": rounds,
    }


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, prepare: Mapping[str, Callable[[], None]] | None = None
) -> dict[str, list[float]]:
    """Seconds of each contender in each round. They take turns, and the first of a round is the last of the next,
    so that a machine that grows slower or faster does so for all of them alike. prepare: called before a turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders.items())
    for _ in range(rounds):
        for name, run in order:
            if prepare:
                prepare[name]()
            times[name] += _times(run, 1)
        order.reverse()
    return times


def _warmed_up(run: Callable[[], object], keep: bool) -> None:
    """The allocator as `run` shall have it, and what it then keeps, filled."""
    set_memory_kept(keep)
    run()


def set_memory_kept(keep: bool) -> None:
    """`engine.memory.keep_freed_memory`, or glibc's defaults again with everything handed back; a no-op elsewhere."""
    if keep:
        keep_freed_memory.cache_clear()
        keep_freed_memory()
        return
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, GLIBC_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, GLIBC_THRESHOLD)
        libc.malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def _times(run: Callable[[], object], rounds: int) -> list[float]:
    """Wall seconds of each call, the release of its result included."""
    times = []
    for _ in range(rounds):
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - start)
    return times


def synchronize() -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_growth_mb(run: Callable[[], object]) -> float | None:
    """MiB by which resident memory rose at most during `run`: the kernel's own high-water mark, not samples.

    None where the system does not keep one that can be reset (all but Linux). On a GPU it is the memory of tensors.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what earlier work freed would be used again, unseen
        Path("/proc/self/clear_refs").write_text("5")  # the mark falls to what is resident now
    except (AttributeError, OSError, TypeError):
        run()
        return None
    before = resident_kib("VmRSS")
    run()
    return (resident_kib("VmHWM") - before) / 1024


def resident_kib(field: str) -> int:
    """A line of /proc/self/status, VmHWM or RssAnon say; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def relative_difference(ours: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """|ours - reference| / |reference|, Euclidean norms over all tensors together.

    A norm and not a maximum: where two neighbours are equal to rounding, either may win and take the gradient.
    """
    a, b = (torch.cat([t.detach().double().flatten() for t in tensors]) for tensors in (ours, reference))
    return float((a - b).norm() / b.norm())


def metadata(ceilings: Mapping[int, Ceiling], options: argparse.Namespace) -> dict:
    """Where, when and with what the rows were measured."""
    return {
        "hardware": hardware(), "commit": commit(), "torch": torch.__version__, "threads": list(ceilings),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
        "command": command(), "quick": options.quick, "rounds": options.rounds,
        "omp_wait_policy": os.environ["OMP_WAIT_POLICY"],
        "ceilings": {str(n): {"flop_per_s": c.flops, "byte_per_s": c.bandwidth} for n, c in ceilings.items()},
    }


def hardware() -> str:
    """The GPU where there is one to measure; else the processor, cores this process may use, and memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    memory = ""
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return f"{model}, {cores} cores{memory}"


def show(meta: dict, rows: list[dict]) -> None:
    """Print the table, and below it what each row is up against."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    console.print(f"{meta['hardware']}; torch {meta['torch']}; commit {meta['commit']}; {meta['date']}")
    table = Table()
    for heading in ("row", "variant"):
        table.add_column(heading, no_wrap=True)
    for heading in ("threads", "ms", "spread", "reference ms", "ratio", "wanted", "peak MB", "reference MB",
                    "of ceiling", "float32 diff", "float64 diff"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["name"], row["variant"], *_cells(row))
    console.print(table)
    for row in rows:
        console.print(f"{row['name']} {row['variant']}, threads {row['threads']}: {row['limit']}", soft_wrap=True)


def _cells(row: dict) -> list[str]:
    wanted = [f"{row['wanted_ratio']:g}x"] if row["wanted_ratio"] else []
    wanted += [f"{row['wanted_peak_mb']:g} MB"] if row["wanted_peak_mb"] else []
    return [
        str(row["threads"]), _milliseconds(row["median_s"]), _milliseconds(row["spread_s"]),
        _or_dash(row["reference_s"], _milliseconds), _or_dash(row["ratio"], "{:.1f}x".format), ", ".join(wanted) or "-",
        _or_dash(row["peak_mb"], "{:.0f}".format), _or_dash(row["reference_peak_mb"], "{:.0f}".format),
        f"{row['ceiling_share']:.0%}", _or_dash(row["difference"], "{:.0e}".format),
        _or_dash(row["difference_float64"], "{:.0e}".format),
    ]


def _or_dash(value: float | None, text: Callable[[float], str]) -> str:
    return "-" if value is None else text(value)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"
