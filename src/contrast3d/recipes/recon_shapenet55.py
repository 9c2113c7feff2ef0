"""ReCon on the training split of ShapeNet55, with the image teacher alone: no test shapes, no names of classes.

    contrast3d pretrain recon-shapenet55 --data-root FOLDER
    contrast3d evaluate svm-released runs/recon-shapenet55 --dataset ModelNet40 --data-root FOLDER

The published runs train on test shapes too, and their text teacher reads the name of the class of each shape:
recon-shapenet55-published does both. No number of this cleaner run is published. A GPU's work: see there.
"""

from contrast3d.recipes.masked import MaskedRecipe

RECIPE = MaskedRecipe(
    method="recon", dataset="ShapeNet55", image_teacher="efficientnet-lite0", shape_points=8192, num_points=1024,
    augmentation="rotate-up", epochs=301, batch_size=128, lr=5e-4, schedule="cosine-epochs", warmup_epochs=10.0,
    probe_every=25,
)
