"""Every method in every backbone that its authors used: it learns, and survives what is done to a network."""

import copy
import functools
import io
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from densebnn.binary import METHODS, BinaryConv2d, broadcast

RELATIVES = runpy.run_path(str(Path(__file__).with_name("relatives.py")))
CASES, STEPS, USED, VARIANTS = (RELATIVES[name] for name in ("CASES", "STEPS", "USED", "VARIANTS"))
relative, optimizer_of, train, batch = (RELATIVES[name] for name in ("relative", "optimizer_of", "train", "batch"))
SAVED = 14  # amid an epoch, with another one to come

in_every_backbone = pytest.mark.parametrize(("method", "variant", "backbone"), CASES)


@functools.cache
def trained(*case):
    """Train, with a file saved on the way; return network, optimizer, losses and the file. Nobody may change them."""
    model = relative(*case)
    optimizer, file = optimizer_of(model), io.BytesIO()
    losses = train(model, optimizer, range(SAVED))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    losses += train(model, optimizer, range(SAVED, STEPS))
    return model.eval(), optimizer, losses, file.getvalue()


untouched = functools.cache(relative)


def assert_same(one, other, where=""):
    """Compare nested states to the bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_same(first, second, f"{where}.{index}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def test_no_method_is_left_out():
    assert set(USED) == set(METHODS)
    assert set(VARIANTS) < set(USED)


@in_every_backbone
def test_twenty_steps_lower_the_loss(method, variant, backbone):
    model, _, losses, _ = trained(method, variant, backbone)
    assert sum(losses[-5:]) / 5 < 0.75 * sum(losses[:3]) / 3
    pairs = zip(model.named_modules(), untouched(method, variant, backbone).modules(), strict=True)
    convs = {name: (conv, fresh) for (name, conv), fresh in pairs if isinstance(conv, BinaryConv2d)}
    assert len(convs) >= 4
    assert [name for name, (conv, fresh) in convs.items() if torch.equal(conv.weight, fresh.weight)] == []


@in_every_backbone
def test_what_is_resumed_ends_as_what_was_not_interrupted(method, variant, backbone):
    model, optimizer, losses, file = trained(method, variant, backbone)
    saved = torch.load(io.BytesIO(file), weights_only=True)
    resumed = relative(method, variant, backbone, seed=1)
    resumed.load_state_dict(saved["model"])
    again = optimizer_of(resumed)
    again.load_state_dict(saved["optimizer"])
    assert train(resumed, again, range(SAVED, STEPS)) == losses[SAVED:]
    assert_same(resumed.state_dict(), model.state_dict())
    assert_same(again.state_dict(), optimizer.state_dict())


@in_every_backbone
def test_a_copy_is_equal_and_trains_on_by_itself_in_bfloat16(method, variant, backbone):
    model, _, losses, _ = trained(method, variant, backbone)
    copied, before, samples = copy.deepcopy(model), copy.deepcopy(model.state_dict()), batch(0)
    assert_same(copied.state_dict(), before)
    with torch.no_grad():
        assert torch.equal(copied(samples["image"]), model(samples["image"]))
    optimizer = optimizer_of(copied.train())
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(copied(samples["image"]), samples["target"])
    loss.backward()
    broadcast(copied, "on_grads_ready")
    optimizer.step()
    broadcast(copied, "on_stepped")
    assert loss < 0.75 * sum(losses[:3]) / 3  # the network still knows what it has learned
    for name, tensor in copied.state_dict().items():
        assert torch.isfinite(tensor.double()).all(), name
        assert tensor.dtype == before[name].dtype, name
    assert_same(model.state_dict(), before)


@in_every_backbone
def test_the_exported_graph_is_the_network(method, variant, backbone):
    model, images = trained(method, variant, backbone)[0], batch(0)["image"][:2]
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


def plain(module):
    """Return the attributes that no state dict holds."""
    return {name: value for name, value in vars(module).items() if isinstance(value, (bool, int, float, str))}


@in_every_backbone
def test_training_leaves_its_state_in_buffers_alone(method, variant, backbone):
    model = trained(method, variant, backbone)[0]
    pairs = zip(model.named_modules(), untouched(method, variant, backbone).eval().modules(), strict=True)
    for (name, module), fresh in pairs:
        assert plain(module) == plain(fresh), name
        assert [key for key, value in vars(module).items() if isinstance(value, torch.Tensor)] == [], name
        assert module._non_persistent_buffers_set == set(), name
