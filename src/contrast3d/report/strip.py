"""A strip of pictures: a shape that was looked up, and what was found."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrast3d.engine.run_dir import replacing
from contrast3d.report.thumbnails import render

COLUMNS = 6
CELL_INCHES, DPI = 1.8, 150


def write_strip(
    path: Path | str, clouds: Sequence[Float[np.ndarray, "_ 3"]], captions: Sequence[tuple[str, str]]
) -> Path:
    """Draw the shapes side by side, six to a row, the first one framed, and write the picture atomically.

    path: ends in .png, .pdf, .svg or whatever else matplotlib writes.
    captions: a line (rank and distance) and a name for each shape.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from threadpoolctl import threadpool_limits

    path = Path(path)
    rows, columns = -(-len(clouds) // COLUMNS), min(COLUMNS, len(clouds))
    figure = Figure((columns * CELL_INCHES, rows * (CELL_INCHES + 0.4)), DPI)
    FigureCanvasAgg(figure)
    axes = np.reshape(figure.subplots(rows, columns), -1)
    size = round(CELL_INCHES * DPI)
    with threadpool_limits(1):  # the matrices are small: more threads would only wait for each other
        for number, (axis, cloud, (line, name)) in enumerate(zip(axes, clouds, captions)):
            axis.imshow(render(np.asarray(cloud, np.float32), size))
            name = "\n".join(textwrap.wrap(Path(name).name, 22)[:2])
            axis.set_title(f"{line}\n{name}", fontsize=7, color="black" if number else "#1466b8", parse_math=False)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=number == 0, color="#1466b8")
    for axis in axes[len(clouds):]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # boxes in names of scripts that the font lacks
        figure.tight_layout()
        figure.savefig(file, format=path.suffix[1:] or "png")
    return path
