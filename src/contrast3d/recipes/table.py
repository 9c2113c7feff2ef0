"""The recipes and protocols by name. Adding a recipe: write its file, then add its line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from contrast3d.errors import ConfigError

RECIPES = {
    "simclr-ldraw40": "simclr_ldraw40",
    "simclr-ldraw40-pool": "simclr_ldraw40_pool",
    "moco-ldraw40": "moco_ldraw40",
    "instance-discrimination-ldraw40": "instance_discrimination_ldraw40",
    "byol-ldraw40": "byol_ldraw40",
    "barlow-twins-ldraw40": "barlow_twins_ldraw40",
    "vicreg-ldraw40": "vicreg_ldraw40",
    "simclr-modelnet40": "simclr_modelnet40",
    "simclr-shapenetpart-faithful": "simclr_shapenetpart_faithful",
    "simclr-shapenetpart-corrected": "simclr_shapenetpart_corrected",
    "point-mae-ldraw40": "point_mae_ldraw40",
    "recon-ldraw40": "recon_ldraw40",
    "recon-ldraw40-two-towers": "recon_ldraw40_two_towers",
    "recon-ldraw40-vanilla": "recon_ldraw40_vanilla",
    "point-mae-shapenet55": "point_mae_shapenet55",
    "recon-shapenet55": "recon_shapenet55",
    "recon-shapenet55-published": "recon_shapenet55_published",
    "point-contrast-rooms": "point_contrast_rooms",
    "point-contrast-rooms-holistic": "point_contrast_rooms_holistic",
    "supervised-rooms": "supervised_rooms",
    "point-contrast-3dmatch": "point_contrast_3dmatch",
    "point-contrast-scannet": "point_contrast_scannet",
    "point-contrast-scannet-hardest": "point_contrast_scannet_hardest",
}


# What `evaluate` offers, here so that the command line can explain it without loading anything.
PROTOCOLS = {
    "linear": "converged multinomial logistic regression on frozen features",
    "svm": "linear one-vs-rest SVM on frozen features",
    "knn": "cosine nearest neighbours of frozen features",
    "few-shot": "n-way k-shot problems, many trials; a linear probe on frozen features",
    "robustness": "a linear probe on clean features, scored under six corruptions in five severities",
    "finetune": "all weights (or a head: --mode) trained on the labels, beside the same network from scratch",
    "finetune-best-on-test": "the same, but the best epoch on test counts: only to compare with papers that do so",
    "few-shot-finetune": "n-way k-shot problems, a network tuned on each, beside the same from scratch",
    "svm-released": "the linear SVM as ReCon's code has it, C fixed: only to compare with papers that report it",
    "retrieval": "each test shape looks for the others of its class; nothing is fitted",
    "zero-shot": "shapes named by what the teachers of a recon run say of the class names; nothing is fitted",
    "part-segmentation": "all weights trained on labelled points, beside the same network from scratch",
    "registration": "partial views of scenes matched by their features and registered; nothing is fitted",
    "segmentation": "all weights trained on shares of labelled scenes, beside the same network from scratch",
    "linear-report": "the probe of the SimCLR report, sigmoid and training-mode batch norm included",
}


def find(name: str):
    """The recipe `name` with its documented values; a ConfigError lists the names."""
    return _module(name).RECIPE


def documentation(name: str) -> str:
    """What the recipe is, its command, and the numbers to expect."""
    return (_module(name).__doc__ or "").strip()


def summary(name: str) -> str:
    """The first sentence of the documentation."""
    return documentation(name).split("\n")[0].rstrip(".")


def check_protocol(name: str) -> None:
    """A ConfigError, with the nearest name, where PROTOCOLS has no such name."""
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol {name!r}{suggestion(name, PROTOCOLS)}; there are: {', '.join(PROTOCOLS)}")


def suggestion(word: str, words: Iterable[str]) -> str:
    """" (did you mean NEAREST?)", or nothing where no word is near."""
    import difflib

    near = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _module(name: str):
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}{suggestion(name, RECIPES)}; there are: {', '.join(RECIPES)}")
    return importlib.import_module(f"contrast3d.recipes.{RECIPES[name]}")
