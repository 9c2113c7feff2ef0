"""Small patch transformers for tests of fine-tuning: data, readers, and what two epochs move in them."""

from __future__ import annotations

import torch
from test_classification import boxes

from contrast3d.downstream.classification import fit_classifier
from contrast3d.downstream.tuned_encoders import tunable
from contrast3d.downstream.tuning import Tuning
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.patch_transformer import PatchTransformer

DATA = boxes(0), boxes(1)
SHAPE = {"width": 48, "depth": 2, "num_heads": 3, "num_patches": 8, "patch_size": 8}
QUICK = {"transform": "none", "epochs": 2, "min_steps": 0, "batch_size": 20}


def reader(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Partwise(PatchTransformer(**SHAPE, **options), 32).eval()


def point_mae(seed=0):
    return reader(seed, queries=(), block="standard", readout=("max+mean",))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def trained(how: Tuning, encoder):
    """(classifier, its state before) after two epochs."""
    kept = {}

    def remember(seed):
        kept["encoder"] = tunable(encoder, seed, drop_path=how.drop_path)
        kept["before"] = state(kept["encoder"])
        return kept["encoder"]

    fit_classifier(remember, *DATA, None, epochs=2, batch_size=20, lr=1e-2, encoder_lr_scale=0.5, head=how.head(),
                   schedule=how.lr_schedule)
    return kept["encoder"], kept["before"]
