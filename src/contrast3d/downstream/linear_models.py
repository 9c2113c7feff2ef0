"""Converged linear classifiers along a path of C: multinomial logistic regression and one-vs-rest SVM.

The objective is scikit-learn's, |W|^2 / 2 + C sum_i loss(W x_i + b, y_i), with the bias not penalised, and so
is the optimum. What differs is the road there. The penalty does not see rotations, so the features are turned
into their principal axes (exact, nothing is dropped but null directions), where scaling each axis
by the curvature of the objective along it makes the problem round. Features of deep networks are
far from round: plain L-BFGS takes hundreds to thousands of steps where this takes tens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def softmax_loss(logits: Float[Tensor, "s l"], labels: Int[Tensor, " s"]) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the samples, and its gradient by the logits."""
    log_p = F.log_softmax(logits, dim=1)
    rows = torch.arange(len(labels))
    loss = -log_p[rows, labels].sum()
    gradient = log_p.exp()
    gradient[rows, labels] -= 1
    return loss, gradient


def squared_hinge_loss(logits: Float[Tensor, "s l"], labels: Int[Tensor, " s"]) -> tuple[Tensor, Tensor]:
    """Sum over samples and classes of max(0, 1 - y f)^2 (y: 1 for the label, else -1), and its gradient."""
    sign = torch.full_like(logits, -1.0)
    sign[torch.arange(len(labels)), labels] = 1
    margin = (1 - sign * logits).clamp_min_(0)
    return margin.square().sum(), margin.mul(sign).mul_(-2)


# The mean second derivative of each loss by a logit; it only shapes the steps, never the optimum.
CURVATURE: dict[Callable, Callable[[int], float]] = {
    softmax_loss: lambda classes: (1 - 1 / classes) / classes,
    squared_hinge_loss: lambda classes: 2 * min(1.0, 4 / classes),
}


@dataclass(frozen=True)
class LinearModel:
    """scores = x W^T + b over `classes` (the labels seen in training)."""

    weight: Float[Tensor, "l d"]
    bias: Float[Tensor, " l"]
    classes: Int[Tensor, " l"]

    def predict(self, x: Float[Tensor, "s d"]) -> Int[Tensor, " s"]:
        return self.classes[(x.double() @ self.weight.T + self.bias).argmax(1)]


def fit_path(
    x: Float[Tensor, "s d"], labels: Int[Tensor, " s"], loss: Callable, c_path: Sequence[float],
    tol: float = 1e-5, max_iter: int = 2000, dtype: torch.dtype = torch.float64,
) -> Iterator[LinearModel]:
    """One converged model per C, in the order given; each starts where the last one ended.

    Features are standardised inside, and the scaling is folded into the model. `tol` bounds the
    relative gap between the objective reached and its optimum; float32 products will do for tol >= 1e-3.
    """
    classes, targets = labels.unique(return_inverse=True)
    x = x.double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-7 * mean.abs(), scale, torch.inf)  # a constant column gets no weight
    rotated, axes = _principal((x - mean) / scale)
    curvature = CURVATURE[loss](max(len(classes), 2)) * F.pad(rotated.square().sum(0), (0, 1), value=len(x))
    parameters = x.new_zeros(len(classes), rotated.shape[1] + 1)
    for c in c_path:
        problem = _Problem(rotated, targets, loss, c, curvature, dtype)
        parameters = problem.solve(parameters, tol, max_iter)
        weight = parameters[:, :-1] @ axes.T / scale
        yield LinearModel(weight, parameters[:, -1] - weight @ mean, classes)


def _principal(x: Float[Tensor, "s d"]) -> tuple[Float[Tensor, "s r"], Float[Tensor, "d r"]]:
    """Turn centred features into their principal axes: (x @ axes, axes), null directions left out."""
    small = x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T
    values, vectors = torch.linalg.eigh(small)
    keep = values > 1e-12 * values[-1].clamp_min(1e-300)
    axes = vectors[:, keep] if x.shape[1] <= x.shape[0] else x.T @ vectors[:, keep] / values[keep].sqrt()
    return x @ axes, axes


class _Problem:
    """|W|^2 / 2 + C sum loss in stretched coordinates, where its curvature is about one along every axis.

    Parameters are (L, R + 1): the weights of the principal axes, then the bias.
    """

    def __init__(self, x: Tensor, targets: Tensor, loss: Callable, c: float, curvature: Tensor, dtype):
        self.penalty = F.pad(torch.ones(x.shape[1]), (0, 1)).double()  # the bias is free
        self.stretch = (self.penalty + c * curvature).sqrt()
        self.x = (F.pad(x, (0, 1), value=1.0) / self.stretch).to(dtype)
        self.targets, self.loss, self.c = targets, loss, c
        self.gap = float("inf")

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        stretched = torch.from_numpy(flat).view(-1, self.x.shape[1])
        loss, by_logit = self.loss(self.x @ stretched.T.to(self.x.dtype), self.targets)
        shrunk = stretched * (self.penalty / self.stretch**2)
        gradient = (by_logit.T @ self.x).double().mul_(self.c).add_(shrunk)
        value = self.c * loss.item() + 0.5 * (stretched * shrunk).sum().item()
        # The objective is 1-strongly convex in W, hence value - optimum <= |gradient by W|^2 / 2.
        self.gap = 0.5 * (gradient * self.stretch).square().sum().item() / max(value, 1e-300)
        return value, gradient.flatten().numpy()

    def solve(self, start: Tensor, tol: float, max_iter: int) -> Tensor:
        from scipy.optimize import minimize

        def stop(intermediate_result):
            if self.gap <= tol:
                raise StopIteration

        options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
        flat = (start * self.stretch).flatten().numpy()
        found = minimize(self, flat, jac=True, method="L-BFGS-B", callback=stop, options=options)
        return torch.from_numpy(found.x).view_as(start) / self.stretch
