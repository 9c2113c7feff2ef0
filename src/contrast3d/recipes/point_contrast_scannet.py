"""PointContrast with PointInfoNCE as released (Xie et al., ECCV 2020): 60,000 steps on pairs of ScanNet views.

    contrast3d data prepare pairs SCANS -o FOLDER/scannet --every 25
    torchrun --nproc-per-node 8 -m contrast3d pretrain point-contrast-scannet --data-root FOLDER/scannet
    contrast3d evaluate segmentation runs/point-contrast-scannet --dataset S3DIS --data-root FOLDER --labels all

With `--published --labels all` the last command trains as the released scripts do, which these numbers are of.

Expected (paper, table 3): S3DIS area 5 at 70.3 % mIoU and 76.9 mAcc, against 68.2 and 75.5 from scratch; ScanNet
segmentation 74.1 against 72.2. A step is about 3 TFLOP for the 32 pairs; the released run took 8 GPUs. The released
loss takes its negatives and its batch statistics from the four pairs of one GPU, which eight processes do here too.
"""

from contrast3d.recipes.scene_contrast import SceneRecipe

RECIPE = SceneRecipe(
    dataset="ScanNet", validation_scenes=0, epochs=240, steps=250, batch_size=32, lr=0.05, momentum=0.8,
    weight_decay=1e-4, decay_all=True, schedule="step", step_epochs=1, step_gamma=0.99, temperature=0.4,
    sync_norm=False,
)
