"""Point-MAE as published (Pang et al., ECCV 2022): 300 epochs on the training split of ShapeNet55.

    contrast3d pretrain point-mae-shapenet55 --data-root FOLDER
    contrast3d evaluate svm-released runs/point-mae-shapenet55 --dataset ModelNet40 --data-root FOLDER

Expected: linear SVM on ModelNet40 91.0 (as later papers quote it); fine-tuned on ScanObjectNN's PB_T50_RS 85.18,
ModelNet40 93.8 with voting. 301 epochs of 328 steps, of about 3.5 TFLOP each in float32: a GPU's work.
"""

from contrast3d.recipes.masked import MaskedRecipe

RECIPE = MaskedRecipe(
    method="point-mae", dataset="ShapeNet55", block="standard", queries=(), readout=("max+mean",), shape_points=8192,
    num_points=1024, augmentation="scale-shift", epochs=301, batch_size=128, lr=1e-3, schedule="cosine-epochs",
    warmup_epochs=10.0, probe_every=25,
)
