"""ReCon on LDraw-40 with a real image teacher: offline, two cores. It needs pip install 'contrast3d[teachers]'.

    contrast3d pretrain recon-ldraw40
    contrast3d evaluate svm runs/recon-ldraw40
"""

from contrast3d.recipes.masked import MaskedRecipe

RECIPE = MaskedRecipe(
    method="recon", dataset="LDraw40", num_points=512, augmentation="scale-shift", width=192, depth=6,
    num_patches=32, patch_size=32, decoder_depth=2, readout=("queries", "max", "mean"),
    image_teacher="efficientnet-lite0", query_loss="info-nce", epochs=40, batch_size=32, lr=1e-3, warmup_epochs=5.0,
)
