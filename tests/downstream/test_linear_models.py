import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from contrast3d.downstream.linear_models import fit_path, softmax_loss, squared_hinge_loss


def blobs(n=120, d=10, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(classes, d, generator=g)[y] + 1.5 * torch.randn(n, d, generator=g)
    return x * torch.logspace(-2, 2, d), y  # badly scaled on purpose


def standardised(x):
    return ((x.double() - x.double().mean(0)) / x.double().std(0, correction=0)).numpy()


@pytest.mark.parametrize("d", [10, 200])  # fewer and more features than samples
def test_logistic_regression_reaches_the_optimum_of_sklearn(d):
    x, y = blobs(d=d)
    path = (1e-3, 0.1, 10.0)
    for c, model in zip(path, fit_path(x, y, softmax_loss, path, tol=1e-9)):
        tight = LogisticRegression(C=c, tol=1e-10, max_iter=20000).fit(standardised(x), y)
        ours = (model.weight * x.double().std(0, correction=0)).numpy()
        np.testing.assert_allclose(ours, tight.coef_, atol=2e-3 * np.abs(tight.coef_).max())
        assert (model.predict(x).numpy() == tight.predict(standardised(x))).mean() > 0.99


def test_svm_reaches_the_optimum_of_liblinear():
    x, y = blobs()
    for c, model in zip((0.01, 1.0), fit_path(x, y, squared_hinge_loss, (0.01, 1.0), tol=1e-9)):
        # liblinear penalises the bias; a large intercept_scaling makes that penalty vanish
        tight = LinearSVC(C=c, dual=False, tol=1e-8, intercept_scaling=1e3, max_iter=20000)
        tight.fit(standardised(x), y)
        ours = (model.weight * x.double().std(0, correction=0)).numpy()
        np.testing.assert_allclose(ours, tight.coef_, atol=2e-3 * np.abs(tight.coef_).max())


@pytest.mark.parametrize("loss", [softmax_loss, squared_hinge_loss])
def test_losses_return_their_own_gradient(loss):
    logits = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (7,))
    value, gradient = loss(logits, labels)
    torch.testing.assert_close(gradient.detach(), torch.autograd.grad(loss(logits, labels)[0], logits)[0])
    assert value.item() > 0


def test_the_gap_it_stops_at_is_honest():
    x, y = blobs()
    objective = lambda m: (  # noqa: E731
        (m.weight * x.double().std(0, correction=0)).square().sum() / 2
        + 10 * softmax_loss(x.double() @ m.weight.T + m.bias, y)[0]
    ).item()
    loose, tight = (objective(next(fit_path(x, y, softmax_loss, (10.0,), tol=t))) for t in (1e-2, 1e-10))
    assert tight <= loose <= tight * 1.0101


def test_constant_columns_and_labels_with_holes():
    x, y = blobs()
    x = torch.cat([x, torch.full((len(x), 1), 7.0)], 1)
    model = next(fit_path(x, y * 3 + 2, softmax_loss, (1.0,)))
    assert model.classes.tolist() == [2, 5, 8, 11]
    assert torch.equal(model.weight[:, -1], torch.zeros(4).double())
    assert (model.predict(x) == y * 3 + 2).float().mean() > 0.7


def test_identical_samples_do_not_break_it():
    model = next(fit_path(torch.ones(4, 3), torch.tensor([0, 0, 0, 1]), softmax_loss, (1.0,)))
    assert model.predict(torch.ones(2, 3)).tolist() == [0, 0]
