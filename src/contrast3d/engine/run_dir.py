"""`RunDir`: one run on disk. Every write is atomic, only the main rank writes."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from contrast3d.engine.distributed import is_main
from contrast3d.engine.lock import exclusive
from contrast3d.errors import ConfigError, DataError, MissingDataError


class RunDir:
    """recipe.json, metrics.jsonl, state.pt, encoder.safetensors and results/*.json under one folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._locked = False

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process trains in this folder, which is made; a ConfigError where one does.

        May be nested. Only the main rank writes, so only it holds the lock.
        """
        if self._locked or not is_main():
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path / ".lock") as free:
            if not free:
                raise ConfigError(
                    f"another process trains in this folder ({self.path}). Try: wait for its end, or another run folder"
                )
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def create(self, recipe: dict, data: str = "the data", defaults: dict | None = None) -> RunDir:
        """Make the folder and write recipe.json; an existing run of the same recipe is kept, to be resumed.

        Raises a ConfigError that names the fields when the folder holds a run of another recipe, or `data`
        when its "data_hash" alone is another; runs that stored none are taken as they are. defaults: of the
        recipe's fields; an older run that lacks a field had the default of it.
        """
        if not is_main():
            return self
        recipe = json.loads(json.dumps(recipe))  # as it will read back: tuples are lists
        self.path.mkdir(parents=True, exist_ok=True)
        if self._recipe_path.exists():
            former = self.recipe
            hashes = former.pop("data_hash", None), recipe.pop("data_hash", None)
            if defaults and isinstance(former.get("fields"), dict):
                former["fields"] = {**json.loads(json.dumps(defaults)), **former["fields"]}
            changed = differences(former, recipe)
            if changed:
                raise ConfigError(
                    f"{self.path} holds a run of another recipe: {'; '.join(changed)}. "
                    "Try: another run folder, the run's own values to resume it, or --restart to forget it"
                )
            if None not in hashes and hashes[0] != hashes[1]:
                raise ConfigError(
                    f"{self.path} was trained on other data: {data} has changed since (data_hash {hashes[0]} there, "
                    f"{hashes[1]} here). Try: the data as it was, another run folder, or --restart to begin again"
                )
        else:
            _write_json(self._recipe_path, recipe)
        return self

    @property
    def recipe(self) -> dict:
        return self._read_json(self._recipe_path, "contrast3d pretrain RECIPE --out FOLDER makes a run")

    def log(self, numbers: dict) -> None:
        """Append one line to metrics.jsonl; NaN and infinity become null."""
        if not is_main():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        line = json.dumps({name: _json_value(value) for name, value in numbers.items()}, allow_nan=False)
        with open(self._metrics_path, "a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())  # a state.pt written later must find its lines after a power cut

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl, without a last one cut off by a kill; none where there is no file."""
        if not self._metrics_path.exists():
            return []
        lines = self._metrics_path.read_text().split("\n")
        metrics = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is a torn line
            place = f"{self._metrics_path}, line {number}"
            metrics.append(_json_object(line, place, "one JSON object per line", "delete this line"))
        return metrics

    def rewind(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that a run resumed at `step` will write again."""
        if is_main() and self._metrics_path.exists():
            kept = [line for line in self.metrics() if line.get("step", 0) <= step]
            with replacing(self._metrics_path) as file:
                file.write("".join(json.dumps(line) + "\n" for line in kept).encode())

    def restart(self) -> None:
        """Forget the training so far: state, metrics and encoder."""
        if is_main():
            for path in (self._state_path, self._metrics_path, self._encoder_path):
                path.unlink(missing_ok=True)

    def save_state(self, state: dict) -> None:
        """state.pt: tensors, numbers, strings and containers of them only."""
        if is_main():
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self._state_path) as file:
                torch.save(state, file)

    @property
    def has_recipe(self) -> bool:
        return self._recipe_path.exists()

    @property
    def has_state(self) -> bool:
        return self._state_path.exists()

    def load_state(self) -> dict:
        """state.pt on the CPU; MissingDataError or DataError when it is absent or broken."""
        self._require(self._state_path, "start the run; it saves every checkpoint_seconds")
        try:
            return torch.load(self._state_path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen types for a damaged file
            raise DataError(
                str(self._state_path), f"unreadable ({_first_line(error)})", "the state of a run",
                "--restart (in Python resume=False) to train from the beginning",
            ) from None

    def save_encoder(self, encoder: nn.Module, metadata: dict[str, str]) -> None:
        """encoder.safetensors: all parameters and buffers, with `metadata` in its header."""
        from safetensors.torch import save

        if is_main():
            self.path.mkdir(parents=True, exist_ok=True)
            # clones, since safetensors refuses tensors that share memory (tied weights)
            state = {k: v.detach().cpu().contiguous().clone() for k, v in encoder.state_dict().items()}
            with replacing(self._encoder_path) as file:
                file.write(save(state, metadata))

    def load_encoder_state(self) -> dict[str, Tensor]:
        """The state dict in encoder.safetensors; MissingDataError or DataError when absent or broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self._require(self._encoder_path, "train the run first: it has no checkpoint yet")
        try:
            return load_file(self._encoder_path)
        except SafetensorError as error:
            raise self._unreadable_encoder(error) from None

    def encoder_metadata(self) -> dict[str, str]:
        """The `metadata` of encoder.safetensors; reads its header only, and fails where load_encoder_state would."""
        from safetensors import SafetensorError, safe_open

        self._require(self._encoder_path, "train the run first: it has no checkpoint yet")
        try:
            with safe_open(self._encoder_path, framework="pt") as file:
                return file.metadata() or {}
        except SafetensorError as error:
            raise self._unreadable_encoder(error) from None

    def save_result(self, name: str, result: dict) -> Path:
        """results/NAME.json."""
        path = self.path / "results" / f"{name}.json"
        if is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_json(path, result)
        return path

    def results(self) -> dict[str, dict]:
        """All results of the run by name."""
        paths = sorted((self.path / "results").glob("*.json"))
        return {path.stem: self._read_json(path, "run the evaluation again") for path in paths}

    @property
    def _recipe_path(self) -> Path:
        return self.path / "recipe.json"

    @property
    def _metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def _state_path(self) -> Path:
        return self.path / "state.pt"

    @property
    def _encoder_path(self) -> Path:
        return self.path / "encoder.safetensors"

    def _unreadable_encoder(self, error: Exception) -> DataError:
        return DataError(
            str(self._encoder_path), f"unreadable ({_first_line(error)})", "a safetensors file",
            "the command that trained the run, once more: it writes the file again",
        )

    def _require(self, path: Path, fix: str) -> None:
        if not self.path.is_dir():
            raise MissingDataError(str(self.path), "no such folder", "a run", "contrast3d pretrain RECIPE")
        if not path.exists():
            raise MissingDataError(str(path), "no such file", "", fix)

    def _read_json(self, path: Path, fix: str) -> dict:
        self._require(path, fix)
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            raise DataError(str(path), "not text", "a JSON object", fix) from None
        return _json_object(text, str(path), "a JSON object", fix)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` in one step at the end of the block, or not at all.

    A kill at any moment leaves either the old or the new content. The temporary name is always the same, so
    that what a kill leaves behind is taken over by the next write.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def differences(former: dict, present: dict, prefix: str = "") -> list[str]:
    """The fields in which two nested dicts differ, one readable phrase each: "lr is 0.1 there, 0.2 here"."""
    phrases = []
    for key in sorted({*former, *present}):
        a, b = former.get(key), present.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            phrases += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            phrases.append(f"{prefix}{key} is {a!r} there, {b!r} here")
    return phrases


def _json_object(text: str, where: str, expected: str, fix: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(where, f"not JSON ({error})", expected, fix) from None
    if not isinstance(value, dict):
        raise DataError(where, f"the JSON of a {type(value).__name__}", expected, fix)
    return value


def _write_json(path: Path, value: dict) -> None:
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def _json_value(value):
    if isinstance(value, str | bool | int | None):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
