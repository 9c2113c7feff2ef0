import json
import os
import signal
import time

import pytest
import torch
from torch import nn

from contrast3d.engine.run_dir import RunDir, differences, replacing
from contrast3d.errors import ConfigError, DataError, MissingDataError


def test_create_writes_the_recipe_and_accepts_it_again(tmp_path):
    recipe = {"name": "simclr", "sizes": (1, 2), "optimizer": {"lr": 0.1}}
    run = RunDir(tmp_path / "deep" / "run").create(recipe)
    assert run.recipe == {"name": "simclr", "sizes": [1, 2], "optimizer": {"lr": 0.1}}
    assert run.create(recipe).recipe == run.recipe


def test_create_names_the_fields_of_another_recipe(tmp_path):
    run = RunDir(tmp_path).create({"name": "simclr", "optimizer": {"lr": 0.1, "epochs": 3}})
    with pytest.raises(ConfigError, match=r"optimizer\.lr is 0\.1 there, 0\.2 here") as error:
        run.create({"name": "simclr", "optimizer": {"lr": 0.2, "epochs": 3}})
    assert "epochs" not in str(error.value)
    assert run.recipe["optimizer"]["lr"] == 0.1


def test_differences_finds_missing_fields():
    assert differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 2}}) == ["a is 1 there, None here"]
    assert differences({"a": {"b": [1]}}, {"a": {"b": [1]}}) == []


def test_metrics_round_trip_and_become_valid_json(tmp_path):
    run = RunDir(tmp_path)
    assert run.metrics() == []
    run.log({"step": 1, "loss": torch.tensor(0.5), "bad": float("nan"), "kind": "train"})
    run.log({"step": 2, "loss": 0.25})
    first = {"step": 1, "loss": 0.5, "bad": None, "kind": "train"}
    assert run.metrics() == [first, {"step": 2, "loss": 0.25}]


def test_rewind_drops_later_and_torn_lines(tmp_path):
    run = RunDir(tmp_path)
    for step in (1, 2, 3):
        run.log({"step": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    run.rewind(2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_broken_line_within_the_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: not JSON"):
        RunDir(tmp_path).metrics()


def test_encoder_round_trip_with_tied_and_strided_weights(tmp_path):
    encoder = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    encoder[1].weight = encoder[0].weight
    encoder[0].bias.data = torch.arange(6.0)[::2]
    run = RunDir(tmp_path)
    run.save_encoder(encoder, {"step": "7"})
    loaded = run.load_encoder_state()
    assert loaded.keys() == encoder.state_dict().keys()
    assert all(torch.equal(loaded[k], v) for k, v in encoder.state_dict().items())


def test_results_round_trip(tmp_path):
    run = RunDir(tmp_path)
    assert run.results() == {}
    path = run.save_result("linear", {"mean": 0.5})
    assert json.loads(path.read_text()) == {"mean": 0.5}
    assert run.results() == {"linear": {"mean": 0.5}}


@pytest.mark.parametrize("read", [RunDir.load_state, RunDir.load_encoder_state, lambda run: run.recipe])
def test_missing_files_name_the_fix(tmp_path, read):
    with pytest.raises(MissingDataError, match="no such file"):
        read(RunDir(tmp_path))
    with pytest.raises(MissingDataError, match="no such folder"):
        read(RunDir(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"{ not json"])
def test_broken_files_are_data_errors(tmp_path, content):
    for name in ("state.pt", "encoder.safetensors", "recipe.json"):
        (tmp_path / name).write_bytes(content)
    run = RunDir(tmp_path)
    for read in (run.load_state, run.load_encoder_state, lambda: run.recipe):
        with pytest.raises(DataError, match="Try: "):
            read()


class Spy:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_state_is_never_unpickled_freely(tmp_path, capsys):
    torch.save({"state": Spy()}, tmp_path / "state.pt")
    with pytest.raises(DataError, match="unreadable"):
        RunDir(tmp_path).load_state()
    assert "unpickled" not in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half():
        with replacing(path) as file:
            file.write(b"ne")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["[1]", "3", "null", '"text"'])
def test_json_that_is_no_object_is_a_data_error(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    (tmp_path / "metrics.jsonl").write_text(content + "\n")
    for read in (lambda run: run.recipe, RunDir.metrics):
        with pytest.raises(DataError, match=r"the JSON of a \w+; expected"):
            read(RunDir(tmp_path))


def test_bytes_that_are_no_text_are_a_data_error(tmp_path):
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"recipe\.json: not text"):
        RunDir(tmp_path).recipe  # noqa: B018


def test_changed_data_are_named(tmp_path):
    run = RunDir(tmp_path).create({"lr": 0.1, "data_hash": "aaa"}, "shapes.npz")
    run.create({"lr": 0.1, "data_hash": "aaa"}, "shapes.npz")
    with pytest.raises(ConfigError, match=r"other data: shapes\.npz has changed since \(data_hash aaa there, bbb here"):
        run.create({"lr": 0.1, "data_hash": "bbb"}, "shapes.npz")
    with pytest.raises(ConfigError, match=r"lr is 0\.1 there, 0\.2 here") as error:  # other fields read other data
        run.create({"lr": 0.2, "data_hash": "bbb"}, "shapes.npz")
    assert "hash" not in str(error.value)


def test_runs_that_stored_no_hash_are_taken_as_they_are(tmp_path):
    run = RunDir(tmp_path).create({"lr": 0.1})
    written = (tmp_path / "recipe.json").read_bytes()
    run.create({"lr": 0.1, "data_hash": "bbb"})
    assert (tmp_path / "recipe.json").read_bytes() == written


def test_one_process_at_a_time_holds_the_lock(tmp_path):
    first, second = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
    told = r"another process trains in this folder \(.*run\)"
    with first.locked(), first.locked(), pytest.raises(ConfigError, match=told), second.locked():
        pass
    with second.locked(), pytest.raises(ConfigError, match="another process"), first.locked():
        pass


def test_kill_9_leaves_no_lock_behind(tmp_path):
    pid = os.fork()
    if not pid:
        with RunDir(tmp_path).locked():
            (tmp_path / "held").touch()
            time.sleep(60)
        os._exit(0)
    while not (tmp_path / "held").exists():
        time.sleep(0.005)
    with pytest.raises(ConfigError, match="another process"), RunDir(tmp_path).locked():
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with RunDir(tmp_path).locked():
        pass


def test_a_system_without_locks_trains_without(tmp_path, monkeypatch):
    monkeypatch.setattr("contrast3d.engine.lock.fcntl", None)
    with RunDir(tmp_path).locked(), RunDir(tmp_path).locked():
        pass
