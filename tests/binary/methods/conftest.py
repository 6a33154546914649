"""What the tests of single methods share: a binarizer's value and gradient as NumPy arrays."""

import numpy as np
import pytest
import torch


@pytest.fixture
def pull():
    """Return a function: binarizer, real-valued array -> value, gradient at the array, and the gradient that came in.

    The binarizer is turned to float64, and `training` says in which mode it runs.
    """

    def run(binarizer, latent, *, training=True, seed=1):
        x = torch.tensor(np.asarray(latent, dtype=np.float64), requires_grad=True)
        value = binarizer.double().train(training)(x).value()
        incoming = torch.tensor(np.random.default_rng(seed).normal(size=latent.shape))
        value.backward(incoming)
        return value.detach().numpy(), x.grad.numpy(), incoming.numpy()

    return run


@pytest.fixture
def latent():
    """Return a function: shape, scale, seed -> normal float64 numbers, none nearer than 1e-3 to 0, ±0.5 or ±1."""

    def draw(shape=(5, 3, 3, 3), scale=1.0, seed=0):
        x = np.random.default_rng(seed).normal(0, scale, shape)
        for corner in (-1, -0.5, 0, 0.5, 1):
            x = np.where(np.abs(x - corner) < 1e-3, corner + 2e-3, x)
        return x

    return draw
