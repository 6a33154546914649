"""Tasks: the loss, the metric and the head of classification, segmentation and depth; nothing about loops."""

from densebnn.tasks.base import TASKS, Task, TaskMetrics
from densebnn.tasks.classification import Classification, ClassificationMetrics
from densebnn.tasks.confusion import SegmentationMetrics
from densebnn.tasks.depth import BoundedDepth, Depth
from densebnn.tasks.depth_metrics import DepthMetrics
from densebnn.tasks.distillation import (
    attention_matching,
    feature_matching,
    logit_distillation,
    mixed_distillation,
    soft_cross_entropy,
)
from densebnn.tasks.losses import DEPTH_LOSSES
from densebnn.tasks.protocols import DEPTH_PROTOCOLS, SEGMENTATION_PROTOCOLS, Crop, DepthProtocol, Protocol
from densebnn.tasks.segmentation import Segmentation

__all__ = [
    "DEPTH_LOSSES",
    "DEPTH_PROTOCOLS",
    "SEGMENTATION_PROTOCOLS",
    "TASKS",
    "BoundedDepth",
    "Classification",
    "ClassificationMetrics",
    "Crop",
    "Depth",
    "DepthMetrics",
    "DepthProtocol",
    "Protocol",
    "Segmentation",
    "SegmentationMetrics",
    "Task",
    "TaskMetrics",
    "attention_matching",
    "feature_matching",
    "logit_distillation",
    "mixed_distillation",
    "soft_cross_entropy",
]
