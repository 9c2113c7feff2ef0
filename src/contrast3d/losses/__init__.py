"""Losses: tensors in, a scalar out; each one formula of one paper."""

from contrast3d.losses.info_nce import nt_xent

__all__ = ["nt_xent"]
