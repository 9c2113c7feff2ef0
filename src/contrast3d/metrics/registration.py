"""How well two partial views are matched and brought together, given the pose that is known to be true."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def moved(points: Float[Tensor, "p 3"], transform: Float[Tensor, "4 4"]) -> Float[Tensor, "p 3"]:
    """Points under a rigid map (column vectors), in its precision."""
    points = points.to(transform)
    return points @ transform[:3, :3].T + transform[:3, 3]


def inlier_ratio(
    first: Float[Tensor, "p 3"], second: Float[Tensor, "p 3"], transform: Float[Tensor, "4 4"], radius: float = 0.1
) -> float:
    """Share of the matches first[i], second[i] that lie within `radius` under the true pose; 0 where there are none.

    transform takes coordinates of the first view to those of the second; all in metres. tau_1 of Deng et al.
    (PPFNet, CVPR 2018), equation 9.
    """
    if not len(first):
        return 0.0
    distances = (moved(first, transform) - second.to(transform)).norm(dim=1)
    return (distances < radius).double().mean().item()


def feature_match_recall(ratios: Float[Tensor, " n"], share: float = 0.05) -> float:
    """Share of the pairs of views whose inlier ratio is above `share`, tau_2; NaN where there are no pairs.

    With 5 % of inliers RANSAC finds a pose in 55,000 draws of three matches, 99.9 times in a hundred (PPFNet, 2018).
    """
    return (ratios > share).double().mean().item()


def correspondence_rmse(
    first: Float[Tensor, "p 3"], second: Float[Tensor, "p 3"], transform: Float[Tensor, "4 4"]
) -> float:
    """sqrt(1/P sum |T first[i] - second[i]|^2) over the true correspondences under an estimated pose, in metres.

    As 3DMatch (Zeng et al., CVPR 2017) and FCGF (Choy et al., ICCV 2019) judge a pose. Infinite without
    correspondences: nothing then shows that the pose is right.
    """
    if not len(first):
        return float("inf")
    return (moved(first, transform) - second.to(transform)).square().sum(1).mean().sqrt().item()


def registration_recall(errors: Float[Tensor, " n"], limit: float = 0.2) -> float:
    """Share of the pairs of views whose `correspondence_rmse` is below `limit`; infinite where no pose was found."""
    return (errors < limit).double().mean().item()


def rotation_error(estimated: Float[Tensor, "4 4"], truth: Float[Tensor, "4 4"]) -> float:
    """The angle between two poses, in degrees.

    By its sine and cosine both: the arc cosine alone loses half of the digits of a small angle.
    """
    between = estimated[:3, :3] @ truth[:3, :3].T
    skew = between - between.T
    sine = torch.stack([skew[2, 1], skew[0, 2], skew[1, 0]]).norm() / 2
    return torch.atan2(sine, (between.trace() - 1) / 2).rad2deg().item()


def translation_error(estimated: Float[Tensor, "4 4"], truth: Float[Tensor, "4 4"]) -> float:
    """The distance between the translations of two poses, in metres."""
    return (estimated[:3, 3] - truth[:3, 3]).norm().item()
