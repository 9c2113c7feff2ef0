"""Numbers that judge predictions and features: pure functions."""

from contrast3d.metrics.classification import accuracy, balanced_accuracy, confusion_matrix
from contrast3d.metrics.representation import alignment, feature_std, rankme, uniformity

__all__ = ["accuracy", "alignment", "balanced_accuracy", "confusion_matrix", "feature_std", "rankme", "uniformity"]
