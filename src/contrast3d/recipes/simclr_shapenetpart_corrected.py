"""Bernini's (2022) experiment with its defects mended, at the same budget of 50 epochs and batch 32.

    contrast3d pretrain simclr-shapenetpart-corrected --data-root FOLDER
    contrast3d evaluate linear runs/simclr-shapenetpart-corrected --data-root FOLDER

Two independent views per sample, whole clouds without replacement, a projection of width 128, and a converged
logistic regression on features extracted once in evaluation mode. The encoder is the report's.
"""

import dataclasses

from contrast3d.recipes.simclr_shapenetpart_faithful import RECIPE as FAITHFUL

RECIPE = dataclasses.replace(
    FAITHFUL, augmentation="report", shared_draws=False, identical_views=False, projection_dim=128, num_points=1024
)
