"""Barlow Twins on LDraw-40: features that agree between views and not with each other.

    contrast3d pretrain barlow-twins-ldraw40
    contrast3d evaluate linear runs/barlow-twins-ldraw40

Zbontar et al. (ICML 2021), on the encoder, views and length of simclr-ldraw40.
Its learning rate and decay are SimCLR's. What it reaches beside the others at equal time: docs/methods/relatives.md.
"""

import dataclasses

from contrast3d.recipes.simclr_ldraw40 import RECIPE as SIMCLR

RECIPE = dataclasses.replace(SIMCLR, method="barlow-twins")
