"""MoCo on LDraw-40: 1,024 negatives from a queue, whatever the batch.

    contrast3d pretrain moco-ldraw40
    contrast3d evaluate linear runs/moco-ldraw40

He et al. (CVPR 2020) with the head of MoCo v2, on the encoder, views and length of simclr-ldraw40.
Its learning rate and decay are SimCLR's. What it reaches beside the others at equal time: docs/methods/relatives.md.
"""

import dataclasses

from contrast3d.recipes.simclr_ldraw40 import RECIPE as SIMCLR

RECIPE = dataclasses.replace(SIMCLR, method="moco", queue_size=1024)
