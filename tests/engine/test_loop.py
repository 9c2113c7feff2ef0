import signal
import threading
import warnings

import pytest
import torch
from torch import nn
from toys import Doubled, Noisy, Plain, ToyLoader, comparable, measure

from contrast3d.engine import distributed
from contrast3d.engine.collapse import collapse_message
from contrast3d.engine.loop import _check_ranks_agree, train
from contrast3d.engine.optimizers import build_optimizer
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.settings import Training
from contrast3d.errors import CollapseWarning, ConfigError, DataError

SETTINGS = Training(epochs=4, lr=1e-2, warmup_epochs=1.0)


class Interrupting(ToyLoader):
    """Sends SIGINT to the own process before the batch number `at`."""

    def __init__(self, at, **kwargs):
        super().__init__(**kwargs)
        self.at = at

    def batch(self, epoch, step):
        if (epoch, step) == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().batch(epoch, step)


def equal_states(first, second):
    """Deep equality, bit for bit, of two states of a run.

    But for the clock, and for python's generator, which beartype's checks draw from (see test_processes.py).
    """
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        keys = first.keys() - {"seconds", "python"}
        return first.keys() == second.keys() and all(equal_states(first[k], second[k]) for k in keys)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal_states, first, second))
    return first == second


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("at", [(0, 0), (1, 2), (1, 3), (2, 0)], ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, at, optimizer):
    settings = Training(epochs=3, lr=1e-2, optimizer=optimizer, clip_norm=0.5, accumulate=1)
    whole, halves = RunDir(tmp_path / "whole"), RunDir(tmp_path / "halves")
    expected = train(Noisy(), ToyLoader(), settings, whole, on_epoch=measure, quiet=True)

    handler = signal.getsignal(signal.SIGINT)
    first = train(Noisy(), Interrupting(at), settings, halves, on_epoch=measure, quiet=True)
    assert (first.status, first.exit_code) == ("interrupted", 130)
    assert first.steps == at[0] * 4 + at[1] + 1
    assert signal.getsignal(signal.SIGINT) is handler
    torch.rand(7)  # the process goes on drawing
    second = train(Noisy(), ToyLoader(), settings, halves, on_epoch=measure, quiet=True)

    assert (second.status, second.steps, second.epochs, second.exit_code) == ("finished", 12, 3, 0)
    assert second.metrics == expected.metrics
    assert equal_states(whole.load_state(), halves.load_state())
    assert comparable(whole.metrics()) == comparable(halves.metrics())
    assert (tmp_path / "whole/encoder.safetensors").read_bytes() == \
        (tmp_path / "halves/encoder.safetensors").read_bytes()


def test_a_finished_run_is_left_alone(tmp_path):
    run = RunDir(tmp_path)
    first = train(Noisy(), ToyLoader(), SETTINGS, run, on_epoch=measure, quiet=True)
    written = (tmp_path / "state.pt").stat().st_mtime_ns
    method = Noisy()
    again = train(method, ToyLoader(), SETTINGS, run, on_epoch=measure, quiet=True)
    assert again.metrics == first.metrics
    assert again.steps == 16
    assert (tmp_path / "state.pt").stat().st_mtime_ns == written
    assert equal_states(method.state_dict(), run.load_state()["method"])


def test_a_run_in_use_is_refused_before_anything_is_written(tmp_path):
    run = RunDir(tmp_path)
    with RunDir(tmp_path).locked(), pytest.raises(ConfigError, match="another process trains in this folder"):
        train(Plain(), ToyLoader(), SETTINGS, run, quiet=True)
    assert not run.has_state
    assert train(Plain(), ToyLoader(), SETTINGS, run, quiet=True).status == "finished"


@pytest.mark.parametrize("damage", ["missing", "cut short", "of an earlier step"])
def test_a_finished_run_writes_its_encoder_again(tmp_path, damage):
    run, path = RunDir(tmp_path), tmp_path / "encoder.safetensors"
    method = Plain()
    train(method, ToyLoader(), SETTINGS, run, quiet=True)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[:-10])
    else:  # killed between the last state.pt and its encoder
        run.save_encoder(Plain().encoder, {"contrast3d": '{"recipe": {}, "step": 8}'})
    train(Plain(), ToyLoader(), SETTINGS, run, quiet=True)
    assert path.read_bytes() == content
    written = path.stat().st_mtime_ns
    train(Plain(), ToyLoader(), SETTINGS, run, quiet=True)
    assert path.stat().st_mtime_ns == written


def test_ranks_at_different_steps_are_told_as_whole_numbers(monkeypatch):
    monkeypatch.setattr(distributed, "maximum", lambda *values: [12.0, -0.0])
    with pytest.raises(ConfigError, match=r"different steps \(0 to 12\)"):
        _check_ranks_agree(12)


def test_without_resume_the_run_starts_over(tmp_path):
    run = RunDir(tmp_path)
    train(Plain(), ToyLoader(), SETTINGS, run, quiet=True)
    train(Plain(), ToyLoader(), Training(epochs=2), run, resume=False, quiet=True)
    assert [line["epoch"] for line in run.metrics()] == [1, 2]


def test_metrics_hold_means_lr_and_measurements(tmp_path):
    run = RunDir(tmp_path)
    losses = []

    class Recording(Plain):
        def forward(self, batch):
            outputs = super().forward(batch)
            losses.append(float(outputs["loss"].detach()))
            return outputs

    train(Recording(), ToyLoader(), SETTINGS, run, on_epoch=measure, quiet=True)
    trained = [line for line in run.metrics() if line["kind"] == "train"]
    means = [sum(losses[i : i + 4]) / 4 for i in (0, 4, 8, 12)]
    assert [line["loss"] for line in trained] == pytest.approx(means)
    assert [line["step"] for line in trained] == [4, 8, 12, 16]
    assert trained[0]["lr"] == pytest.approx(1e-2)
    assert [line["epoch"] for line in run.metrics() if line["kind"] == "epoch"] == [1, 2, 3, 4]


def test_an_epoch_without_measurements_leaves_no_line_and_the_display_as_it_was(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("contrast3d.engine.loop.Progress.update", lambda self, *_: shown.append(dict(self.numbers)))
    run = RunDir(tmp_path)
    train(Plain(), ToyLoader(), SETTINGS, run, quiet=True,
          on_epoch=lambda epoch, method: {} if epoch % 2 else {"knn_accuracy": 0.5})
    assert [(line["kind"], line["epoch"]) for line in run.metrics()] == [
        ("train", 1), ("train", 2), ("epoch", 2), ("train", 3), ("train", 4), ("epoch", 4)]
    assert shown[:8] == [{}] * 8
    assert shown[8:] == [{"knn_accuracy": 0.5}] * 8


def test_measuring_does_not_change_training():
    with_probe, without = Noisy(), Noisy()
    modes = []
    train(with_probe, ToyLoader(), SETTINGS, quiet=True,
          on_epoch=lambda epoch, method: modes.append(method.training) or measure(epoch, method))
    train(without, ToyLoader(), SETTINGS, quiet=True)
    assert equal_states(with_probe.state_dict(), without.state_dict())
    assert modes == [False] * 4
    assert with_probe.training


def test_accumulation_equals_the_joined_batch():
    accumulated, joined = Plain(), Plain()
    train(accumulated, ToyLoader(), Training(epochs=3, accumulate=2), quiet=True)
    train(joined, Doubled(ToyLoader()), Training(epochs=3), quiet=True)
    for a, b in zip(accumulated.parameters(), joined.parameters()):
        torch.testing.assert_close(a, b)


def test_clipping_bounds_the_step():
    class Steep(Plain):
        def forward(self, batch):
            return {"loss": 1e4 * super().forward(batch)["loss"]}

    method = Steep()
    before = nn.utils.parameters_to_vector(method.parameters()).detach().clone()
    settings = Training(epochs=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=1.0, clip_norm=0.5,
                        schedule="constant")
    outcome = train(method, ToyLoader(steps=1), settings, quiet=True)
    moved = nn.utils.parameters_to_vector(method.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-4)
    assert outcome.metrics["grad_norm"] > 100


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path, bad):
    class Breaking(Plain):
        def before_step(self, progress):
            self.broken = progress >= 6 / 16

        def forward(self, batch):
            outputs = super().forward(batch)
            return {"loss": outputs["loss"] * (bad if self.broken else 1.0)}

    run = RunDir(tmp_path)
    with pytest.raises(ConfigError, match=r"after step 7 at lr .*last good checkpoint is kept"):
        train(Breaking(), ToyLoader(), SETTINGS, run, quiet=True, checkpoint_steps=1)
    state = run.load_state()
    assert state["step"] == 6
    assert all(tensor.isfinite().all() for tensor in state["method"].values())


def test_a_nan_in_the_last_step_is_not_saved(tmp_path):
    class BadGradient(Plain):
        def before_step(self, progress):
            if progress >= 15 / 16:
                self.encoder[0].bias.register_hook(lambda gradient: gradient * float("nan"))

    run = RunDir(tmp_path)
    with pytest.raises(ConfigError, match=r"parameters .* not finite"):
        train(BadGradient(), ToyLoader(), SETTINGS, run, quiet=True)
    assert run.load_state()["step"] < 16


def test_a_corrupted_state_is_one_clear_error(tmp_path):
    run = RunDir(tmp_path)
    train(Plain(), ToyLoader(), SETTINGS, run, quiet=True)
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"state\.pt: unreadable .*--restart .*resume=False"):
        train(Plain(), ToyLoader(), SETTINGS, run, quiet=True)


def test_other_settings_data_or_model_do_not_resume(tmp_path):
    run = RunDir(tmp_path)
    train(Plain(), ToyLoader(), Training(epochs=2), run, quiet=True)
    with pytest.raises(ConfigError, match="epochs is 2 there, 3 here"):
        train(Plain(), ToyLoader(), Training(epochs=3), run, quiet=True)
    with pytest.raises(ConfigError, match="batches_per_epoch is 4 there, 5 here"):
        train(Plain(), ToyLoader(steps=5), Training(epochs=2), run, quiet=True)
    with pytest.raises(ConfigError, match="another model: average"):
        train(Noisy(), ToyLoader(), Training(epochs=2), run, quiet=True)
    train(Plain(), ToyLoader(), Training(epochs=2, checkpoint_seconds=1.0), run, quiet=True)


def test_the_time_budget_stops_and_anneals(tmp_path):
    run = RunDir(tmp_path)
    settings = Training(epochs=10**6, max_seconds=0.3)
    epochs = []
    outcome = train(Plain(), ToyLoader(), settings, run, quiet=True,
                    on_epoch=lambda epoch, method: epochs.append(epoch) or {})
    assert outcome.status == "finished"
    assert 0.3 <= outcome.seconds < 3.0
    assert epochs[-1] == -(-outcome.steps // 4)  # the cut epoch is measured, too
    assert run.metrics()[-1]["lr"] < 0.5e-3
    assert train(Plain(), ToyLoader(), settings, run, quiet=True).steps == outcome.steps


def test_bfloat16_runs_the_forward_pass_under_autocast():
    seen = []

    class Looking(Plain):
        def forward(self, batch):
            seen.append(self.encoder[0](batch[0]).dtype)
            return super().forward(batch)

    method = Looking()
    train(method, ToyLoader(steps=1), Training(epochs=1, precision="bfloat16"), quiet=True)
    assert seen == [torch.bfloat16]
    assert next(method.parameters()).dtype == torch.float32


def test_weight_decay_spares_biases_unless_the_method_says_so():
    def decays(method):
        groups = build_optimizer(method, Training(weight_decay=0.1)).param_groups
        return {id(p): g["weight_decay"] for g in groups for p in g["params"]}

    plain = Plain()
    plain.encoder[2].weight.requires_grad = False
    by_id = decays(plain)
    assert {by_id[id(p)] for p in plain.parameters() if p.requires_grad and p.ndim == 2} == {0.1}
    assert {by_id[id(p)] for p in plain.parameters() if p.ndim == 1} == {0.0}
    assert id(plain.encoder[2].weight) not in by_id

    class Grouped(Plain):
        def param_groups(self):
            return [{"params": self.encoder[0].parameters(), "weight_decay": 0.3},
                    {"params": self.encoder[2].parameters(), "lr": 1e-5}]

    grouped = Grouped()
    assert sorted(decays(grouped).values()) == [0.0, 0.1, 0.3, 0.3]
    assert {g["initial_lr"] for g in build_optimizer(grouped, Training()).param_groups} == {1e-3, 1e-5}
    with pytest.raises(ConfigError, match="no trainable parameters"):
        build_optimizer(plain.requires_grad_(False), Training())


@pytest.mark.parametrize(("numbers", "collapsed"), [
    ({"feature_std": 0.01}, True), ({"rankme": 1.5, "feature_std": 0.9}, True),
    ({"feature_std": 0.9, "rankme": 30.0}, False), ({"accuracy": 0.0}, False),
])
def test_collapse_warns_loudly_once(numbers, collapsed, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(Plain(), ToyLoader(), SETTINGS, on_epoch=lambda epoch, method: numbers)
    messages = [w for w in caught if w.category is CollapseWarning]
    assert len(messages) == collapsed
    assert ("COLLAPSE" in capsys.readouterr().err) == collapsed


def test_an_untrained_network_may_be_narrow():
    assert collapse_message({"rankme": 1.0}, epoch=0) is None
    assert collapse_message({"rankme": 1.0}, epoch=1) is not None


def test_progress_lines_reach_stderr(capsys):
    train(Plain(), ToyLoader(), SETTINGS, on_epoch=measure)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  0 %") or lines[0].startswith("  6 %")
    assert lines[-1].startswith("100 %  epoch 4/4  loss ")
    assert "shapes/s" in lines[-1]
    train(Plain(), ToyLoader(), SETTINGS, quiet=True)
    assert capsys.readouterr().err == ""


def test_tensorboard_is_written_on_request(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    train(Plain(), ToyLoader(), SETTINGS, RunDir(tmp_path), quiet=True, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events.*"))
    with pytest.raises(ConfigError, match="run folder"):
        train(Plain(), ToyLoader(), SETTINGS, quiet=True, tensorboard=True)
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'contrast3d\[log\]'"):
        train(Plain(), ToyLoader(), SETTINGS, RunDir(tmp_path / "b"), quiet=True, tensorboard=True)


def test_training_in_a_thread_needs_no_signal_handlers():
    outcomes = []
    run = lambda: outcomes.append(train(Plain(), ToyLoader(), SETTINGS, quiet=True))  # noqa: E731
    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
    assert outcomes[0].status == "finished"
