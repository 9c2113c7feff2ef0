"""Networks as files for other programs, and published weights into our networks."""

from contrast3d.checkpoints.patch_transformers import load_patch_transformer
from contrast3d.checkpoints.pointcontrast import load_pointcontrast

__all__ = ["load_patch_transformer", "load_pointcontrast"]
