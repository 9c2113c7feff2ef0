"""Numbers that judge predictions and features: pure functions."""

from contrast3d.metrics.classification import accuracy, balanced_accuracy, confusion_matrix
from contrast3d.metrics.representation import alignment, feature_std, rankme, uniformity
from contrast3d.metrics.retrieval import average_precision, mean_average_precision

__all__ = [
    "accuracy", "alignment", "average_precision", "balanced_accuracy", "confusion_matrix", "feature_std",
    "mean_average_precision", "rankme", "uniformity",
]
