"""SimCLR on LDraw-40, the embedded set of 2,537 CAD parts: offline, no download, two cores.

    contrast3d pretrain simclr-ldraw40
    contrast3d evaluate linear runs/simclr-ldraw40
"""

from contrast3d.recipes.simclr import SimCLRRecipe

RECIPE = SimCLRRecipe()
