"""Instance discrimination on LDraw-40: a memory bank of all shapes.

    contrast3d pretrain instance-discrimination-ldraw40
    contrast3d evaluate linear runs/instance-discrimination-ldraw40

Wu et al. (CVPR 2018), on the encoder, views and length of simclr-ldraw40; one view a step costs half as much.
Its learning rate and decay are SimCLR's. What it reaches beside the others at equal time: docs/methods/relatives.md.
"""

import dataclasses

from contrast3d.recipes.simclr_ldraw40 import RECIPE as SIMCLR

RECIPE = dataclasses.replace(SIMCLR, method="instance-discrimination")
