"""PointContrast with the hardest-contrastive loss as released (Xie et al., ECCV 2020), at twice the rate.

    contrast3d pretrain point-contrast-scannet-hardest --data-root FOLDER/scannet
    contrast3d evaluate segmentation runs/point-contrast-scannet-hardest --dataset S3DIS --data-root FOLDER

With `--published --labels all` the last command trains as the released scripts do, which these numbers are of.

Expected (paper, table 3): S3DIS area 5 at 70.9 % mIoU and 77.0 mAcc, against 68.2 and 75.5 from scratch; ScanNet
segmentation 73.3 against 72.2. The loss is known to collapse with long schedules: watch the spread of features.
"""

import dataclasses

from contrast3d.recipes import point_contrast_scannet

RECIPE = dataclasses.replace(point_contrast_scannet.RECIPE, loss="hardest", lr=0.1)
