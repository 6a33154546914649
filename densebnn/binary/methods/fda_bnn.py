"""FDA-BNN."""

from __future__ import annotations

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Sine
from densebnn.binary.weights import MeanAbsSign

__all__ = ["fda_bnn"]


@METHODS.register("fda_bnn")
def fda_bnn(variant: Variant) -> Method:
    """FDA-BNN (Xu et al., "Learning Frequency Domain Approximation for Binary Neural Networks", NeurIPS 2021).

    Weights: sign(W) · mean|W|, the gradient multiplied by the scale, which itself is a constant. Activations: sign.
    Both with the slope of a Fourier series of the sign, (4w/π)·Σ_{i=0..m} cos((2i+1)·w·x) inside ±1, w = 0.1, m from 9
    to 18. Block: convolution, batch norm, skip, with shortcuts of average pooling and a real-valued 1x1 convolution:
    Bi-Real Net's, which is our choice. Static at inference.

    Both variants are the same. We have not seen the authors' code (for MindSpore); figures and schedule follow a public
    re-implementation in the benchmark BiBench. The paper's noise adaptation module, in training only, is not here:
    BiBench adds α·(A2·relu(A1·x) + 0.1·sin x) to the signs of weights and activations, with α falling from 0.1 to 0
    over half a cosine, but never trains the latter's matrices, and how the paper has it is not known to us.
    """
    return Method(
        name="fda_bnn",
        weight=lambda conv: MeanAbsSign(Sine(), scale_gradient=True),
        activation=lambda conv: Sign(Sine()),
        block=BlockSpec(order="CN+", shortcut="pool_conv"),
    )
