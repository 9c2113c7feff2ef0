"""Fine-tuning beside the same network from scratch, and its looser twin that selects on test."""

from __future__ import annotations

import copy
import dataclasses
import signal

import pytest
import torch
from test_classification import Tiny, boxes

import contrast3d as c3d
from contrast3d.downstream import finetune as module
from contrast3d.downstream.classification import Classifier, fit_classifier
from contrast3d.downstream.finetune import Tuning, finetune, finetune_best_on_test
from contrast3d.downstream.table import FROZEN, MAJORITY, SCRATCH, SCRATCH_LAST, TUNED_LAST
from contrast3d.engine.optimizers import build_optimizer
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:the best C")
QUICK = {"transform": None, "epochs": 12, "min_steps": 12, "batch_size": 10, "lr": 2e-2, "encoder_lr_scale": 0.3,
         "make_untrained": Tiny}
DATA = boxes(0), boxes(1)


def test_the_whole_table():
    encoder, told, columns = Tiny(3).eval(), [], []
    encoder.requires_grad_(False)
    before = copy.deepcopy(encoder.state_dict())
    table = finetune(
        encoder, DATA, name="ours", labels_per_class=(5, None), draws=2, seed=4, on_progress=told.append,
        on_column=lambda t: columns.append([b for b in t.budgets if t.cell("ours", b)]), **QUICK,
    )
    assert table.contestants == [MAJORITY, FROZEN, SCRATCH, "ours"]
    told_apart = "fine-tuning (epochs 12, min_steps 12, lr 0.02, encoder_lr_scale 0.3, batch_size 10)"
    assert (table.protocol, table.dataset, table.budgets) == (told_apart, "boxes", (5, None))
    assert [len(table.cell("ours", b).values) for b in table.budgets] == [2, 1]
    assert table.cell(MAJORITY, None).mean == 0.5
    assert min(table.cell(who, None).mean for who in ("ours", SCRATCH)) > 0.9
    assert columns == [[5], [5, None]]
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items()), "a copy is trained"
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert told[0] == FROZEN
    assert told[1] == f"{SCRATCH}, 5 labels per class, draw 1 of 2"
    assert told[2].startswith(f"{told[1]}: ")
    assert told[-2] == "ours, all labels per class, draw 1 of 1"
    assert told[-1] == f"{told[-2]}: {100 * table.cell('ours', None).mean:.1f} %, 0:00 left"


def test_same_seed_same_numbers():
    tune = lambda seed: finetune(Tiny(), DATA, name="ours", labels_per_class=(3,), draws=2, seed=seed, **QUICK)  # noqa: E731
    first, again, other = tune(0), tune(0), tune(2)
    assert {k: [p.predictions.tolist() for p in v] for k, v in first.scores.items()} == {
        k: [p.predictions.tolist() for p in v] for k, v in again.scores.items()
    }
    assert first.scores["ours", 3][0].predictions.tolist() != other.scores["ours", 3][0].predictions.tolist()


def spied(monkeypatch):
    seen = []

    def spy(make_encoder, train, test, transform, **options):
        seen.append((make_encoder(options["seed"]), train, transform, options))
        return fit_classifier(make_encoder, train, test, transform, **{**options, "epochs": 1, "warmup_epochs": 0.1})

    monkeypatch.setattr(module, "fit_classifier", spy)
    return seen


def test_both_are_trained_alike_but_for_where_they_begin(monkeypatch):
    seen, encoder = spied(monkeypatch), Tiny(3)
    finetune(encoder, DATA, labels_per_class=(4,), draws=1, seed=7, **QUICK | {"encoder_lr_scale": 0.5})
    (fresh, few, _, scratch), (copied, same, _, ours) = seen
    assert torch.equal(copied.layer.weight, encoder.layer.weight)
    assert copied.layer.weight is not encoder.layer.weight
    assert torch.equal(fresh.layer.weight, Tiny(7).layer.weight)
    assert few.labels.bincount().tolist() == [4, 4]
    assert few.hash == same.hash
    differing = {key for key in ours if ours[key] != scratch[key]} - {"on_epoch"}
    assert differing == {"encoder_lr_scale"}
    assert (scratch["encoder_lr_scale"], ours["encoder_lr_scale"]) == (1.0, 0.5)
    assert (ours["epochs"], ours["warmup_epochs"]) == (12, pytest.approx(1.2))


def test_views_of_a_preset_have_as_many_points_as_the_encoder_reads(monkeypatch):
    seen = spied(monkeypatch)
    options = {**QUICK, "transform": "none", "make_untrained": False}
    finetune(c3d.nn.Partwise(Tiny(), 8), DATA, labels_per_class=(4,), draws=1, **options)
    finetune(Tiny(), DATA, labels_per_class=(4,), draws=1, **options)
    assert [transform.transforms[0].num_points for _, _, transform, _ in seen] == [8, 32]


def test_few_labels_get_steps_enough():
    how = Tuning(epochs=15, min_steps=250, batch_size=32)
    assert how.schedule(400) == (21, 12)
    assert how.schedule(1807) == (15, 56)
    assert how.schedule(10) == (250, 1)
    assert Tuning(epochs=3, min_steps=0).schedule(10) == (3, 1)


def test_the_encoder_has_a_learning_rate_of_its_own():
    rates = lambda classifier: {  # noqa: E731
        id(p): group["lr"] for group in build_optimizer(classifier, Training(lr=0.5)).param_groups
        for p in group["params"]
    }
    classifier = Classifier(Tiny(), 2, encoder_lr=0.1)
    found = rates(classifier)
    assert {found[id(p)] for p in classifier.encoder.parameters()} == {0.1}
    assert {found[id(p)] for p in classifier.head.parameters()} == {0.5}
    assert set(rates(Classifier(Tiny(), 2)).values()) == {0.5}


def test_best_on_test_says_so_and_keeps_the_last_epoch_beside(monkeypatch):
    looked, predict = [], module.predict
    monkeypatch.setattr(module, "predict", lambda *args: looked.append(1) or predict(*args))
    options = {**QUICK, "epochs": 4, "min_steps": 18}
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    noise = dataclasses.replace(DATA[1], labels=DATA[1].labels[shuffled])
    tune = lambda f: f(Tiny(), (DATA[0], noise), name="ours", labels_per_class=(3,), draws=3, **options)  # noqa: E731
    table, clean = tune(finetune_best_on_test), tune(finetune)
    assert len(looked) == 2 * 3 * 3  # epochs 5, 10, 15; the last, 18, is scored anyway: no more than 4 looks each
    assert "chosen on test" in table.protocol
    assert table.contestants == [MAJORITY, FROZEN, SCRATCH, SCRATCH_LAST, "ours", TUNED_LAST]
    for best, last, of in (("ours", TUNED_LAST, "ours"), (SCRATCH, SCRATCH_LAST, SCRATCH)):
        pairs = list(zip(table.cell(best, 3).values, table.cell(last, 3).values))
        assert all(b >= a for b, a in pairs)
        assert table.cell(last, 3) == clean.cell(of, 3), "looking changes nothing"
    assert table.cell("ours", 3).mean > table.cell(TUNED_LAST, 3).mean, "of noise, the best look is better"
    (result, *_) = table.to_results("toy", commit="c", command="x", device="cpu")
    assert "chosen on test" in result["protocol"]
    assert {chosen["epoch"] for chosen in result["chosen"]} <= {5, 10, 15, 18}
    assert set(result["baselines"]) == {MAJORITY, FROZEN, SCRATCH, SCRATCH_LAST, TUNED_LAST}


class Interrupting:
    """A transform that receives a signal at its n-th batch."""

    def __init__(self, number, at):
        self.number, self.left = number, at

    def __call__(self, clouds, draws):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return clouds


@pytest.mark.parametrize("at", [2, 12])  # in the middle, and in the very last step
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_half_trained_network_is_not_scored(number, raised, at):
    with pytest.raises(raised) as stop:
        fit_classifier(Tiny, *DATA, Interrupting(number, at), epochs=3, batch_size=10)
    assert raised is KeyboardInterrupt or stop.value.code == 143


def test_ctrl_c_leaves_the_finished_columns():
    kept = []
    options = {**QUICK, "epochs": 3, "min_steps": 0, "transform": Interrupting(signal.SIGINT, 3 * 2 + 3 * 2 + 5)}
    with pytest.raises(KeyboardInterrupt):
        finetune(Tiny(), DATA, name="ours", labels_per_class=(10, None), draws=1, **options,
                 on_column=lambda table: kept.append(dict(table.scores)))
    assert [{b for _, b in scores} for scores in kept] == [{10}]


def test_python_finds_it():
    assert c3d.evaluate.finetune is finetune
    assert c3d.evaluate.finetune_best_on_test is finetune_best_on_test


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"epochs": 0}, ConfigError, "epochs = 0"),
        ({"encoder_lr_scale": 0.0}, ConfigError, "a positive scale"),
        ({"batch_size": 1}, ConfigError, "2 shapes"),
        ({"draws": 0}, ConfigError, "at least one draw"),
        ({"labels_per_class": ()}, ConfigError, "one number of labels"),
        ({"labels_per_class": ("0%",)}, DataError, "share of each class"),
        ({"name": SCRATCH}, ConfigError, "a name that no baseline has"),
        ({"transform": "objcts"}, ConfigError, "no augmentation preset"),
    ],
)
def test_mistakes(options, error, told):
    with pytest.raises(error, match=told):
        finetune(Tiny(), DATA, **{**QUICK, **options})
