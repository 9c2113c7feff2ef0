"""SimCLR on ModelNet40's training split, then a linear SVM on frozen features.

    contrast3d pretrain simclr-modelnet40 --data-root FOLDER
    contrast3d evaluate svm runs/simclr-modelnet40 --data-root FOLDER

Reads every layout that `contrast3d data check ModelNet40` names. Published: OcCo 89.2, STRL 90.9, CrossPoint
91.2 (linear SVM, official test split, encoders pre-trained on ShapeNet; OcCo's on ModelNet40).
"""

from contrast3d.recipes.simclr import SimCLRRecipe

RECIPE = SimCLRRecipe(dataset="ModelNet40")
