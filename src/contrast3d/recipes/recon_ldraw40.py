"""ReCon on LDraw-40 with a real image teacher: offline, two cores. It needs pip install 'contrast3d[teachers]'.

    contrast3d pretrain recon-ldraw40
    contrast3d evaluate svm runs/recon-ldraw40

Expected, in bfloat16, three seeds: 49.4 +- 0.9 % by linear SVM on all labels, 71.4 in 5-way 10-shot trials, untrained
39.7 and 58.5 (results/masked-ldraw40-*.json). Six minutes on one idle thread, and five more once for the teacher.

InfoNCE with the teacher's features, not the released regression: better on held-out training shapes.
"""

from contrast3d.recipes.masked import MaskedRecipe

RECIPE = MaskedRecipe(
    method="recon", dataset="LDraw40", num_points=512, augmentation="scale-shift", width=192, depth=6,
    num_patches=32, patch_size=32, decoder_depth=2, readout=("queries", "max", "mean"),
    image_teacher="efficientnet-lite0", query_loss="info-nce", epochs=40, batch_size=32, lr=1e-3, warmup_epochs=5.0,
)
