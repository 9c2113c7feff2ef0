"""Encoders as files that run without this package: safetensors, torch.export and ONNX.

The graph takes points (B, N, 3), B free and N fixed, and gives features (B, D); neighbours are searched inside it.
"""

from __future__ import annotations

import io
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.portable import portable
from contrast3d.types import Clouds

KEY = "contrast3d"  # under which each file keeps its description
INPUT, OUTPUT = "points", "features"
TOLERANCE = 1e-5  # of features, relative to the largest where that is above 1
ADVICE = "pip install 'contrast3d[export]'"

Described = Mapping[str, object]
Runs = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b d"]]


class Pooled(nn.Module):
    """points (B, N, 3) -> the pooled features (B, D) of an encoder, in plain torch."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b d"]:
        return self.encoder(Clouds.from_dense(points)).pooled


def eager(encoder: nn.Module) -> Runs:
    """The encoder as it runs here, kernels included."""
    module = Pooled(encoder).eval()
    return torch.no_grad()(module)


def safetensors_bytes(encoder: nn.Module, described: Described) -> bytes:
    """All parameters and buffers, with the description in the header."""
    from safetensors.torch import save

    state = {k: v.detach().cpu().contiguous().clone() for k, v in encoder.state_dict().items()}
    return save(state, {KEY: json.dumps(described)})


def traced(encoder: nn.Module, num_points: int) -> torch.export.ExportedProgram:
    """The graph of the encoder in evaluation mode on clouds of num_points, for any number of clouds.

    A ConfigError where the encoder does what cannot be traced: look at values, or call a kernel of its own.
    """
    module, example = Pooled(encoder).cpu().eval(), sample_clouds(2, num_points)
    try:
        with torch.no_grad(), portable(), _quiet():
            return torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
    except Exception as error:  # torch raises whatever the network ran into
        raise ConfigError(f"{type(encoder).__name__} cannot be exported as a graph: {_first_line(error)}. Try: "
                          "--format safetensors") from error


def torch_bytes(program: torch.export.ExportedProgram, described: Described) -> bytes:
    """A .pt2: `torch.export.load(file).module()(points)`."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={f"{KEY}.json": json.dumps(described)})
    return buffer.getvalue()


def onnx_bytes(program: torch.export.ExportedProgram, described: Described) -> bytes:
    """An ONNX model with its description among the metadata; a ConfigError without the packages that write it."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed, and ONNX files need it. Try: {ADVICE}") from None
    try:
        with _quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT])
    except Exception as error:  # whatever the translation ran into
        told = _first_line(error)
        raise ConfigError(f"the graph cannot be translated to ONNX: {told}. Try: --format torch") from error
    made.model.metadata_props[KEY] = json.dumps(described)
    return made.model_proto.SerializeToString()


def torch_runner(content: bytes) -> Runs:
    """What a .pt2 computes."""
    with _quiet():
        return torch.no_grad()(torch.export.load(io.BytesIO(content)).module())


def onnx_runner(content: bytes) -> Runs:
    """What an ONNX file computes in onnxruntime on the CPU, with torch's number of threads."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(f"onnxruntime is not installed, and ONNX files are checked in it. Try: {ADVICE}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda points: torch.from_numpy(np.asarray(session.run([OUTPUT], {INPUT: points.numpy()})[0]))


def compare(where: str, ours: Runs, theirs: Runs, num_points: int, batches: tuple[int, ...] = (1, 3)) -> float:
    """The largest difference of their features on random clouds, of several batch sizes; a DataError beyond 1e-5."""
    differences = []
    for seed, batch in enumerate(batches, 1):
        points = sample_clouds(batch, num_points, seed)
        expected, found = ours(points), theirs(points)
        if found.shape != expected.shape:
            raise DataError(where, f"features of shape {tuple(found.shape)}", f"{tuple(expected.shape)}")
        scale = max(1.0, float(expected.abs().max()))
        differences.append(float((found - expected).abs().max()) / scale)
    worst = max(differences)
    if not worst <= TOLERANCE:
        raise DataError(where, f"features that are {worst:.1e} off", f"those of the encoder, to {TOLERANCE:.0e}")
    return worst


def latency_ms(run: Runs, num_points: int, rounds: int = 7, most_seconds: float = 3.0) -> float:
    """Median milliseconds for one cloud."""
    points, times = sample_clouds(1, num_points), []
    run(points)
    started = time.perf_counter()
    while len(times) < rounds and (not times or time.perf_counter() - started < most_seconds):
        begun = time.perf_counter()
        run(points)
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


def sample_clouds(batch: int, num_points: int, seed: int = 0) -> Float[Tensor, "b n 3"]:
    """Random clouds in the unit sphere, in which no two distances are equal."""
    points = torch.randn(batch, num_points, 3, generator=torch.Generator().manual_seed(seed))
    return points / points.norm(dim=2).amax(1)[:, None, None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on themselves, which are no business of the user's."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
