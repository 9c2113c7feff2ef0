"""Pre-training methods, one file each; their forward is the loss.

The names below are the visible table: contract tests and recipes find every method here.
"""

from contrast3d.methods.barlow_twins import BarlowTwins
from contrast3d.methods.byol import BYOL
from contrast3d.methods.instance_discrimination import InstanceDiscrimination
from contrast3d.methods.moco import MoCo
from contrast3d.methods.point_contrast import PointContrast
from contrast3d.methods.point_mae import PointMAE
from contrast3d.methods.recon import ReCon
from contrast3d.methods.simclr import SimCLR
from contrast3d.methods.vicreg import VICReg

__all__ = [
    "BYOL", "BarlowTwins", "InstanceDiscrimination", "MoCo", "PointContrast", "PointMAE", "ReCon", "SimCLR", "VICReg",
]
