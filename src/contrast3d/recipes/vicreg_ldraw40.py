"""VICReg on LDraw-40: invariance, with variance and covariance kept in bounds.

    contrast3d pretrain vicreg-ldraw40
    contrast3d evaluate linear runs/vicreg-ldraw40

Bardes et al. (ICLR 2022), on the encoder, views and length of simclr-ldraw40.
Its learning rate and decay are SimCLR's. What it reaches beside the others at equal time: docs/methods/relatives.md.
"""

import dataclasses

from contrast3d.recipes.simclr_ldraw40 import RECIPE as SIMCLR

RECIPE = dataclasses.replace(SIMCLR, method="vicreg")
