import numpy as np
import pytest
import torch
from torch import nn

from densebnn.engine.panels import write_panels
from densebnn.tasks import Depth, Segmentation

HEIGHT, WIDTH = 24, 32


class Constant(nn.Module):
    """Predicts the same map everywhere, at half the resolution."""

    def __init__(self, channels):
        super().__init__()
        self.map = nn.Parameter(torch.arange(1.0, channels + 1).view(1, channels, 1, 1))

    def forward(self, image):
        assert not self.training
        return self.map.expand(len(image), -1, HEIGHT // 2, WIDTH // 2)


def sample(**truth):
    return {"image": torch.randn(3, HEIGHT, WIDTH), **truth}


def read(path):
    import cv2

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return cv2.imread(str(path))


@pytest.mark.parametrize("count", [1, 3])
def test_depth_panels_are_a_row_of_four_pictures_a_sample(tmp_path, count):
    depth = torch.linspace(1, 5, HEIGHT * WIDTH).view(HEIGHT, WIDTH)
    depth[:3] = 0
    write_panels(tmp_path / "panels.png", Constant(1), Depth(), [sample(depth=depth)] * count)
    picture = read(tmp_path / "panels.png")
    assert picture.shape[1] == 1200
    assert picture.shape[0] == pytest.approx(count * (300 * HEIGHT / WIDTH + 25), abs=2)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_segmentation_panels(tmp_path):
    label = torch.full((HEIGHT, WIDTH), 255)
    label[5:20] = 1
    write_panels(tmp_path / "panels.png", Constant(13), Segmentation(13), [sample(label=label)])
    assert read(tmp_path / "panels.png").shape[1] == 1200


def test_a_sample_without_truth_is_drawn_too(tmp_path):
    write_panels(tmp_path / "depth.png", Constant(1), Depth(), [sample(depth=torch.zeros(HEIGHT, WIDTH))])
    nowhere = torch.full((HEIGHT, WIDTH), 255)
    write_panels(tmp_path / "labels.png", Constant(13), Segmentation(13), [sample(label=nowhere)])
    assert read(tmp_path / "depth.png").shape == read(tmp_path / "labels.png").shape


def test_the_truth_that_the_task_trains_on_is_drawn(tmp_path):
    task = Depth(ground_truth="raw_depth")
    write_panels(tmp_path / "panels.png", Constant(1), task, [sample(raw_depth=torch.ones(HEIGHT, WIDTH))])
    assert read(tmp_path / "panels.png") is not None
