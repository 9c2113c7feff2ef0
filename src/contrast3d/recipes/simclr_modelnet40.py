"""SimCLR on ModelNet40's training split, then a linear SVM on frozen features.

    contrast3d pretrain simclr-modelnet40 --data-root FOLDER
    contrast3d evaluate svm runs/simclr-modelnet40 --data-root FOLDER

Reads every layout that `contrast3d data check ModelNet40` names. Published: OcCo 89.2, STRL 90.9, CrossPoint
91.2 (linear SVM, official test split, encoders pre-trained on ShapeNet; OcCo's on ModelNet40).

With a fifth of the training split held out as the test (--holdout 5): 90.9 % by linear SVM, the same encoder
untrained 87.9 (one seed; results/simclr-modelnet40-svm-all.json). Two and a half hours on one thread of a busy CPU.
"""

from contrast3d.recipes.contrast import ContrastRecipe

RECIPE = ContrastRecipe(
    dataset="ModelNet40", num_points=256, augmentation="objects-strong", embed_dim=1024, layers=(64, 128, 256),
    strides=(1, 2, 2), k=16, dynamic=False, temperature=0.2, epochs=64, batch_size=128, lr=2e-3, warmup_epochs=5.0,
    probe_every=8,
)
