import math

import pytest
from toys import Plain

from contrast3d.engine.optimizers import build_optimizer
from contrast3d.engine.schedule import Plan
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError


def test_cosine_with_warmup_follows_the_formula():
    plan = Plan(Training(epochs=10, warmup_epochs=2.0, schedule="cosine"), batches_per_epoch=5)
    factors = [plan.lr_factor(step, 0.0) for step in range(plan.steps)]
    expected = [(t + 1) / 10 for t in range(10)]
    expected += [0.5 * (1 + math.cos(math.pi * (t - 10) / 40)) for t in range(10, 50)]
    assert factors == pytest.approx(expected)
    assert factors[9] == 1.0
    assert factors[-1] < 0.01


def test_step_schedule_is_torch_steplr():
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.4)
    plan = Plan(Training(epochs=10, schedule="step", step_epochs=3, step_gamma=0.4), batches_per_epoch=7)
    for epoch in range(10):
        lr = optimizer.param_groups[0]["lr"]
        assert [plan.lr_factor(epoch * 7 + step, 0.0) for step in range(7)] == pytest.approx([lr] * 7)
        optimizer.step()
        reference.step()


def test_poly_follows_the_formula_of_the_segmentation():
    plan = Plan(Training(epochs=4, schedule="poly"), batches_per_epoch=5)
    factors = [plan.lr_factor(step, 0.0) for step in range(plan.steps)]
    assert factors == pytest.approx([(1 - t / 21) ** 0.9 for t in range(20)])
    assert factors[0] == 1
    straight = Plan(Training(epochs=4, schedule="poly", poly_power=1.0, warmup_epochs=1.0), batches_per_epoch=5)
    assert straight.lr_factor(4, 0.0) == straight.lr_factor(5, 0.0) == 1
    assert straight.lr_factor(13, 0.0) == pytest.approx(0.5)


def test_released_cosine_is_constant_within_an_epoch_and_not_shifted_by_the_warmup():
    settings = Training(epochs=31, schedule="cosine-epochs", lr=1e-2, warmup_epochs=4.0, warmup_start_lr=1e-4,
                        min_lr=1e-3)
    plan = Plan(settings, batches_per_epoch=3)
    by_epoch = [plan.lr(3 * epoch, 0.0, 1e-2) for epoch in range(31)]
    assert [plan.lr(step, 0.0, 1e-2) for step in range(93)] == [lr for lr in by_epoch for _ in range(3)]
    assert by_epoch[:5] == pytest.approx([1e-4, 1e-4, 2.575e-3, 5.05e-3, 7.525e-3])
    assert by_epoch[5:] == pytest.approx([1e-3 + 4.5e-3 * (1 + math.cos(math.pi * t / 30)) for t in range(4, 30)])
    assert [plan.lr(step, 0.0, 1e-1) for step in (0, 92)] == pytest.approx([1e-4, 1e-3], rel=0.3)  # whatever the peak
    assert plan.lr_factor(50, 0.0) * 1e-2 == pytest.approx(plan.lr(50, 0.0, 1e-2))
    assert plan.lr(0, 0.0, 1e-2) < plan.lr(93, 0.0, 1e-2) < 1.03e-3
    others = Plan(Training(epochs=10, warmup_epochs=2.0), batches_per_epoch=5)
    assert all(others.lr(t, 0.0, 0.3) == 0.3 * others.lr_factor(t, 0.0) for t in range(50))
    assert Plan(Training(epochs=1, schedule="cosine-epochs"), 2).lr(1, 0.0, 0.1) == 0.1


def test_dampening_reaches_sgd():
    optimizer = build_optimizer(Plain(), Training(optimizer="sgd", momentum=0.9, dampening=0.1))
    assert {(g["momentum"], g["dampening"]) for g in optimizer.param_groups} == {(0.9, 0.1)}


def test_what_runs_of_before_did_not_know_is_no_part_of_their_settings():
    """A run without these fields resumes; one that sets them is told apart."""
    plain = Training().fingerprint
    assert not {"dampening", "poly_power", "warmup_start_lr", "min_lr"} & set(plain)
    assert Training(dampening=0.1).fingerprint == {**plain, "dampening": 0.1}
    assert Training(schedule="poly", poly_power=1.0).fingerprint == {**plain, "schedule": "poly", "poly_power": 1.0}


def test_constant_after_a_fractional_warmup():
    plan = Plan(Training(epochs=4, warmup_epochs=0.5, schedule="constant"), batches_per_epoch=4)
    assert [plan.lr_factor(t, 0.0) for t in range(4)] == [0.5, 1.0, 1.0, 1.0]


def test_accumulation_counts_optimiser_steps_and_drops_the_rest():
    plan = Plan(Training(epochs=3, accumulate=4), batches_per_epoch=10)
    assert (plan.steps_per_epoch, plan.steps) == (2, 6)
    with pytest.raises(ConfigError, match="accumulate"):
        Plan(Training(accumulate=4), batches_per_epoch=3)


def test_a_time_budget_moves_the_schedule_forward():
    plan = Plan(Training(epochs=10, max_seconds=20.0), batches_per_epoch=10)
    assert plan.progress(10, 10.0) == 0.5
    assert plan.progress(70, 10.0) == 0.7
    assert plan.progress(3, 25.0) == 1.0
    assert plan.lr_factor(10, 10.0) == pytest.approx(0.5)
    assert plan.lr_factor(10, 25.0) == pytest.approx(0.0)


@pytest.mark.parametrize(("field", "value"), [
    ("epochs", 0), ("optimizer", "lamb"), ("lr", 0.0), ("lr", math.nan), ("weight_decay", -0.1),
    ("momentum", 1.0), ("schedule", "linear"), ("warmup_epochs", 100.0), ("clip_norm", 0.0),
    ("dampening", 1.0), ("poly_power", 0.0), ("warmup_start_lr", 1.0), ("min_lr", -1e-6),
    ("accumulate", 0), ("precision", "float16"), ("max_seconds", -1.0), ("seed", -1),
    ("weight_decay", math.nan),
])
def test_settings_that_cannot_work_name_the_field(field, value):
    settings = Training()
    object.__setattr__(settings, field, value)  # in tests, the constructor itself would check the types first
    with pytest.raises(ConfigError, match=rf"training\.{field} = "):
        settings.__post_init__()
