"""Point-MAE on LDraw-40, the embedded set of 2,537 CAD parts: offline, no download, two cores.

    contrast3d pretrain point-mae-ldraw40
    contrast3d evaluate svm runs/point-mae-ldraw40
"""

from contrast3d.recipes.masked import MaskedRecipe

RECIPE = MaskedRecipe(
    method="point-mae", dataset="LDraw40", num_points=1024, augmentation="scale-shift", width=192, depth=6,
    num_patches=64, patch_size=32, decoder_depth=2, epochs=60, batch_size=32, lr=1e-3, warmup_epochs=5.0,
)
