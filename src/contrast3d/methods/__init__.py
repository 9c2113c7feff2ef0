"""Pre-training methods, one file each; their forward is the loss."""

from contrast3d.methods.simclr import SimCLR

__all__ = ["SimCLR"]
