"""Tasks: the loss, the metric and the head of classification, segmentation and depth; nothing about loops."""

from densebnn.tasks.base import TASKS, DenseTask, Task, TaskMetrics
from densebnn.tasks.classification import Classification, ClassificationMetrics
from densebnn.tasks.confusion import SegmentationMetrics
from densebnn.tasks.depth import BoundedDepth, Depth
from densebnn.tasks.depth_metrics import DepthMetrics
from densebnn.tasks.details import split_details
from densebnn.tasks.distillation import (
    attention_matching,
    feature_matching,
    logit_distillation,
    mixed_distillation,
    soft_cross_entropy,
)
from densebnn.tasks.losses import DEPTH_LOSSES
from densebnn.tasks.multitask import Heads, MultiTask, MultiTaskMetrics, dense_parts
from densebnn.tasks.protocols import DEPTH_PROTOCOLS, SEGMENTATION_PROTOCOLS, Crop, DepthProtocol, Protocol
from densebnn.tasks.segmentation import Segmentation
from densebnn.tasks.weighting import WEIGHTINGS, FixedWeights, UncertaintyWeights, Weighting

__all__ = [
    "DEPTH_LOSSES",
    "DEPTH_PROTOCOLS",
    "SEGMENTATION_PROTOCOLS",
    "TASKS",
    "WEIGHTINGS",
    "BoundedDepth",
    "Classification",
    "ClassificationMetrics",
    "Crop",
    "DenseTask",
    "Depth",
    "DepthMetrics",
    "DepthProtocol",
    "FixedWeights",
    "Heads",
    "MultiTask",
    "MultiTaskMetrics",
    "Protocol",
    "Segmentation",
    "SegmentationMetrics",
    "Task",
    "TaskMetrics",
    "UncertaintyWeights",
    "Weighting",
    "attention_matching",
    "dense_parts",
    "feature_matching",
    "logit_distillation",
    "mixed_distillation",
    "soft_cross_entropy",
    "split_details",
]
