"""The ablation of PointContrast on generated rooms: both views are the whole room, nothing is partial.

    contrast3d pretrain point-contrast-rooms-holistic
    contrast3d evaluate segmentation runs/point-contrast-rooms-holistic

The paper finds 68.35 % mIoU on S3DIS with it, against 68.17 from scratch and 70.3 with partial views (section 4.6).
"""

import dataclasses

from contrast3d.recipes import point_contrast_rooms

RECIPE = dataclasses.replace(point_contrast_rooms.RECIPE, holistic=True)
