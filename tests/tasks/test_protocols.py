"""The regions and the wording of the protocols."""

import ast
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densebnn.registry import UserError
from densebnn.tasks import protocols
from densebnn.tasks.protocols import DEPTH_PROTOCOLS, EDGE_PROTOCOLS, NORMALS_PROTOCOLS, SEGMENTATION_PROTOCOLS

EXACT = {
    "eigen": (slice(45, 471), slice(41, 601)),
    "mtl": (slice(45, 470), slice(40, 600)),
    "gupta": (slice(45, 470), slice(40, 600)),
    "laina": (slice(0, 480), slice(0, 640)),
    "full": (slice(0, 480), slice(0, 640)),
}
ALL = {**DEPTH_PROTOCOLS, **SEGMENTATION_PROTOCOLS}
REGISTRIES = DEPTH_PROTOCOLS, SEGMENTATION_PROTOCOLS, NORMALS_PROTOCOLS, EDGE_PROTOCOLS


def test_every_protocol_is_listed_here_and_carries_its_name():
    assert set(ALL) == set(EXACT)
    for registry in REGISTRIES:
        assert all(protocol.name == name for name, protocol in registry.items())
        assert all(protocol.description.startswith(f"{name}: ") for name, protocol in registry.items())


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_a_frame_that_is_cropped_already_is_not_cropped_again(registry):
    expected = {
        "eigen": (slice(0, 425), slice(1, 560)),  # what lies of it in the frame
        "mtl": (slice(0, 425), slice(0, 560)),
        "gupta": (slice(0, 425), slice(0, 560)),
    }
    for name, protocol in registry.items():
        assert protocol.region(425, 560) == expected.get(name, (slice(0, 425), slice(0, 560)))


@pytest.mark.parametrize("name", EXACT)
def test_regions_are_exact_on_a_frame_of_the_release(name):
    assert ALL[name].region(480, 640) == EXACT[name]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("size", [(240, 320), (120, 160), (960, 1280), (300, 640), (7, 9), (1, 1)])
def test_regions_scale_with_the_frame(name, size):
    for part, whole, full, extent in zip(ALL[name].region(*size), EXACT[name], (480, 640), size, strict=True):
        for edge, original in ((part.start, whole.start), (part.stop, whole.stop)):
            assert edge == int(np.floor(original * extent / full + 0.5))
        assert 0 <= part.start < part.stop <= extent


def test_known_scaled_crops():
    assert DEPTH_PROTOCOLS["eigen"].region(240, 320) == (slice(23, 236), slice(21, 301))  # 22.5 and 20.5 go upwards
    assert DEPTH_PROTOCOLS["eigen"].region(960, 1280) == (slice(90, 942), slice(82, 1202))


def test_descriptions_state_everything():
    assert DEPTH_PROTOCOLS["eigen"].description == (
        "eigen: truth raw_depth; region [45:471, 41:601] of the 480x640 frame; "
        "prediction resized bilinearly to the truth; valid 0.001 < truth < 10 m; "
        "prediction clamped to [0.001, 10] m; averaged per image, then over images"
    )
    assert DEPTH_PROTOCOLS["mtl"].description == (
        "mtl: truth depth; region [45:470, 40:600] of the 480x640 frame; prediction resized bilinearly to the truth; "
        "valid 0 < truth <= 10 m; prediction clamped to [1e-09, inf] m; averaged over all pixels at once"
    )
    assert DEPTH_PROTOCOLS["laina"].description == (
        "laina: truth depth; whole frame; prediction resized bilinearly to the truth; "
        "valid 0 < truth <= 10 m; prediction not clamped; averaged over all pixels at once"
    )
    assert SEGMENTATION_PROTOCOLS["full"].description == (
        "full: truth label; whole frame; prediction resized bilinearly to the truth; valid where labelled; "
        "argmax of the logits, not clamped; "
        "one confusion matrix over all pixels at once, mIoU over the classes in truth or prediction"
    )
    assert EDGE_PROTOCOLS["mtl"].description == (
        "mtl: truth edges; region [45:470, 40:600] of the 480x640 frame; prediction resized bilinearly to the truth; "
        "valid where marked edge or none; not clamped; "
        "thinned, matched one to one within 0.011 of the diagonal, 99 thresholds; averaged over all pixels at once"
    )
    assert NORMALS_PROTOCOLS["full"].description == (
        "full: truth normals; whole frame; prediction resized bilinearly to the truth; "
        "valid where truth is finite and longer than 0.001; made of length 1, not clamped; "
        "averaged over all pixels at once"
    )


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_a_flipped_protocol_says_so_and_is_otherwise_the_same(registry):
    for name, protocol in registry.items():
        flipped = protocol.flipped()
        assert flipped == replace(protocol, name=f"{name}+flip", flip=True)
        assert flipped.description.startswith(f"{name}+flip: ")
        assert flipped.description.endswith("; mean of the predictions for the image and its mirror image")
        assert flipped.flipped() is flipped
        assert "mirror" not in protocol.description


def docstrings():
    """The literals that stand below the protocols, by the name of the constant."""
    body = ast.parse(Path(protocols.__file__).read_text(encoding="utf-8")).body
    pairs = [(one, text) for one, text in itertools.pairwise(body) if isinstance(one, ast.Assign)]
    return {
        one.targets[0].id: text.value.value
        for one, text in pairs
        if isinstance(getattr(protocols, one.targets[0].id), protocols.Protocol)
    }


def test_every_protocol_says_in_its_docstring_what_makes_its_figures():
    told = docstrings()
    known = [protocol for registry in REGISTRIES for protocol in registry.values()]
    assert len(told) == len(known) == 10
    assert all(any(getattr(protocols, name) is protocol for protocol in known) for name in told)
    for text in told.values():
        lines = "".join(line.partition(": ")[0].lower() for line in text.splitlines() if line.startswith("- "))
        words = ("ground truth", "region", "valid mask", "clamp", "averaging", "resize")
        assert [word for word in words if word not in lines] == []
    for name in ("GUPTA", "MTL", "NORMALS_GUPTA", "EDGES_MTL", "EIGEN"):
        c = getattr(protocols, name).crop
        size = f"{c.bottom - c.top}x{c.right - c.left}"
        assert f"[{c.top}:{c.bottom}, {c.left}:{c.right}] of the 480x640 frame, {size}" in told[name]


def test_a_variant_without_crop_takes_the_whole_frame():
    cropped = replace(DEPTH_PROTOCOLS["mtl"], crop=None)
    assert cropped.region(425, 560) == (slice(0, 425), slice(0, 560))


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'eigen'"):
        DEPTH_PROTOCOLS["eigne"]
