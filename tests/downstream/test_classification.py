import pytest
import torch
from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.classification import Classifier, fit_classifier, predict
from contrast3d.errors import ConfigError
from contrast3d.types import Features


class Tiny(nn.Module):
    embed_dim = 8

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer, self.norm = nn.Linear(3, 8), nn.BatchNorm1d(8)

    def forward(self, clouds):
        return Features(self.norm(self.layer(clouds.dense.abs().amax(1))))


def boxes(seed, per_class=20):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(2 * per_class) % 2
    points = 2 * torch.rand(len(labels), 32, 3, generator=g) - 1
    points[labels == 1, :, 2] *= 0.3
    return ShapeSet(points, labels, ("cube", "slab"), title="boxes")


def test_forward_is_the_loss_over_all_views():
    classifier, shapes = Classifier(Tiny(), 2, dropout=0.0, label_smoothing=0.1).eval(), boxes(0)
    one = shapes.clouds()
    outputs = classifier([one, one])
    logits = classifier.logits(one)
    naive = (torch.logsumexp(logits, 1) - 0.95 * logits.gather(1, shapes.labels[:, None])[:, 0]
             - 0.05 * logits.gather(1, 1 - shapes.labels[:, None])[:, 0]).mean()
    torch.testing.assert_close(outputs["loss"], naive)
    hits = logits.argmax(1) == shapes.labels
    assert outputs["accuracy"].item() == pytest.approx(hits.float().mean().item())


def test_it_learns_and_is_deterministic_by_epochs():
    fit = lambda: fit_classifier(Tiny, boxes(0), boxes(1), None, epochs=12, batch_size=10, lr=2e-2)  # noqa: E731
    runs = fit(), fit()
    assert runs[0].accuracy > 0.9
    assert torch.equal(runs[0].predictions, runs[1].predictions)


def test_a_budget_of_seconds_ends_near_it():
    import time

    started = time.perf_counter()
    found = fit_classifier(Tiny, boxes(0), boxes(1), None, seconds=0.5, batch_size=10)
    assert len(found.predictions) == 40
    assert 0.5 <= time.perf_counter() - started < 10


def test_prediction_leaves_the_classifier_as_it_was():
    classifier = Classifier(Tiny(), 2).train()
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    assert predict(classifier, boxes(0), batch_size=7).shape == (40,)
    assert classifier.training
    assert classifier.head[3].training
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


def test_bad_knobs():
    with pytest.raises(ConfigError, match="either seconds or epochs"):
        fit_classifier(Tiny, boxes(0), boxes(1), None)
    with pytest.raises(ConfigError, match="at least 2"):
        Classifier(Tiny(), 1)
