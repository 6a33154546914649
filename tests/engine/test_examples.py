import numpy as np
import torch
from PIL import Image
from torch import nn

from densebnn.data.transforms import DenseEval
from densebnn.engine.examples import chosen_images, write_examples
from densebnn.tasks import Depth, Segmentation


def test_best_median_and_worst_are_chosen_in_order():
    images = [[index, float(index)] for index in range(9)] + [[9, None]]
    low = chosen_images(images, higher_is_better=False)
    assert low == [("best", 0), ("best", 1), ("median", 3), ("median", 4), ("worst", 7), ("worst", 8)]
    high = chosen_images(images, higher_is_better=True, each=1)
    assert high == [("best", 8), ("median", 4), ("worst", 0)]


def test_of_few_images_none_is_chosen_twice():
    assert chosen_images([[5, 0.1]], higher_is_better=False) == [("best", 5)]
    three = chosen_images([[0, 3.0], [1, 1.0], [2, 2.0]], higher_is_better=False)
    assert three == [("best", 1), ("best", 2), ("worst", 0)]
    assert chosen_images([[0, None]], higher_is_better=True) == []


class Frames:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        image = np.full((60, 500, 3), 80 * index, np.uint8)
        depth = np.full((60, 500), 1.0 + index, np.float32)
        return {"index": index, "image": image, "depth": depth, "label": np.full((60, 500), index, np.uint8)}


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        assert not self.training
        flat = self.scale * torch.ones(len(image), 1, *image.shape[2:])
        return {"depth": flat, "segmentation": torch.cat([flat, 0 * flat, 0 * flat], dim=1)}


def test_pictures_of_several_tasks_are_files_of_their_own(tmp_path):
    parts = {"depth": Depth(), "segmentation": Segmentation(3)}
    details = {"depth": {"images": [[0, 0.0], [1, 1.0], [2, 2.0]]}, "segmentation": {"images": [[1, 0.2], [2, 0.4]]}}
    told = write_examples(tmp_path / "examples", Both(), parts, details, Frames(), DenseEval((32, 64)))
    kinds = [(example["task"], example["kind"], example["index"]) for example in told]
    assert kinds == [
        ("depth", "best", 0),
        ("depth", "best", 1),
        ("depth", "worst", 2),
        ("segmentation", "best", 2),
        ("segmentation", "best", 1),
    ]
    assert [len(example["pictures"]) for example in told] == [4] * 5
    assert (told[2]["figure"], told[2]["headline"]) == (2.0, "rmse")
    files = [picture["file"] for example in told for picture in example["pictures"]]
    assert sorted(files) == sorted(f"examples/{path.name}" for path in (tmp_path / "examples").iterdir())
    for file in files:
        assert Image.open(tmp_path / file).size == (400, 48)
    shown = np.asarray(Image.open(tmp_path / told[2]["pictures"][0]["file"]))
    assert np.abs(shown.astype(int) - 160).max() < 3  # the frame's own image
    wrong = np.asarray(Image.open(tmp_path / told[3]["pictures"][3]["file"]))
    assert (wrong == 255).all()  # class 0 is predicted, class 2 true
