import torch

from densebnn.binary.scales import LearnedScale, OutputScale


def test_no_scale_hands_the_output_through():
    output = torch.randn(2, 3, 4, 4)
    assert OutputScale()(output, output, None) is output


def test_a_learned_scale_has_a_factor_for_each_channel():
    initial = torch.tensor([0.5, 2.0, -1.0])
    scale, output = LearnedScale(initial), torch.randn(2, 3, 4, 4, requires_grad=True)
    initial.zero_()
    result = scale(output, output, None)
    factors = torch.tensor([0.5, 2.0, -1.0])[:, None, None]
    torch.testing.assert_close(result, output * factors)
    incoming = torch.randn_like(result)
    result.backward(incoming)
    torch.testing.assert_close(output.grad, incoming * factors)
    torch.testing.assert_close(scale.scale.grad[:, 0, 0], (incoming * output).sum((0, 2, 3)))
