import json
import shutil

import pytest
import torch

from densebnn.backbones import create_backbone, find_weights, load_backbone_weights, pretrained_names, save_backbone
from densebnn.registry import UserError


@pytest.mark.parametrize("name", pretrained_names())
def test_packaged_weights_fit_their_backbone_and_their_card(name):
    path = find_weights(name)
    assert path.stat().st_size < 4e6
    card = json.loads(path.with_suffix(".json").read_text())
    model = create_backbone(card["backbone"], method=card["method"], num_classes=len(card["class_names"]))
    assert load_backbone_weights(model, path) == card
    assert {"data", "steps", "seconds", "figures", "contrastive"} <= set(card)


def test_the_default_weights_recognise_objects_of_unseen_rooms(tmp_path):
    from densebnn.data.rooms import RoomCrops
    from densebnn.data.transforms import ClassEval

    crops = RoomCrops("val", rooms=12, folder=tmp_path, processes=1, progress=False)
    model = create_backbone("resnet18", method="reactnet", num_classes=len(crops.class_names)).eval()
    load_backbone_weights(model, find_weights("resnet18-reactnet-rooms"))
    transform = ClassEval(48)
    samples = [transform(crops[index], 0) for index in range(len(crops))]
    with torch.no_grad():
        said = model(torch.stack([sample["image"] for sample in samples])).argmax(1)
    right = said == torch.stack([sample["target"] for sample in samples])
    assert right.float().mean() > 0.55  # chance is 0.05; 0.71 on the whole validation split


def test_without_a_classifier_the_file_still_fits_and_with_another_number_of_classes_it_does_not(tmp_path):
    file = tmp_path / "backbone.safetensors"
    source = create_backbone("resnet20", method="bireal", num_classes=4)
    save_backbone(file, source, {"data": "none"})
    encoder = create_backbone("resnet20", method="bireal", num_classes=0)
    assert load_backbone_weights(encoder, file)["data"] == "none"
    assert torch.equal(encoder.stem.conv.weight, source.stem.conv.weight)
    with pytest.raises(UserError, match=r"classifier.weight \(4, 64\) instead of \(5, 64\)"):
        load_backbone_weights(create_backbone("resnet20", method="bireal", num_classes=5), file)


def test_names_paths_and_neither(tmp_path):
    own = tmp_path / "own.safetensors"
    shutil.copy(find_weights("resnet18-reactnet-rooms"), own)
    assert find_weights(str(own)) == own
    with pytest.raises(UserError, match="did you mean 'resnet18-reactnet-rooms'"):
        find_weights("resnet18-reactnet-room")
    with pytest.raises(UserError, match="no such file"):
        find_weights(str(tmp_path / "missing.safetensors"))


def test_a_flipped_bit_is_refused(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray(find_weights("resnet18-reactnet-rooms").read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_backbone_weights(create_backbone("resnet18", num_classes=20), damaged)
