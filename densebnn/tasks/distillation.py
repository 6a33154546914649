"""Distillation: what a student's outputs and features are compared with a teacher's by. All in float32 or wider.

Teachers' tensors are taken as constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densebnn.registry import UserError

__all__ = [
    "attention_matching",
    "depth_distillation",
    "direction_distillation",
    "edge_distillation",
    "feature_matching",
    "logit_distillation",
    "mixed_distillation",
    "resized_like",
    "soft_cross_entropy",
]


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Return -sum_c softmax(teacher)_c · log softmax(student)_c of each sample, (N, C), (N, C) -> (N,), or each pixel.

    Its mean is the distributional loss of Liu et al. (ECCV 2020) as released; less the teacher's entropy, which is
    constant, it is the KL divergence.
    """
    truth = F.softmax(_wide(teacher.detach()), dim=1)
    return -(truth * F.log_softmax(_wide(student), dim=1)).sum(1)


def logit_distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · KL(softmax(teacher / T) ‖ softmax(student / T)), a scalar, the mean over samples.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; T² keeps the size of the gradient. At T = 1 its
    gradient is that of the mean `soft_cross_entropy`; the value is smaller by the teacher's entropy, so 0 is perfect.

    Args:
        student: logits (N, C), or maps of them (N, C, H, W), whose pixels are samples.
        teacher: the same.
        temperature: T, positive.
    """
    student, teacher = student / temperature, teacher.detach() / temperature
    return temperature**2 * (soft_cross_entropy(student, teacher) - soft_cross_entropy(teacher, teacher)).mean()


def mixed_distillation(student: Tensor, teachers: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """Return the distillation from several teachers, each sample listening more to the one it is farther from.

    With L_k the `soft_cross_entropy` of teacher k at temperature T: T² · mean_n sum_k a_nk · L_nk / K, where
    a_n = softmax_k(L_nk) is a constant. So Guo et al. (2022) train from logits alone, with K = 2 and T = 1 in their
    release; a flag there, spelt in two ways, makes L_nk the batch's mean, which is not followed.

    Args:
        student: logits (N, C).
        teachers: K tensors of logits (N, C).
        temperature: T, positive.
    """
    losses = torch.stack([soft_cross_entropy(student / temperature, teacher / temperature) for teacher in teachers], 1)
    mix = F.softmax(losses.detach(), dim=1)
    return temperature**2 * (mix * losses).sum(1).mean() / len(teachers)


def edge_distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · KL(B(teacher / T) ‖ B(student / T)), the mean over all numbers, B(x) Bernoulli's with sigmoid(x).

    It is `logit_distillation` of the two classes edge and none.

    Args:
        student: logits of any shape.
        teacher: the same.
        temperature: T, positive.
    """
    own, aim = _wide(student) / temperature, _wide(teacher.detach()) / temperature
    edge, none = aim.sigmoid(), (-aim).sigmoid()
    gap = edge * (F.logsigmoid(aim) - F.logsigmoid(own)) + none * (F.logsigmoid(-aim) - F.logsigmoid(-own))
    return temperature**2 * gap.mean()


def depth_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of |ln student - ln teacher| over all numbers; metres of any shape, both positive."""
    return (_wide(student).log() - _wide(teacher.detach()).log()).abs().mean()


def direction_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of 1 - cos over all pixels, of vectors (N, 3, H, W) of length 1."""
    return 0.5 * (_wide(student) - _wide(teacher.detach())).square().sum(dim=1).mean()


def resized_like(teacher: Tensor, prediction: Tensor) -> Tensor:
    """Return a teacher's map (N, C, H', W') at the size of a prediction (N, C, H, W), bilinearly."""
    if teacher.shape[2:] == prediction.shape[2:]:
        return teacher
    return F.interpolate(_wide(teacher), prediction.shape[2:], mode="bilinear", align_corners=False)


def attention_matching(
    students: Sequence[Tensor], teachers: Sequence[Tensor], norm: Literal["max", "l2"] = "max"
) -> Tensor:
    """Return the mean over layers and samples of the mean over positions of (Q_student - Q_teacher)², a scalar.

    Q is the attention map of a layer's features, mean_c A² at each position, divided by its largest value (`max`, as
    larq-zoo does it) or by its Euclidean norm (`l2`, as Zagoruyko and Komodakis, ICLR 2017, and from memory also
    Martinez et al., ICLR 2020, do it).

    Args:
        students: features (N, C_k, H_k, W_k) of each layer k.
        teachers: the same; the channels may differ.
        norm: of the maps.

    Raises:
        UserError: a layer of the two has another resolution.
    """
    losses = []
    for student, teacher in zip(students, teachers, strict=True):
        if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
            raise UserError(
                f"attention maps of {tuple(student.shape)} and {tuple(teacher.shape)} cannot be matched; choose a "
                "teacher of the same strides, or match features"
            )
        losses.append((_attention(student, norm) - _attention(teacher.detach(), norm)).square().mean())
    return torch.stack(losses).mean()


def feature_matching(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Return the mean over layers, samples and positions of |s/|s| - t/|t||², a scalar from 0 to 4.

    s and t are the vectors of all channels at one position, of which only the directions are compared: sizes mean
    nothing across a binarization. A teacher of another resolution is resized bilinearly.

    Args:
        students: features (N, C_k, H_k, W_k) of each layer k.
        teachers: features of the same number of channels each.
    """
    losses = []
    for student, teacher in zip(students, teachers, strict=True):
        aim = _wide(teacher.detach())
        if aim.shape[2:] != student.shape[2:]:
            aim = F.interpolate(aim, student.shape[2:], mode="bilinear", align_corners=False)
        gap = F.normalize(_wide(student), dim=1) - F.normalize(aim, dim=1)
        losses.append(gap.square().sum(1).mean())
    return torch.stack(losses).mean()


def _attention(features: Tensor, norm: str) -> Tensor:
    """Return the normalised map (N, H · W) of (N, C, H, W); a map of zeros stays one."""
    attention = _wide(features).square().mean(1).flatten(1)
    size = attention.amax(1, keepdim=True) if norm == "max" else attention.norm(dim=1, keepdim=True)
    return attention / size.clamp(min=1e-12)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
