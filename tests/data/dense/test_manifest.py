import dataclasses
import os
import re
from pathlib import Path

import pytest

from densebnn.data.dense.fields import FIELDS
from densebnn.data.dense.manifest import Manifest, read_manifest
from densebnn.registry import UserError

SMALL = "image: images/*.jpg\n"


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "dataset.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_manifest(file)

    return read


def test_the_card_shows_a_manifest_that_is_read_and_explains_every_entry(read):
    card = (Path(__file__).parents[3] / "datasets" / "own_folder" / "README.md").read_text(encoding="utf-8")
    found = read(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    assert found.size == (480, 640)
    assert list(found.classes.values()) == ["wall", "floor", "chair", "other"]
    explained = {
        name for row in re.findall(r"^\| (`.*?) \|", card, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert explained == {*FIELDS, *(field.name for field in dataclasses.fields(Manifest))} - {"patterns"}


def test_defaults(read):
    assert read(SMALL) == Manifest({"image": "images/*.jpg"})


def test_everything(read):
    text = """
    image: a/*.jpg
    depth: ./d/*.png
    label: l/x_*.png
    depth_scale: 1e-4
    classes: {3: wall, 1: floor}
    ignore: [0]
    splits: {train: lists/train.txt, test: test.txt}
    size: [240, 320]
    """
    found = read(text.replace("1e-4", "0.0001"))
    assert found.patterns == {"image": "a/*.jpg", "depth": "d/*.png", "label": "l/x_*.png"}
    assert list(found.classes.items()) == [(3, "wall"), (1, "floor")]
    assert (found.depth_scale, found.ignore, found.size) == (0.0001, (0,), (240, 320))
    assert found.splits == {"train": "lists/train.txt", "test": "test.txt"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold entries such as"),
        ("- image", "must hold entries such as"),
        ("image: [", "cannot be read as YAML"),
        ("image: *.jpg", "cannot be read as YAML"),
        ("a: &x 1\nimage: *x", r"aliases \(\*name\) are not taken; .* in quotes"),
        ("image: !!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        (b"image: \xff", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
        (" " * (2 << 20), "has more than 1048576 bytes"),
        ("depth: d/*.png", "'image' is missing; give a pattern such as"),
        ("image: a.jpg", r"'image' must be a path with one \*, such as image/\*.png, got 'a.jpg'"),
        ("image: '*/*.jpg'", r"'image' must be a path with one \*"),
        ("image: 3", "'image' must be a path"),
        ("image: /etc/*.jpg", "'image': '/etc/.*' is no path inside"),
        ("image: ../*.jpg", "'image': .* is no path inside"),
        (SMALL + "dpeth: d/*.png", r"unknown entry 'dpeth' \(did you mean 'depth'\?\); known: image, depth"),
        (SMALL + "3: d", "unknown entry 3"),
        (SMALL + "depth_scale: 0", "'depth_scale' must be metres in one unit"),
        (SMALL + "depth_scale: .nan", "'depth_scale' must be metres"),
        (SMALL + "depth_scale: yes", "'depth_scale' must be metres"),
        (SMALL + "label: l/*.png", "'label' and 'classes' belong together"),
        (SMALL + "classes: [a, b]", "'label' and 'classes' belong together"),
        (SMALL + "label: l/*.png\nclasses: [a]", "'classes' must be a list of two or more names"),
        (SMALL + "label: l/*.png\nclasses: [a, on]", "'classes' must be .* in quotes"),
        (SMALL + "label: l/*.png\nclasses: {a: 1, b: 2}", "'classes' must be"),
        (SMALL + "ignore: 255", "'ignore' must be a list of whole numbers, got 255"),
        (SMALL + "ignore: [a]", "'ignore' must be a list"),
        (SMALL + "splits: train.txt", "'splits' must name a list for train, test or both"),
        (SMALL + "splits: {val: a.txt}", "'splits' must name"),
        (SMALL + "splits: {train: ../a.txt}", "'splits': .* is no path inside"),
        (SMALL + "size: [3]", r"'size' must be \[height, width\]"),
        (SMALL + "size: [0, 3]", "'size' must be"),
        (SMALL + "size: [100000, 3]", "'size' must be"),
    ],
)
def test_mistakes(read, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    assert "dataset.yaml" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_manifest_that_is_no_file(tmp_path):
    for name in ("absent", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"{name} cannot be read as YAML"):
            read_manifest(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe cannot be read as YAML"):
        read_manifest(tmp_path / "pipe")
