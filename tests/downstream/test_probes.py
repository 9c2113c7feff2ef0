import warnings
from functools import partial

import pytest
import torch

from contrast3d.downstream.probes import K_GRID, PATHS, Prediction, knn_predict, probe, probe_all
from contrast3d.errors import ConfigError


def gaussians(n=150, d=8, classes=3, seed=0, spread=1.0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    return centres[y] + spread * torch.randn(n, d, generator=g), y


@pytest.mark.parametrize("kind", PATHS)
def test_probes_learn_and_are_deterministic(kind):
    (x, y), (tx, ty) = gaussians(), gaussians(seed=1)
    first, second = (probe(kind, x, y, tx, ty, seed=4) for _ in range(2))
    assert first.accuracy > 0.85
    assert torch.equal(first.predictions, second.predictions)
    assert first.chosen == second.chosen


@pytest.mark.parametrize("kind", PATHS)
def test_test_labels_change_nothing_but_the_score(kind):
    (x, y), (tx, ty) = gaussians(spread=2), gaussians(seed=1, spread=2)
    honest = probe(kind, x, y, tx, ty)
    shuffled = probe(kind, x, y, tx, ty[torch.randperm(len(ty))])
    assert honest.chosen == shuffled.chosen
    assert torch.equal(honest.predictions, shuffled.predictions)


@pytest.mark.filterwarnings("ignore:the best C")
def test_groups_matter_for_what_is_chosen():
    # every sample has a twin and little signal: without groups, learning by heart looks best in validation
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 60, generator=g), torch.randint(0, 2, (80,), generator=g)
    x[:, :8] += 0.4 * (2.0 * y[:, None] - 1)
    x, y, groups = x.repeat(2, 1), y.repeat(2), torch.arange(80).repeat(2)
    by_heart = probe("linear", x, y, x, y).chosen["C"]
    assert probe("linear", x, y, x, y, groups).chosen["C"] < by_heart / 5


@pytest.mark.filterwarnings("ignore:the best C")
@pytest.mark.parametrize("kind", PATHS)
def test_one_class_and_tiny_classes(kind):
    x, y = gaussians(30)
    only = probe(kind, x, torch.full_like(y, 2), x, y)
    assert only.predictions.tolist() == [2] * 30
    assert only.chosen == {}
    rows = torch.tensor([0, 1, 2, 3])  # classes of 2, 1 and 1 samples
    few = probe(kind, x[rows], y[rows], x, y)
    assert set(few.predictions.tolist()) <= {0, 1, 2}


def test_knn_parity_with_a_loop():
    (x, y), (q, _) = gaussians(40), gaussians(13, seed=2)
    ours = knn_predict(x, y, q, k=7, block=5)
    for row, prediction in zip(q, ours.tolist()):
        similarity = torch.cosine_similarity(row[None], x)
        votes = torch.zeros(3)
        for i in similarity.argsort(descending=True)[:7].tolist():
            votes[y[i]] += (similarity[i] / 0.07).exp()
        assert votes.argmax().item() == prediction
    assert torch.equal(knn_predict(x, y, q, k=500), knn_predict(x, y, q, k=40))
    assert max(K_GRID) == 50


def test_a_choice_at_the_edge_of_the_grid_warns_and_one_inside_does_not():
    # a single informative direction hidden far below the noise of the others wants hardly any penalty
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    common = 50 * torch.randn(200, 1, generator=g)
    x = torch.cat([common, common + 1e-2 * (2.0 * y[:, None] - 1)], 1)
    with pytest.warns(UserWarning, match="edge of its grid"):
        probe("linear", x.double().float(), y, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (a, b), (c, d) = gaussians(spread=2.0), gaussians(seed=1, spread=2.0)
        probe("linear", a, b, c, d)


def test_unknown_kind():
    x, y = gaussians(9)
    with pytest.raises(ConfigError, match="linear, svm, knn"):
        probe("ridge", x, y, x, y)


def test_prediction_scores():
    p = Prediction.score(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2]))
    assert (p.accuracy, p.balanced_accuracy) == (0.75, 0.5)


def test_probes_side_by_side_are_those_one_after_the_other():
    """In order, whatever the number of threads, and the filters of warnings are afterwards what they were."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=g), torch.arange(60) % 3
    jobs = [partial(probe, kind, x, y, x, y, torch.arange(60) // 2, seed)
            for kind in ("linear", "svm", "knn") for seed in range(3)]
    before = list(warnings.filters)
    alone = [job() for job in jobs]
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = probe_all(jobs)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert warnings.filters == before
    assert [p.chosen for p in together] == [p.chosen for p in alone]
    assert all(torch.equal(a.predictions, b.predictions) for a, b in zip(alone, together))
