import pytest
import torch

from densebnn.dense import DECODERS, DensePredictor
from densebnn.dense.rehearsal import blank_features, levels_read, run_on_shapes


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_read_is_what_changes_the_prediction(name):
    torch.manual_seed(0)
    model = DensePredictor(decoder=name).eval()
    encoder, decoder = model.network.encoder, model.network.decoder
    read = levels_read(encoder, decoder)
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, 128, 128))
        before = decoder(features)
        changed = []
        for level, feature in enumerate(features):
            others = [*features[:level], feature + torch.randn_like(feature), *features[level + 1 :]]
            if not torch.equal(decoder(others), before):
                changed.append(level)
    assert list(read) == changed


def test_the_decoder_is_left_as_it_was():
    model = DensePredictor(decoder="unet")
    before = {name: tensor.clone() for name, tensor in model.network.decoder.state_dict().items()}
    features = blank_features(model.network.encoder)
    assert [tuple(feature.shape) for feature in features[:2]] == [(1, 3, 512, 512), (1, 64, 256, 256)]
    assert run_on_shapes(model.network.decoder, features).shape == (1, 16, 512, 512)
    assert model.network.decoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.decoder.state_dict().items())
    with torch.no_grad():
        assert levels_read(model.network.encoder, model.network.decoder) == (1, 2, 3, 4, 5)
