"""Losses: tensors in, a scalar out; each one formula of one paper."""

from contrast3d.losses.barlow_twins import barlow_twins
from contrast3d.losses.byol import byol
from contrast3d.losses.chamfer import chamfer_l1, chamfer_l2
from contrast3d.losses.class_contrast import class_contrast
from contrast3d.losses.cross_modal_info_nce import cross_modal_info_nce
from contrast3d.losses.feature_regression import feature_regression
from contrast3d.losses.hardest_contrastive import hardest_contrastive
from contrast3d.losses.info_nce import info_nce, nt_xent
from contrast3d.losses.instance import instance_softmax
from contrast3d.losses.point_info_nce import point_info_nce
from contrast3d.losses.vicreg import vicreg

__all__ = [
    "barlow_twins", "byol", "chamfer_l1", "chamfer_l2", "class_contrast", "cross_modal_info_nce",
    "feature_regression", "hardest_contrastive", "info_nce", "instance_softmax", "nt_xent", "point_info_nce", "vicreg",
]
