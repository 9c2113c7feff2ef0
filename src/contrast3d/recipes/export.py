"""Export the encoder of a run, check each file against the encoder itself, and time it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contrast3d.checkpoints import exporters
from contrast3d.downstream.results import provenance, write_json
from contrast3d.engine.run_dir import replacing
from contrast3d.errors import ConfigError
from contrast3d.recipes.runs import FittedRun, Run, load_run
from contrast3d.recipes.shape_index import encoder_hash

FORMATS = ("safetensors", "onnx", "torch", "all")
FILES = {"safetensors": "encoder.safetensors", "onnx": "encoder.onnx", "torch": "encoder.pt2"}


def export_run(
    run_folder: str | Path, out: str | Path, format: str = "all", tell: Callable[[str], None] = lambda words: None
) -> list[str]:
    """Write the files of `format` and export.json into the folder `out`; a line per file for the screen.

    The graphs read shapes as probes do: `shape_points` points (`num_points` of a run of `fit`), z up, centred, in the
    unit sphere, in parts of the density that training showed. Each is compared with the encoder at two batch sizes
    before it is written; a DataError where they differ.
    """
    if format not in FORMATS:
        raise ConfigError(f"format = {format!r}; expected one of {', '.join(FORMATS)}")
    run = load_run(run_folder)
    reader, num_points, out = run.reader(), points_of(run), Path(out)
    wanted = list(FILES) if format == "all" else [format]
    described = describe(run, num_points)
    contents, report = {}, {}
    ours = exporters.eager(reader)
    if "safetensors" in wanted:
        contents["safetensors"], report["safetensors"] = exporters.safetensors_bytes(reader.encoder, described), {}
    if set(wanted) & {"torch", "onnx"}:
        tell("tracing")
        program = exporters.traced(reader, num_points)
        eager_ms = exporters.latency_ms(ours, num_points)
        makers = {"torch": (exporters.torch_bytes, exporters.torch_runner),
                  "onnx": (exporters.onnx_bytes, exporters.onnx_runner)}
        for name in (name for name in wanted if name in makers):
            tell(FILES[name])
            make, runner = makers[name]
            contents[name] = make(program, described)
            theirs = runner(contents[name])
            difference = exporters.compare(str(out / FILES[name]), ours, theirs, num_points)
            report[name] = {"difference": difference, "latency_ms": exporters.latency_ms(theirs, num_points),
                            "eager_ms": eager_ms}
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replacing(out / FILES[name]) as file:
            file.write(content)
    write_json(out / "export.json", {**described, "checks": report, **provenance()})
    return [_line(out / FILES[name], len(contents[name]), report[name]) for name in contents]


def points_of(run: Run | FittedRun) -> int:
    """Points per shape that probes, indices and exports of the run read."""
    return run.recipe.shape_points if isinstance(run, Run) else run.num_points


def describe(run: Run | FittedRun, num_points: int) -> dict[str, object]:
    """What every file carries: the recipe with its values, the step, and what goes in and comes out."""
    return {
        "recipe": run.folder.recipe, **run.trained(), "encoder": encoder_hash(run.encoder()),
        "input": {"name": exporters.INPUT, "shape": ["batch", num_points, 3],
                  "meaning": "float32, z up, centred, in the unit sphere, in random order"},
        "output": {"name": exporters.OUTPUT, "shape": ["batch", run.make_encoder().embed_dim]},
    }


def _line(path: Path, size: int, check: dict[str, float]) -> str:
    line = f"{path}  {size / 2**20:.1f} MB"
    if not check:
        return line
    return (f"{line}  differs by {check['difference']:.0e}  {check['latency_ms']:.1f} ms per shape "
            f"(the encoder itself {check['eager_ms']:.1f} ms)")
