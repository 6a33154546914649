"""Tasks: the loss, the metric and the head of classification and dense prediction; nothing about loops."""

from densebnn.tasks.base import TASKS, DenseTask, Task, TaskMetrics
from densebnn.tasks.classification import Classification, ClassificationMetrics
from densebnn.tasks.confusion import SegmentationMetrics
from densebnn.tasks.depth import Depth
from densebnn.tasks.depth_heads import DEPTH_HEADS, BinnedDepth, BoundedDepth, DepthHead
from densebnn.tasks.depth_metrics import DepthMetrics
from densebnn.tasks.details import split_details
from densebnn.tasks.distillation import (
    attention_matching,
    feature_matching,
    logit_distillation,
    mixed_distillation,
    soft_cross_entropy,
)
from densebnn.tasks.edges import EDGE_LOSSES, EdgeMetrics, Edges
from densebnn.tasks.flipping import FlipAveraged
from densebnn.tasks.losses import DEPTH_LOSSES, combined
from densebnn.tasks.multitask import Heads, MultiTask, MultiTaskMetrics, dense_parts
from densebnn.tasks.normals import NORMALS_LOSSES, Normals, NormalsMetrics
from densebnn.tasks.protocols import (
    DEPTH_PROTOCOLS,
    EDGE_PROTOCOLS,
    NORMALS_PROTOCOLS,
    SEGMENTATION_PROTOCOLS,
    Crop,
    DepthProtocol,
    EdgeProtocol,
    NormalsProtocol,
    Protocol,
    SegmentationProtocol,
)
from densebnn.tasks.segmentation import Segmentation
from densebnn.tasks.segmentation_losses import SEGMENTATION_LOSSES, balanced_weights
from densebnn.tasks.weighting import WEIGHTINGS, FixedWeights, UncertaintyWeights, Weighting

__all__ = [
    "DEPTH_HEADS",
    "DEPTH_LOSSES",
    "DEPTH_PROTOCOLS",
    "EDGE_LOSSES",
    "EDGE_PROTOCOLS",
    "NORMALS_LOSSES",
    "NORMALS_PROTOCOLS",
    "SEGMENTATION_LOSSES",
    "SEGMENTATION_PROTOCOLS",
    "TASKS",
    "WEIGHTINGS",
    "BinnedDepth",
    "BoundedDepth",
    "Classification",
    "ClassificationMetrics",
    "Crop",
    "DenseTask",
    "Depth",
    "DepthHead",
    "DepthMetrics",
    "DepthProtocol",
    "EdgeMetrics",
    "EdgeProtocol",
    "Edges",
    "FixedWeights",
    "FlipAveraged",
    "Heads",
    "MultiTask",
    "MultiTaskMetrics",
    "Normals",
    "NormalsMetrics",
    "NormalsProtocol",
    "Protocol",
    "Segmentation",
    "SegmentationMetrics",
    "SegmentationProtocol",
    "Task",
    "TaskMetrics",
    "UncertaintyWeights",
    "Weighting",
    "attention_matching",
    "balanced_weights",
    "combined",
    "dense_parts",
    "feature_matching",
    "logit_distillation",
    "mixed_distillation",
    "soft_cross_entropy",
    "split_details",
]
