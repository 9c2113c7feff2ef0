"""BYOL on LDraw-40: predicts a slow copy of itself, without negatives.

    contrast3d pretrain byol-ldraw40
    contrast3d evaluate linear runs/byol-ldraw40

Grill et al. (NeurIPS 2020), on the encoder, views and length of simclr-ldraw40.
Its learning rate and decay are SimCLR's. What it reaches beside the others at equal time: docs/methods/relatives.md.
"""

import dataclasses

from contrast3d.recipes.simclr_ldraw40 import RECIPE as SIMCLR

RECIPE = dataclasses.replace(SIMCLR, method="byol")
