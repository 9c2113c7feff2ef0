"""The losses of masked reconstruction and of its teachers against their formulas, written out one shape at a time."""

import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from contrast3d.errors import DataError
from contrast3d.losses.chamfer import chamfer_l1, chamfer_l2
from contrast3d.losses.class_contrast import class_contrast
from contrast3d.losses.cross_modal_info_nce import cross_modal_info_nce
from contrast3d.losses.feature_regression import feature_regression

LABELS = torch.tensor([0, 2, 0, 1, 2, 0, 3, -1, -1])
NONE = float("nan")


def rows(n=9, d=5, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(n, d, generator=draw, dtype=torch.float64)).requires_grad_()


def taught(n=9, d=5, missing=(), equal=()):
    """Teacher features, some missing, those of `equal` all one caption's."""
    targets = rows(n, d, seed=1, scale=3.0).detach()
    targets[list(equal)] = targets[list(equal)[:1]].clone() * (1 + 1e-9) if equal else targets[[]]
    targets[list(missing), 0] = NONE
    return targets


def check(ours, expected, *inputs):
    """Values and gradients agree."""
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for x, y in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


# Chamfer; its operation has tests of its own.


def test_chamfer_losses_are_those_of_point_mae():
    predicted, target = (z.detach().view(4, -1, 3).requires_grad_() for z in (rows(24, 3), rows(32, 3, 1)))
    for loss in (chamfer_l2, chamfer_l1):
        expected = 0
        for p, t in zip(predicted, target):
            table = torch.cdist(p, t)
            parts = [table.amin(1), table.amin(0)]
            expected = expected + sum((x**2).mean() if loss is chamfer_l2 else x.mean() / 2 for x in parts) / 4
        check(loss(predicted, target), expected, predicted, target)


# Regression of features.


def naive_regression(predictions, targets):
    known = [i for i in range(len(targets)) if not targets[i].isnan().any()]
    entries = [(predictions[i, c] - targets[i, c]).abs() for i in known for c in range(targets.shape[1])]
    return sum(r**2 / 2 if r < 1 else r - 0.5 for r in entries) / len(entries)


@pytest.mark.parametrize("missing", [(), (3,), (0, 1, 8)])
def test_regression_is_smooth_l1_of_what_is_known(missing):
    predictions, targets = rows(), taught(missing=missing)
    check(feature_regression(predictions, targets), naive_regression(predictions, targets), predictions)
    if not missing:
        check(feature_regression(predictions, targets), F.smooth_l1_loss(predictions, targets), predictions)


def test_regression_is_not_normalised():
    predictions, targets = rows(), taught()
    assert feature_regression(2 * predictions, targets) != feature_regression(predictions, targets)


@pytest.mark.parametrize("loss", [feature_regression, cross_modal_info_nce])
def test_shapes_without_a_target_get_no_gradient(loss):
    predictions, targets = rows(), taught(missing=(2, 5))
    (slope,) = torch.autograd.grad(loss(predictions, targets), predictions)
    assert not slope[[2, 5]].any()
    assert slope[[0, 1, 3, 4, 6, 7, 8]].abs().sum(1).min() > 0
    check(loss(predictions, targets), loss(predictions[[0, 1, 3, 4, 6, 7, 8]], targets[[0, 1, 3, 4, 6, 7, 8]]),
          predictions)


@pytest.mark.parametrize("loss", [feature_regression, cross_modal_info_nce])
@pytest.mark.parametrize("count", [0, 4])
def test_nothing_to_learn_from_is_a_zero_with_a_gradient(loss, count):
    predictions = rows(count)
    found = loss(predictions, torch.full_like(predictions, NONE))
    found.backward()
    assert found == 0
    assert predictions.grad.shape == (count, 5)
    assert not predictions.grad.any()


# InfoNCE between modalities.


def naive_cross_modal(projections, targets, temperature, captions):
    p, t = F.normalize(projections, dim=1), F.normalize(targets, dim=1)
    known = [i for i in range(len(targets)) if not targets[i].isnan().any()]
    loss = 0
    for i in known:
        others = [j for j in known if j == i or captions[j] != captions[i]]
        there = torch.stack([p[i] @ t[j] for j in others]) / temperature
        back = torch.stack([t[i] @ p[j] for j in others]) / temperature
        loss = loss + (there.logsumexp(0) + back.logsumexp(0)) / 2 - p[i] @ t[i] / temperature
    return loss / len(known)


@pytest.mark.parametrize("missing", [(), (3,), (0, 7)])
@pytest.mark.parametrize("equal", [(), (1, 4, 5), (0, 3, 8)])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_cross_modal_is_its_formula(missing, equal, temperature):
    projections, targets = rows(scale=4.0), taught(missing=missing, equal=equal)
    captions = ["same" if i in equal else i for i in range(9)]
    expected = naive_cross_modal(projections, targets, temperature, captions)
    check(cross_modal_info_nce(projections, targets, temperature), expected, projections)


def test_cross_modal_without_equals_is_two_cross_entropies():
    projections, targets = rows(), taught()
    logits = F.normalize(projections, dim=1) @ F.normalize(targets, dim=1).T / 0.07
    order = torch.arange(9)
    expected = (F.cross_entropy(logits, order) + F.cross_entropy(logits.T, order)) / 2
    check(cross_modal_info_nce(projections, targets), expected, projections)


def test_one_caption_for_all_leaves_nothing_to_tell_apart():
    projections = rows(6)
    assert cross_modal_info_nce(projections, taught(6, equal=range(6))).abs() < 1e-12


def test_captions_that_nearly_agree_are_told_apart():
    targets = taught(2)
    targets[1] = targets[0] + 0.02 * targets[1]
    aligned = cross_modal_info_nce(rows(2), targets)
    assert aligned > 0.1


# Contrast of classes.


def naive_classes(embeddings, labels, temperature):
    z, loss = F.normalize(embeddings, dim=1), 0
    for i in range(len(z)):
        alike = [j for j in range(len(z)) if j == i or (labels[j] == labels[i] and labels[i] >= 0)]
        positive = torch.stack([z[i] @ z[j] for j in alike]).mean() / temperature
        negatives = [z[i] @ z[j] / temperature for j in range(len(z)) if j not in alike]
        loss = loss + torch.stack([positive, *negatives]).logsumexp(0) - positive
    return loss / len(z)


@pytest.mark.parametrize("labels", [
    LABELS, torch.zeros(9, dtype=torch.int64), torch.arange(9), torch.full((9,), -1)
], ids=["mixed", "one class", "a class each", "unknown"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_class_contrast_is_its_formula(labels, temperature):
    embeddings = rows(scale=7.0)
    check(class_contrast(embeddings, labels, temperature), naive_classes(embeddings, labels, temperature), embeddings)


def test_class_contrast_has_one_positive_that_holds_itself():
    """Two shapes of a class at right angles, one of another class opposite to both: by hand."""
    embeddings = torch.tensor([[3.0, 0], [0, 5], [-1, -1]], dtype=torch.float64)
    positive, s = 0.5 / 0.1, -math.sqrt(0.5) / 0.1
    pair = math.log(math.exp(positive) + math.exp(s)) - positive
    alone = math.log(math.exp(10) + 2 * math.exp(s)) - 10
    found = class_contrast(embeddings, torch.tensor([4, 4, 1]))
    assert found.item() == pytest.approx((2 * pair + alone) / 3, abs=1e-12)


def test_class_contrast_reads_labels():
    embeddings = rows()
    assert class_contrast(embeddings, LABELS) != class_contrast(embeddings, LABELS.flip(0))


# All of them.

LOSSES = {
    "regression": lambda z, some=slice(None): feature_regression(z, taught(missing=(3, 6, 7))[some]),
    "cross-modal": lambda z, some=slice(None): cross_modal_info_nce(
        z, taught(missing=(3, 6, 7), equal=(1, 4, 5))[some], 0.3),
    "classes": lambda z, some=slice(None): class_contrast(z, LABELS[some], 0.3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    assert torch.autograd.gradcheck(LOSSES[name], (rows(),))


@pytest.mark.parametrize("name", LOSSES)
def test_halves_and_autocast_are_in_float32(name):
    z = rows().detach().float().requires_grad_()
    expected = LOSSES[name](z)
    with torch.autocast("cpu", torch.bfloat16):
        told = LOSSES[name](z)
    torch.testing.assert_close(told, expected)
    told.backward()
    assert torch.isfinite(z.grad).all()
    assert LOSSES[name](z.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0, NONE])
def test_temperatures_that_cannot_be(temperature):
    with pytest.raises(DataError, match="temperature"):
        class_contrast(rows(), LABELS, temperature)
    with pytest.raises(DataError, match="temperature"):
        cross_modal_info_nce(rows(), taught(), temperature)
    with pytest.raises(DataError, match="an empty batch"):
        class_contrast(rows(0), LABELS[:0])


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mine = slice(4 * rank, 4 * rank + 4)
    found = {}
    for name, loss in LOSSES.items():
        z = rows()[mine].detach().requires_grad_()
        value = loss(z, mine)
        value.backward()
        found[name] = torch.cat([value.detach().view(1), z.grad.flatten()])
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()
    os._exit(0)  # threads of torch's that outlive the interpreter would abort the process now and then


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    mp.spawn(worker, (str(path),), nprocs=2)
    return [torch.load(path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_equal_one(ranks, name):
    """The ranks know different numbers of targets; mean loss and gradients are those of the whole batch."""
    z = rows()[:8].detach().requires_grad_()
    whole = LOSSES[name](z, slice(8))
    whole.backward()
    torch.testing.assert_close((ranks[0][name][0] + ranks[1][name][0]) / 2, whole.detach(), rtol=0, atol=1e-12)
    parts = torch.cat([r[name][1:] for r in ranks]).view(8, 5) / 2
    torch.testing.assert_close(parts, z.grad, rtol=0, atol=1e-12)
