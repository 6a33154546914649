import numpy as np
import pytest
import torch

from densebnn.deploy.kernels.layout import pack_bits, pack_weight, unpack_signs, unpack_weight, word_count
from densebnn.registry import UserError


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 64, 100])
def test_bits_are_where_numpy_puts_them(channels):
    bits = np.random.default_rng(0).random((3, 4, channels)) < 0.5
    words = pack_bits(torch.from_numpy(bits)).numpy().view(np.uint32)
    assert words.shape == (3, 4, word_count(channels))
    for channel in range(words.shape[-1] * 32):
        expected = bits[..., channel] if channel < channels else 0
        np.testing.assert_array_equal(words[..., channel // 32] >> (channel % 32) & 1, expected)


@pytest.mark.parametrize(("groups", "inputs", "filters"), [(1, 3, 5), (2, 40, 64), (3, 33, 96), (1, 64, 33)])
def test_filters_come_back(groups, inputs, filters):
    torch.manual_seed(0)
    sign = torch.randint(0, 2, (filters, inputs, 3, 2)).float() * 2 - 1
    packed = pack_weight(sign, groups)
    assert packed.shape == (groups, word_count(filters // groups), 3, 2, word_count(inputs), 32)
    assert torch.equal(unpack_weight(packed, inputs * groups, filters), sign)
    number, channel = filters // groups - 1, inputs - 1  # the last filter of the last group, its last channel
    word = packed[-1, number // 32, 2, 1, channel // 32, number % 32].item()
    assert (word >> (channel % 32) & 1) == (sign[-1, channel, 2, 1] > 0)
    assert packed[:, -1, ..., (filters // groups - 1) % 32 + 1 :].count_nonzero() == 0


def test_a_filter_of_zero_counts_as_positive():
    assert torch.equal(unpack_weight(pack_weight(torch.zeros(1, 2, 1, 1)), 2, 1), torch.ones(1, 2, 1, 1))


def test_activations_come_back_channels_last():
    signs = torch.randint(0, 2, (2, 6, 3, 4)).float() * 2 - 1
    bits = pack_bits((signs > 0).permute(0, 2, 3, 1).unflatten(3, (2, 3)))
    assert bits.shape == (2, 3, 4, 2, 1)
    restored = unpack_signs(bits, 6)
    assert torch.equal(restored, signs)
    assert restored.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("shape", "groups"), [((4, 3, 3), 1), ((5, 3, 3, 3), 2), ((4, 0, 3, 3), 1), ((4, 2, 1, 1), 0)])
def test_other_filters_are_refused(shape, groups):
    with pytest.raises(UserError, match="cannot be packed in"):
        pack_weight(torch.zeros(shape), groups)
