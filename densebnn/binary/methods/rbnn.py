"""RBNN."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from scipy.linalg import schur
from torch import Tensor, nn

from densebnn.binary.activations import ImageNormSign
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.scales import LearnedScale
from densebnn.binary.surrogates import Quad, Surrogate, hard_sign
from densebnn.binary.weights import WeightBinarizer, balanced

__all__ = ["RotatedSign", "rbnn"]

_FILTER = (1, 2, 3)
_ALTERNATIONS = 3


class RotatedSign(WeightBinarizer):
    """Sign of the standardised weight after an adjusted rotation (Lin et al., "RBNN", NeurIPS 2020).

    A filter of n = p·q weights, p the largest divisor up to √n, is a matrix X (p, q). Two orthogonal matrices R1 (p, p)
    and R2 (q, q), random at first and shared by the filters of the layer, turn it to R1ᵀ·X·R2; a learned angle β per
    filter mixes both: X + |sin β|·(R1ᵀ·X·R2 - X). β starts at π/2, where the mixture is the rotated weight.

    Args:
        weight: the latent weight, for its shape.
        surrogate: gives the slope at the mixture.
        through_rotation: whether the gradient flows back through the rotation. Without it the mixture's derivative
            keeps only the factor 1 - |sin β| of X itself, so that W does not learn before β has left π/2.
    """

    R1: Tensor
    R2: Tensor

    def __init__(self, weight: Tensor, surrogate: Surrogate, *, through_rotation: bool) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.through_rotation = through_rotation
        size = weight[0].numel()
        rows = max(divisor for divisor in range(1, math.isqrt(size) + 1) if size % divisor == 0)
        self.register_buffer("R1", nn.init.orthogonal_(torch.empty(rows, rows)))
        self.register_buffer("R2", nn.init.orthogonal_(torch.empty(size // rows, size // rows)))
        self.angle = nn.Parameter(torch.full((len(weight), 1, 1, 1), math.pi / 2))

    def forward(self, weight: Tensor) -> Bits:
        """Return the sign of the mixture; the gradient flows through the standardisation and to the angle."""
        standardized = _standardize(weight)
        with _full_precision(weight.device.type):
            rotated = (self.R1.T @ self._matrices(standardized) @ self.R2).view_as(weight)
        if not self.through_rotation:
            rotated = rotated.detach()
        return Bits(self.surrogate(standardized + self.angle.sin().abs() * (rotated - standardized)))

    @torch.no_grad()
    def weight_refresh(self, weight: Tensor) -> None:
        """Turn the rotations towards the signs: three times the best signs, then the best R1, then the best R2.

        Each step raises Σ tr(B·R2ᵀ·Xᵀ·R1) over the filters, B the signs. The result is a function of the weight alone.
        """
        x = self._matrices(_standardize(weight))
        for _ in range(_ALTERNATIONS):
            sign = hard_sign(self.R1.T @ x @ self.R2)
            left, _, right = torch.linalg.svd((sign @ self.R2.T @ x.mT).sum(0))
            self.R1.copy_(right.T @ left.T)
            left, _, right = torch.linalg.svd((x.mT @ self.R1 @ sign).sum(0))
            self.R2.copy_(left @ right)

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return centred filters whose mixture has these signs: the mixture is a linear map of the filter."""
        # Filters are centred before they are mixed; the mixture's inverse must therefore have no mean.
        mean_of_inverse = self._unmix(torch.ones_like(bits.sign), transpose=True)
        return self._unmix(balanced(bits.sign.double(), mean_of_inverse)).to(bits.sign.dtype)

    def _unmix(self, mixture: Tensor, *, transpose: bool = False) -> Tensor:
        """Return X such that (1 - |sin β|)·X + |sin β|·R1ᵀ·X·R2 is `mixture`; with `transpose`, of the adjoint map."""
        left, right = (schur(matrix.double().cpu().numpy(), output="complex") for matrix in (self.R1.T, self.R2))
        share = self.angle.detach().double().sin().abs().cpu().numpy()[..., 0]
        # Orthogonal matrices are normal: their Schur forms are diagonal, and the map scales each pair of eigenvectors.
        factors = np.diag(left[0])[:, None] * np.diag(right[0])
        factors = 1 - share + share * (factors.conj() if transpose else factors)
        x = self._matrices(mixture).double().cpu().numpy()
        x = left[1] @ (left[1].conj().T @ x @ right[1] / factors) @ right[1].conj().T
        return torch.from_numpy(np.ascontiguousarray(x.real)).view(mixture.shape)

    def _matrices(self, weight: Tensor) -> Tensor:
        return weight.reshape(-1, len(self.R1), len(self.R2))


def _full_precision(device: str) -> AbstractContextManager[None]:
    """Turn autocast off: fewer digits would flip signs."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _standardize(weight: Tensor) -> Tensor:
    centred = weight - weight.mean(_FILTER, keepdim=True)
    return centred / centred.std(_FILTER, keepdim=True)


@METHODS.register("rbnn")
def rbnn(variant: Variant) -> Method:
    """RBNN (Lin et al., "Rotated Binary Neural Network", NeurIPS 2020): rotate weights towards their signs.

    Weights: sign of the filter-wise standardised W, mixed with its bi-rotation at a learned angle; rotations are
    updated at the start of each epoch. Activations: normalised by mean and deviation of each image in training and
    evaluation, then sign; so the method is dynamic at inference. Both with slope k·max(0, √2·t - t²·|x|), t from 0.01
    to 10 and k = max(1/t, 1), for activations t >= 1 and k = 1. Output: a learned factor per channel that starts at
    mean|W|.

    Block: convolution, batch norm, skip, hardtanh, a skip around every convolution, with strided real-valued 1x1
    shortcuts; around each pair in `resnet20` (parameter-free shortcuts) and `resnet18_cifar` (binary 1x1 shortcuts; no
    hardtanh after the stem). Batch norm before the classifier; the batch norms before skips start near 0, except in
    `resnet18_cifar`. That the stem of the larger networks has a hardtanh is remembered, not checked.

    Variants: `as_paper`, the gradient flows back through the rotation (this is from memory of the paper, not checked
    against it). `as_released`, it does not, and W has no gradient at the initial angle. The release also loses its
    rotations when it runs on several GPUs; ours are the same on all processes.
    """
    block = BlockSpec(
        order="CN+P",
        nonlinearity="hardtanh",
        shortcut="strided_conv",
        norm_gamma=1e-8,
        stem_nonlinearity="hardtanh",
        norm_before_classifier=True,
    )
    return Method(
        name="rbnn",
        weight=lambda conv: RotatedSign(conv.weight, Quad(), through_rotation=variant == "as_paper"),
        activation=lambda conv: ImageNormSign(Quad(t_floor=1.0), eps=0.0),
        scale=lambda conv: LearnedScale(conv.weight.abs().mean(_FILTER)),
        block=block,
        blocks={
            "resnet20": BlockSpec(
                order="CN+P",
                convs_per_skip=2,
                nonlinearity="hardtanh",
                shortcut="zero_pad",
                norm_gamma=1e-8,
                stem_nonlinearity="hardtanh",
                norm_before_classifier=True,
            ),
            "resnet18_cifar": BlockSpec(
                order="CN+P",
                convs_per_skip=2,
                nonlinearity="hardtanh",
                shortcut="binary_conv",
                norm_before_classifier=True,
            ),
        },
    )
