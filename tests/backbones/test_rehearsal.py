import pytest
import torch

from densebnn.backbones import create_backbone, rehearse
from densebnn.registry import UserError


def test_what_fits_passes_and_leaves_the_model_alone():
    model = create_backbone("resnet20", num_classes=3).eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rehearse(model, "resnet20", 2, (32, 32))
    assert not model.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_what_does_not_fit_is_one_line_with_a_remedy():
    with pytest.raises(
        UserError, match=r"batches of 1 images of 4x4: batch norm needs more than one value.*at least 2"
    ):
        rehearse(create_backbone("resnet20", num_classes=3), "resnet20", 1, (4, 4))
    with pytest.raises(UserError, match="resnet20 cannot train") as caught:
        rehearse(torch.nn.Linear(3, 3), "resnet20", 2, (4, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("batch", "size"), [(10**20, (32, 32)), (0, (32, 32)), (2, (0, 32)), (2, (32, 10**6))])
def test_numbers_out_of_range_are_refused_before_memory_is_asked_for(batch, size):
    named = f"net cannot train on batches of {batch} images of {size[0]}x{size[1]}: choose 1 to"
    with pytest.raises(UserError, match=named):
        rehearse(torch.nn.Identity(), "net", batch, size)
