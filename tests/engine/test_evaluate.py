import numpy as np
import pytest
import torch
from torch import nn

from densebnn.data.loading import eval_loader
from densebnn.data.transforms import DenseEval
from densebnn.engine.evaluate import evaluate
from densebnn.registry import UserError
from densebnn.tasks import DEPTH_PROTOCOLS, Depth

FRAMES, HEIGHT, WIDTH = 5, 12, 16


class Frames:
    """Frame i is i + 1 metres deep everywhere."""

    def __len__(self):
        return FRAMES

    def __getitem__(self, index):
        depth = np.full((HEIGHT, WIDTH), index + 1, np.float32)
        return {"image": np.zeros((HEIGHT, WIDTH, 3), np.uint8), "depth": depth, "raw_depth": depth, "index": index}


class TwoMetres(nn.Module):
    """Predicts two metres, or `value`, and remembers how it was called."""

    def __init__(self, value=2.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.calls = []

    def forward(self, image):
        self.calls.append((len(image), self.training, torch.is_grad_enabled()))
        return self.value * torch.ones(len(image), 1, HEIGHT, WIDTH)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (9, [5])])
def test_every_sample_counts_once_for_any_batch_size(runtime, batch_size, sizes):
    model, task = TwoMetres(), Depth(protocol=DEPTH_PROTOCOLS["laina"])
    loader = eval_loader(Frames(), DenseEval(), batch_size=batch_size)
    figures = evaluate(model, task, loader, runtime)
    errors = np.arange(1, FRAMES + 1) - 2.0
    assert figures["images"] == FRAMES
    assert figures["rmse_pixel"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-12)
    assert figures["rmse_constant"] == pytest.approx(np.arange(1, FRAMES + 1).std(), rel=1e-12)
    assert model.calls == [(size, False, False) for size in sizes]
    assert not model.training


def test_ranks_share_the_samples(runtime):
    parts = [eval_loader(Frames(), DenseEval(), batch_size=2, rank=rank, world=2) for rank in (0, 1)]
    found = [[int(index) for batch in part for index in batch["index"]] for part in parts]
    assert found == [[0, 2, 4], [1, 3]]


def test_a_prediction_that_is_not_finite_is_no_figure(runtime):
    loader = eval_loader(Frames(), DenseEval(), batch_size=2)
    with pytest.raises(UserError, match="prediction is not finite"):
        evaluate(TwoMetres(float("nan")), Depth(), loader, runtime)
