"""Says loudly when the features stop carrying information."""

from __future__ import annotations

import warnings

from contrast3d.errors import CollapseWarning

# Standard deviation of l2-normalised features times sqrt(D): about 1 for features spread over the sphere, 0
# when all shapes share one vector (Chen & He, 2021, fig. 2).
MIN_FEATURE_STD = 0.1
# RankMe (Garrido et al., 2023) is the effective number of dimensions in use; near 1 there is one left.
MIN_RANKME = 2.0


def collapse_message(numbers: dict, epoch: int) -> str | None:
    """What is wrong with the health numbers after `epoch` epochs, or None.

    Looks at `feature_std` and `rankme` where they are present, from the first finished epoch on: an untrained
    network may well start out narrow.
    """
    if epoch < 1:
        return None
    signs = []
    if numbers.get("feature_std", MIN_FEATURE_STD) < MIN_FEATURE_STD:
        std = numbers["feature_std"]
        signs.append(f"feature_std is {std:.3g} (healthy: about 1; alarm below {MIN_FEATURE_STD})")
    if numbers.get("rankme", MIN_RANKME) < MIN_RANKME:
        signs.append(f"rankme is {numbers['rankme']:.3g} (alarm below {MIN_RANKME:g})")
    if not signs:
        return None
    return (
        f"Features have collapsed after epoch {epoch}: {' and '.join(signs)}. Nearly all shapes get the same "
        "vector. Try: a lower lr or a longer warm-up; where views are compared, stronger ones or a larger batch"
    )


def warn_of_collapse(message: str, quiet: bool = False, title: str = "COLLAPSE") -> None:
    """A CollapseWarning, and a red panel on stderr unless `quiet`."""
    if not quiet:
        from rich.console import Console
        from rich.panel import Panel

        Console(stderr=True).print(Panel(message, title=title, style="bold red"))
    warnings.warn(message, CollapseWarning, stacklevel=3)
