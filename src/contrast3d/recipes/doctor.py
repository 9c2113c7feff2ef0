"""`diagnose`: what this machine offers, what is missing, and how to mend it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from contrast3d.errors import MissingDataError

ROUNDS = 5
MATMUL_SIZE = 768
LOW_DISK_GB, LOW_MEMORY_GB = 2.0, 2.0


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis.

    status: "ok", "warn" (works, but slower or riskier than it could) or "missing" (a part cannot be used).
    advice: what to do about it; empty where nothing is to be done.
    """

    name: str
    value: str
    status: Literal["ok", "warn", "missing"] = "ok"
    advice: str = ""


def diagnose() -> list[Check]:
    """All checks, in the order they are best read. A check that fails becomes a line, never an exception."""
    groups = (_machine, _torch, _kernels, _dependencies, _extras, _torchvision, _embedded_data, _speed)
    return [check for group in groups for check in _guarded(group)]


def weigh(model: str) -> Check:
    """Parameters and multiply-adds of the network of a recipe, or of the run in a folder.

    Those of a recipe on scenes depend on the scene, and are of points on a sphere a few voxels wide. Where the weights
    of teachers are not there, what leads to them is left out.
    """
    from contrast3d.nn.cost import cost
    from contrast3d.recipes import table
    from contrast3d.recipes.masked import MaskedRecipe
    from contrast3d.recipes.runs import load_run

    made = table.find(model) if model in table.RECIPES or not Path(model).is_dir() else load_run(model)
    try:
        encoder, more = made.make_encoder(), ""
    except MissingDataError as error:
        if not isinstance(made, MaskedRecipe):
            raise
        encoder = made.make_encoder(projections={})
        more = f", without its projections to teachers ({error.where}: {error.found})"
    return Check("model", f"{model}: {cost(encoder, getattr(made, 'num_points', 2048))}{more}")


def _guarded(group: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A doctor must not die of what it finds: any error of a group becomes that group's last line."""
    try:
        yield from group()
    except Exception as error:
        name = group.__name__.strip("_").replace("_", " ")
        yield Check(name, f"{type(error).__name__}: {error}", "missing", "reinstall: pip install contrast3d")


def _machine() -> Iterator[Check]:
    """Interpreter, system, cores, memory, disk."""
    yield Check("python", platform.python_version())
    yield Check("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", str(cores))
    memory = _memory_gb()
    if memory is not None:
        yield _enough("memory", memory, LOW_MEMORY_GB, "use a small batch_size")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield _enough("free disk here", free, LOW_DISK_GB, "checkpoints need room: run in another folder")


def _enough(name: str, gigabytes: float, low: float, advice: str) -> Check:
    if gigabytes < low:
        return Check(name, f"{gigabytes:.1f} GB", "warn", advice)
    return Check(name, f"{gigabytes:.1f} GB")


def _memory_gb() -> float | None:
    """Physical memory in GB, None where the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def _torch() -> Iterator[Check]:
    """torch, its threads and the devices it finds."""
    import torch

    yield Check("torch", torch.__version__)
    yield Check("threads", f"{torch.get_num_threads()} (torch and the kernels; set by OMP_NUM_THREADS)")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            memory = properties.total_memory / 1e9
            yield Check(f"cuda:{i}", f"{properties.name}, {memory:.0f} GB, {bf16}")
    elif torch.version.cuda:
        yield Check("cuda", "this torch is a CUDA build, but there is no usable GPU", "ok", "see nvidia-smi")
    else:
        yield Check("cuda", "no (this torch is a CPU build)")
    yield Check("mps", "yes" if torch.backends.mps.is_available() else "no (Apple GPUs only)")


def _kernels() -> Iterator[Check]:
    """Do the CPU kernels compile, and is the result kept?"""
    import numba

    from contrast3d.ops.kernels import knn

    cache = Path(knn.nearest_points.stats.cache_path)
    advice = "set NUMBA_CACHE_DIR to a folder you can write, or kernels compile anew in every process"
    writable = _writable(cache)
    yield Check("kernel cache", str(cache), "ok" if writable else "warn", "" if writable else advice)
    compiled = len(list(cache.glob("*.nbc"))) if cache.is_dir() else 0
    found = f"{compiled} compiled by numba {numba.__version__}"
    yield Check("kernels", found if compiled else "none yet: the first use compiles them, once")


def _writable(folder: Path) -> bool:
    """True when a file can be made in `folder`, or in the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _requirements() -> dict[str, list[tuple[str, str]]]:
    """extra ("" for the core) -> [(distribution, requirement)], as the installed package declares them."""
    declared: dict[str, list[tuple[str, str]]] = {"": []}
    for line in metadata.requires("contrast3d") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker)
        name = re.match(r"[\w.-]+", requirement)[0]
        declared.setdefault(extra[1] if extra else "", []).append((name, requirement.strip()))
    return declared


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _dependencies() -> Iterator[Check]:
    """Every package that contrast3d cannot do without."""
    for name, requirement in _requirements()[""]:
        version = _installed(name)
        if version is None:
            yield Check(name, "not installed", "missing", f"pip install '{requirement}'")
        elif name != "torch":  # has a line of its own
            yield Check(name, version)


def _extras() -> Iterator[Check]:
    """Each optional group: complete, or how to install it."""
    for extra, packages in _requirements().items():
        if not extra:
            continue
        absent = [name for name, _ in packages if _installed(name) is None]
        if absent:
            found = f"without {', '.join(absent)}"
            yield Check(f"extra {extra}", found, "missing", f"pip install 'contrast3d[{extra}]'")
        else:
            yield Check(f"extra {extra}", ", ".join(name for name, _ in packages))


def _torchvision() -> Iterator[Check]:
    """torchvision is not needed, and one built for another torch breaks packages that find it."""
    version = _installed("torchvision")
    if version is None:
        yield Check("torchvision", "absent, as it should be")
    else:
        advice = "not needed; if imports fail: pip uninstall torchvision"
        yield Check("torchvision", version, "warn", advice)


def _embedded_data() -> Iterator[Check]:
    """Can the data sets inside the package be decoded?"""
    from contrast3d.data.ldraw40 import LDraw40
    from contrast3d.data.sweethome3d import SweetHome3D

    for load in (LDraw40, SweetHome3D):
        shapes = load("all")
        yield Check(f"data {load.__name__}", f"{len(shapes)} shapes x {shapes.num_points} points")


def _speed() -> Iterator[Check]:
    """What the machine does in the two operations that training spends its time in."""
    import torch

    from contrast3d.ops.knn import knn

    points = torch.rand(8, 1024, 3, generator=torch.Generator().manual_seed(0))
    yield Check("knn 8 x 1024 points, k 20", f"{1e3 * _seconds(lambda: knn(points, 20)):.1f} ms")
    rates = {dtype: _matmul_gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    yield Check("matmul float32", f"{rates[torch.float32]:.0f} GFLOP/s")
    faster = rates[torch.bfloat16] > rates[torch.float32]
    advice = "" if faster else "keep the precision float32 on this CPU"
    yield Check("matmul bfloat16", f"{rates[torch.bfloat16]:.0f} GFLOP/s", "ok", advice)


def _matmul_gflops(dtype) -> float:
    import torch

    a = torch.ones(MATMUL_SIZE, MATMUL_SIZE, dtype=dtype)
    return 2 * MATMUL_SIZE**3 / _seconds(lambda: a @ a) / 1e9


def _seconds(run: Callable[[], object]) -> float:
    """Median wall time of a few rounds, after one to warm up."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
