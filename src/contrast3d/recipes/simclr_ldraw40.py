"""SimCLR on LDraw-40, the embedded set of 2,537 CAD parts: offline, no download, two cores.

    contrast3d pretrain simclr-ldraw40
    contrast3d evaluate linear runs/simclr-ldraw40
"""

from contrast3d.recipes.contrast import ContrastRecipe

RECIPE = ContrastRecipe(
    dataset="LDraw40", num_points=256, augmentation="objects-strong", embed_dim=1024, layers=(64, 128, 256),
    strides=(1, 2, 2), k=16, dynamic=False, temperature=0.1, epochs=80, batch_size=64, lr=2e-3,
    weight_decay=0.05, warmup_epochs=5.0, probe_every=10,
)
