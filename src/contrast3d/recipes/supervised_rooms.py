"""Supervised pre-training on generated rooms, the labels of all points: what PointContrast is held against.

    contrast3d pretrain supervised-rooms
    contrast3d evaluate segmentation runs/supervised-rooms --dataset S3DIS --data-root FOLDER

With `--published --labels all` the last command trains as the released scripts do, which these numbers are of.

The paper finds 71.2 % mIoU on S3DIS after supervised pre-training on ScanNet, 70.9 and 70.3 after PointContrast, and
68.2 from scratch (table 3 and section 4.6).
"""

import dataclasses

from contrast3d.recipes import point_contrast_rooms

RECIPE = dataclasses.replace(point_contrast_rooms.RECIPE, method="supervised")
