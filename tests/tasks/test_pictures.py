import numpy as np
import torch

from densebnn.tasks import Depth, Edges, Normals, Segmentation
from densebnn.tasks.pictures import class_colours


def test_depth_pictures_hide_what_has_no_truth():
    truth = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    prediction = torch.tensor([[[[1.5, 2.0], [3.0, 3.0]]]])
    shown, predicted, error = Depth().pictures(prediction, {"depth": truth})
    assert (shown.low, shown.high) == (predicted.low, predicted.high) == (1.0, 4.0)
    assert shown.data.mask.tolist() == [[False, False], [True, False]]
    np.testing.assert_allclose(error.data.compressed(), [0.5, 0.0, 1.0])
    assert "mean 0.50 m" in error.title


def test_depth_pictures_of_a_frame_without_truth():
    pictures = Depth().pictures(torch.ones(1, 1, 2, 2), {"depth": torch.zeros(2, 2)})
    assert pictures[0].data.count() == 0
    assert "mean" not in pictures[2].title


def test_label_pictures_resize_the_prediction_and_skip_ignored_pixels():
    truth = torch.tensor([[0, 1, 1, 255], [0, 0, 1, 255]])
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 9.0
    shown, predicted, error = Segmentation(3).pictures(logits, {"label": truth})
    assert shown.data.count() == 6
    assert predicted.data.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert error.data.compressed().tolist() == [0, 1, 0, 0, 0, 0]
    assert "17 %" in error.title
    colours = class_colours(3)
    assert predicted.rgb()[0, :, 0].tolist() == colours[[0, 0, 1, 1], 0].tolist()
    assert shown.rgb()[0, 3].tolist() == [128, 128, 128]


def test_normals_and_edges_become_colours():
    normals = torch.zeros(3, 2, 2)
    normals[2, :, 1] = 1.0  # the left half has no truth
    pictures = Normals().pictures(normals.flip(0)[None], {"normals": normals})
    assert [picture.rgb().shape for picture in pictures] == [(2, 2, 3)] * 3
    assert pictures[0].rgb()[0].tolist() == [[128, 128, 128], [128, 128, 255]]
    assert pictures[1].rgb()[0].tolist() == [[128, 128, 128], [255, 128, 128]]
    edges = torch.tensor([[1, 0, 255]])
    pictures = Edges().pictures(torch.zeros(1, 1, 1, 3), {"edges": edges})
    assert pictures[0].rgb()[0, :, 0].tolist() == [255, 0, 127]
    assert pictures[1].rgb()[0, :, 0].tolist() == [128, 128, 128]
