"""Numbers that judge predictions and features: pure functions."""

from contrast3d.metrics.classification import accuracy, balanced_accuracy, confusion_matrix
from contrast3d.metrics.registration import correspondence_rmse, feature_match_recall, inlier_ratio, registration_recall
from contrast3d.metrics.representation import alignment, feature_std, rankme, uniformity
from contrast3d.metrics.retrieval import average_precision, mean_average_precision
from contrast3d.metrics.segmentation import confusion, iou_per_class, mean_accuracy, mean_iou, overall_accuracy

__all__ = [
    "accuracy", "alignment", "average_precision", "balanced_accuracy", "confusion", "confusion_matrix",
    "correspondence_rmse", "feature_match_recall", "feature_std", "inlier_ratio", "iou_per_class", "mean_accuracy",
    "mean_average_precision", "mean_iou", "overall_accuracy", "rankme", "registration_recall", "uniformity",
]
