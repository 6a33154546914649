"""The contract of every layout: the same tests on a small data set in each, and how a path tells its layout."""

import io
import pickle
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densebnn.data import DENSE_DATASETS, open_dense_dataset
from densebnn.data.dense import layout_of
from densebnn.data.dense.pictures import write_samples
from densebnn.data.loading import train_loader
from densebnn.data.transforms import DenseTrain
from densebnn.registry import UserError

ROOT = Path(__file__).parents[3]
WRITERS = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["WRITERS"]
FILES = [kind for kind in WRITERS if kind != "nyud_mat"]  # the .mat is one file: tests/data/nyud damages it
LISTED = [kind for kind in FILES if kind.startswith(("nyud_mt", "nyud_cmx", "own_folder")) or kind.endswith("-lists")]
DTYPES = {"image": "u1", "depth": "f4", "raw_depth": "f4", "label": "u1", "normals": "f4", "edges": "u1"}
TOLERANCE = {"image": 3, "depth": 0, "raw_depth": 0, "label": 0, "normals": 0.006, "edges": 0}

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    return WRITERS[request.param][1](tmp_path / "data set ü")


@pytest.fixture(params=FILES)
def of_files(request, tmp_path):
    return WRITERS[request.param][1](tmp_path / "data set ü")


def close(values, expected, name, lossy):
    if name == "normals" and lossy:  # JPEG blurs the border to where there are none
        values, expected = values[:-4], expected[:-4]
    largest = np.abs(values.astype(np.float64) - expected).max()
    allowed = TOLERANCE[name] if lossy or name == "normals" else 0
    return largest <= (0.05 if name == "normals" and lossy else allowed)


def test_every_layout_has_a_writer():
    assert {name for name, _ in WRITERS.values()} == set(DENSE_DATASETS)


def test_every_layout_has_a_card():
    page = (ROOT / "datasets/README.md").read_text(encoding="utf-8")
    cards = {
        name: card
        for card, names in re.findall(r"\]\((\w+/README\.md)\) \| (`.*?) \|", page)
        for name in names.split(", ")
    }
    assert {name.strip("`") for name in cards} == set(DENSE_DATASETS)
    assert all(
        name.strip("`") in (ROOT / "datasets" / card).read_text() for name, card in cards.items() if "png" in card
    )
    assert all((ROOT / "datasets" / card).is_file() for card in cards.values())


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_are_what_was_written(written, split):
    dataset = open_dense_dataset(written.path, split)
    assert set(dataset.fields) == set(dataset.available) == set(written.available)
    for position, expected in enumerate(written.samples[split]):
        sample = dataset[position]
        assert list(sample) == ["index", *dataset.fields]
        assert sample["index"] == position
        for name, values in expected.items():
            assert sample[name].dtype == np.dtype(DTYPES[name])
            assert sample[name].flags.c_contiguous
            assert sample[name].flags.writeable
            assert sample[name].shape == values.shape
            assert close(sample[name], values, name, name in written.lossy), name
        assert (sample["image"].shape[:2]) == dataset.frame_size == (12, 16)


def test_invalid_truth_is_marked(written):
    sample, expected = open_dense_dataset(written.path, "train")[0], written.samples["train"][0]
    for name in {"depth", "raw_depth"} & set(expected):
        assert np.array_equal(sample[name] == 0, expected[name] == 0)
    if "normals" in expected and "normals" not in written.lossy:
        length = np.linalg.norm(sample["normals"], axis=2)
        assert np.array_equal(length == 0, ~expected["normals"].any(axis=2))
        assert np.allclose(length[length > 0], 1, atol=1e-6)
    if "edges" in expected:
        assert set(np.unique(sample["edges"])) <= {0, 1}


def test_length_and_positions(written):
    train, test, both = (open_dense_dataset(written.path, split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(both)) == (4, 3, 7)
    assert len(set(np.asarray(both.frame_ids).tolist())) == 7
    assert train[-1]["index"] == 3
    for outside in (4, -5):
        with pytest.raises(IndexError):
            train[outside]


def test_splits(written):
    ids = {split: np.asarray(open_dense_dataset(written.path, split).frame_ids) for split in ("train", "test", "all")}
    assert np.array_equal(ids["all"], np.concatenate([ids["train"], ids["test"]]))
    for wrong in ("val", "tset"):
        with pytest.raises(UserError, match=f"split='{wrong}' is unknown"):
            open_dense_dataset(written.path, wrong)


def test_fields_are_chosen_and_others_refused_by_name(written):
    dataset = open_dense_dataset(written.path, "test", fields=("image",))
    assert set(dataset[0]) == {"index", "image"}
    for name in set(DTYPES) - set(written.available):
        with pytest.raises(UserError, match=rf"'{name}'.* (it has|choose from) image"):
            open_dense_dataset(written.path, "test", fields=("image", name))
    with pytest.raises(UserError, match=r"'depht' is unknown \(did you mean 'depth'\?\)"):
        open_dense_dataset(written.path, "test", fields=("depht",))


def test_classes(written):
    if "label" not in written.available:
        assert tuple(open_dense_dataset(written.path).class_names) == ()
        return
    dataset = open_dense_dataset(written.path)
    assert (len(dataset.class_names), dataset.ignore_index) == (written.classes, 255)
    if written.classes == 40:
        thirteen = open_dense_dataset(written.path, classes=13)
        assert len(thirteen.class_names) == 13
        forty, few = dataset[0]["label"], thirteen[0]["label"]
        assert np.array_equal(few == 255, forty == 255)
        assert few[few < 255].max() < 13
        assert all(len(np.unique(few[forty == one])) == 1 for one in np.unique(forty))


def test_the_mean_depth_is_of_the_training_frames(written):
    name = "depth" if "depth" in written.available else "raw_depth"
    depths = np.stack([sample[name] for sample in written.samples["train"]]).astype(np.float64)
    for split in ("train", "test"):
        assert open_dense_dataset(written.path, split).mean_depth() == pytest.approx(
            depths[depths > 0].mean(), rel=1e-6
        )


def each_field(of_files):
    """For each field the second training sample's file, of a data set in which one file may hold several fields."""
    return of_files.files["train"][1].items()


def failing(path, name):
    """Return the message about the second training sample, whose neighbours can still be read."""
    dataset = open_dense_dataset(path, "train", fields=(name,))
    for fine in (0, 2, 3):
        assert dataset[fine]["index"] == fine
    with pytest.raises(UserError) as caught:
        dataset[1]
    message = str(caught.value)
    assert "\n" not in message
    assert f"the {name} of sample 1 (train)" in message
    assert "mend the file" in message or "make all files one size" in message
    return message


def test_missing_files_are_named(of_files):
    for name, file in dict(each_field(of_files)).items():
        content = file.read_bytes()
        file.unlink()
        if of_files.row or file != of_files.files["train"][1]["image"]:  # without a list an absent image is no frame
            assert f"{file}: " in (message := failing(of_files.path, name))
            assert "is missing" in message
        file.write_bytes(content)


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "page"])
def test_damaged_files_are_named(of_files, damage):
    for name, file in dict(each_field(of_files)).items():
        content = file.read_bytes()
        file.write_bytes(
            {
                "empty": b"",
                "half": content[: len(content) // 2],
                "noise": np.random.default_rng(0).bytes(len(content)),
                "page": b"<html>not found</html>",
            }[damage]
        )
        message = failing(of_files.path, name)
        assert str(file) in message
        file.write_bytes(content)


def test_files_of_another_size_are_named(of_files, request, monkeypatch, tmp_path):
    writer = WRITERS[request.node.callspec.params["of_files"]][1]
    monkeypatch.setitem(writer.__globals__, "SIZE", (10, 16))
    smaller = writer(tmp_path / "smaller")
    for name, file in dict(each_field(of_files)).items():
        content = file.read_bytes()
        shutil.copy(smaller.files["train"][1][name], file)
        message = failing(of_files.path, name)
        assert "has 10 x 16 pixels, expected 12 x 16" in message
        assert str(file) in message
        file.write_bytes(content)


def test_links_out_of_the_folder_are_refused(of_files, tmp_path):
    for name, file in dict(each_field(of_files)).items():
        shutil.move(file, tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
        assert "is a link out of" in failing(of_files.path, name)
        file.unlink()
        shutil.move(tmp_path / file.name, file)


def test_links_inside_and_to_the_folder_are_followed(of_files, tmp_path):
    (tmp_path / "link").symlink_to(of_files.path)
    dataset = open_dense_dataset(tmp_path / "link", "train")
    assert np.array_equal(dataset[0]["image"], open_dense_dataset(of_files.path, "train")[0]["image"])


@pytest.mark.parametrize("line", ["../outside", "/etc/passwd", "a/../../b", "..", "a\\b"])
@pytest.mark.parametrize("of_files", LISTED, indirect=True)
def test_lists_stay_in_the_folder(of_files, line):
    of_files.row(line if "sync" not in str(of_files.files["train"][0]["image"]) else f"{line} {line}")
    if line == "/etc/passwd" and "sync" in str(of_files.files["train"][0]["image"]):
        dataset = open_dense_dataset(of_files.path, "train")  # BTS begins its paths with a slash
        with pytest.raises(UserError, match=r"sync/etc/passwd: .* is missing"):
            dataset[4]
        return
    with pytest.raises(UserError, match=r"txt, line 5: .* is no path inside of the data set's folder"):
        open_dense_dataset(of_files.path, "train")


@pytest.fixture(scope="module")
def huge():
    """A PNG of few bytes and many pixels."""
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_hostile_sizes_are_refused_before_memory_is_taken(of_files, huge):
    for name, file in dict(each_field(of_files)).items():
        content = file.read_bytes()
        if file.suffix in (".png", ".jpg"):
            file.write_bytes(huge)
            assert "9000 x 9000 pixels are more than" in failing(of_files.path, name)
        elif file.suffix == ".npy":
            header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
            with file.open("wb") as opened:
                np.lib.format.write_array_header_1_0(opened, header)
            assert "cannot be read" in failing(of_files.path, name)
        file.write_bytes(content)


def test_a_plot_shows_every_field(written, tmp_path):
    dataset = open_dense_dataset(written.path, "test")
    file = tmp_path / "plot.png"
    classes = max(len(dataset.class_names), 2)
    write_samples(file, [dataset[0], dataset[1]], classes=classes, ignore_index=dataset.ignore_index)
    with Image.open(file) as picture:
        assert abs(picture.size[0] - 300 * len(dataset.fields)) <= 2
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_a_sample_goes_through_training_and_workers(written):
    dataset = open_dense_dataset(written.path, "train")
    again = pickle.loads(pickle.dumps(dataset))
    assert all(np.array_equal(dataset[2][name], again[2][name]) for name in dataset.fields)
    batches = [
        next(iter(train_loader(dataset, DenseTrain((8, 8)), batch_size=4, seed=0, workers=workers)))
        for workers in (0, 1)
    ]
    for name in ("index", *dataset.fields):
        assert torch.equal(batches[0][name], batches[1][name])


def test_the_layout_is_recognised_and_can_be_named(written, request):
    name = WRITERS[request.node.callspec.params["written"]][0]
    assert layout_of(written.path) == name
    assert len(open_dense_dataset(written.path, layout=name)) == 4
    for other in set(DENSE_DATASETS) - {name}:
        with pytest.raises(UserError):
            open_dense_dataset(written.path, layout=other)


def test_options_of_the_mat_are_refused_elsewhere(of_files):
    with pytest.raises(UserError, match=r"takes no splits \(mine\.mat\); leave it out"):
        open_dense_dataset(of_files.path, splits="mine.mat", class_mapping=None)


def test_options_of_the_mat_reach_it(tmp_path):
    path = WRITERS["nyud_mat"][1](tmp_path).path
    dataset = open_dense_dataset(path, cache=tmp_path / "cache", progress=False)
    assert (tmp_path / "cache" / "manifest.json").is_file()
    assert len(dataset) == 4
    with pytest.raises(UserError, match=r"no\.mat does not exist"):
        open_dense_dataset(path, splits=tmp_path / "no.mat")


def test_what_is_in_no_layout(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; give nyu_depth_v2_labeled\.mat or the folder"):
        open_dense_dataset(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        open_dense_dataset(tmp_path / "empty")
    assert "is in no known layout; looked for" in str(caught.value)
    assert all(f"{name}: {layout.looks_for}" in str(caught.value) for name, layout in DENSE_DATASETS.items())
    with pytest.raises(UserError, match=r"unknown dense data layout 'nyud_mtt' \(did you mean 'nyud_mt'\?\)"):
        open_dense_dataset(tmp_path / "empty", layout="nyud_mtt")
    with pytest.raises(UserError, match=r"is not in the layout nyud_mt: looked for a folder with images/"):
        open_dense_dataset(tmp_path / "empty", layout="nyud_mt")
    inside = WRITERS["nyud_vainf"][1](tmp_path / "outer" / "NYUv2").path
    with pytest.raises(UserError, match=rf"did you mean {inside} \(nyud_vainf\)\?"):
        open_dense_dataset(tmp_path / "outer")


def test_a_folder_in_two_layouts(tmp_path):
    WRITERS["nyud_sync"][1](tmp_path / "both")
    WRITERS["nyud_cmx"][1](tmp_path / "both")
    with pytest.raises(UserError, match="could be in the layouts nyud_cmx or nyud_sync; say which"):
        open_dense_dataset(tmp_path / "both")
    assert len(open_dense_dataset(tmp_path / "both", layout="nyud_sync")) == 4
    WRITERS["own_folder"][1](tmp_path / "both" / "mine")
    shutil.move(tmp_path / "both/mine/dataset.yaml", tmp_path / "both/dataset.yaml")
    assert layout_of(tmp_path / "both") == "own_folder"
