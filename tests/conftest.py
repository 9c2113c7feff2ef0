"""Shared fixtures: beartype checks every jaxtyping signature, and `shared` finds the shared data or skips."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: its idle threads would spin on our kernels' core

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("contrast3d", "beartype.beartype")

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder; tests that use it carry the marker `shared` and skip where it is absent."""
    folder = Path(os.environ.get("CONTRAST3D_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data in {folder} (set CONTRAST3D_SHARED)")
    return folder


@pytest.fixture
def fails(capsys):
    """fails(code, *arguments) -> the one line that the command says on stderr."""

    from contrast3d import cli

    def run(code: int, *arguments) -> str:
        assert cli.main([str(a) for a in arguments]) == code
        said = capsys.readouterr().err
        assert said.startswith("contrast3d: ")
        assert said.count("\n") == 1, said
        assert "Traceback" not in said
        return said

    return run
