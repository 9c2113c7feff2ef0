import json
import re
import sys

import pytest

from contrast3d.downstream import results


def test_write_is_whole_or_not_at_all(tmp_path):
    path = results.write_json(tmp_path / "a" / "b.json", {"mean": 0.5})
    assert json.loads(path.read_text()) == {"mean": 0.5}
    with pytest.raises(ValueError, match="JSON compliant"):
        results.write_json(path, {"mean": float("nan")})
    assert json.loads(path.read_text()) == {"mean": 0.5}
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_commit_falls_back_to_the_version(monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{12}(\+dirty)?|contrast3d .+", results.commit())
    monkeypatch.setattr(results, "_git", lambda *_: "")
    assert results.commit().startswith("contrast3d ")


def test_the_command_shows_no_machine_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/bin/contrast3d", "evaluate", "linear", "my run"])
    assert results.command() == "contrast3d evaluate linear 'my run'"


def test_device_name():
    assert "CPU" in results.device_name()
