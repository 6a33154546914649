"""What is said of a data set, and datasets/verify.py as a person meets it."""

import importlib.util
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densebnn.data.dense.verify import verify
from densebnn.registry import UserError

WRITERS = runpy.run_path(str(Path(__file__).with_name("layouts.py")))["WRITERS"]
SCRIPT = Path(__file__).parents[3] / "datasets" / "verify.py"


@pytest.fixture
def call(capsys):
    """Run datasets/verify.py in this process: (exit code, stdout, stderr)."""
    spec = importlib.util.spec_from_file_location("verify_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        capsys.readouterr()
        try:
            code = module.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def lines(text):
    """The first word of each line -> the rest of the first line that begins with it."""
    found = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        found.setdefault(word, rest.strip())
    return found


@pytest.mark.parametrize("kind", WRITERS)
def test_a_whole_data_set(tmp_path, call, kind):
    name, write = WRITERS[kind]
    written = write(tmp_path / "data")
    code, out, _ = call(written.path)
    said = lines(out)
    assert code == 0
    assert said["layout"].startswith(name)
    assert said["frames"] == "train 4, test 3, of 12 x 16"
    assert said["fields"] == ", ".join(field for field in written.available)
    assert said["image"] == "7 read"
    assert said["result"] == "nothing is broken"
    samples = [*written.samples["train"], *written.samples["test"]]
    for field in {"depth", "raw_depth"} & set(written.available):
        depth = np.stack([sample[field] for sample in samples])
        valid = depth[depth > 0].astype(np.float64)
        figures = f"{valid.min():.3f} to {valid.max():.3f} m, mean {valid.mean():.3f}"
        assert said[field] == f"{figures}; {np.mean(depth == 0):.1%} of the pixels invalid"
    if "label" in written.available:
        label = np.stack([sample["label"] for sample in samples])
        seen = len(np.unique(label[label < 255]))
        assert said["label"].startswith(
            f"{seen} of {written.classes} classes seen, {np.mean(label == 255):.1%} of the pixels ignored"
        )
    if "normals" in written.available and not written.lossy:
        assert said["normals"] == "8.3% of the pixels without one"
    if "edges" in written.available:
        edges = np.stack([sample["edges"] for sample in samples])
        assert said["edges"] == f"on {np.mean(edges == 1):.1%} of the pixels"


def test_every_broken_file_is_named_with_its_sample(tmp_path, call):
    written = WRITERS["nyud_mt-invpt"][1](tmp_path / "data")
    written.files["train"][0]["image"].write_bytes(b"")
    written.files["train"][0]["label"].unlink()
    written.files["test"][2]["depth"].write_bytes(b"noise")
    np.save(written.files["test"][1]["depth"], np.ones((5, 5)))
    code, out, err = call(written.path)
    broken = [line for line in out.splitlines() if line.startswith("broken")]
    assert (code, len(broken), lines(out)["result"]) == (1, 4, "4 broken")
    expected = [
        (written.files["train"][0]["image"], "the image of sample 0 (train)"),
        (written.files["train"][0]["label"], "the label of sample 0 (train) is missing"),
        (written.files["test"][1]["depth"], "the depth of sample 1 (test) has 5 x 5 pixels, expected 12 x 16"),
        (written.files["test"][2]["depth"], "the depth of sample 2 (test) cannot be read"),
    ]
    for line, (file, what) in zip(broken, expected, strict=True):
        assert f"{file}: {what}" in line
    assert "Traceback" not in err


def test_of_many_broken_files_some_are_shown(tmp_path):
    written = WRITERS["own_folder"][1](tmp_path / "data")
    for files in [*written.files["train"], *written.files["test"]]:
        for field in ("depth", "raw_depth", "label", "edges"):
            files[field].unlink()
    text = verify(written.path, progress=False).text()
    assert len(text.splitlines()) < 35
    assert "broken    and 8 more\nresult    28 broken" in text


def test_a_split_that_is_not_there_is_no_damage_but_a_list_that_lies_is(tmp_path, call):
    path = WRITERS["nyud_mt-atrc"][1](tmp_path / "data").path
    (path / "gt_sets/train.txt").unlink()
    code, out, _ = call(path)
    assert code == 0
    assert lines(out)["train"].startswith("not there: ")
    assert lines(out)["frames"] == "test 3, of 12 x 16"
    (path / "gt_sets/train.txt").write_text("../../secret\n")
    code, out, _ = call(path)
    assert (code, lines(out)["result"]) == (1, "1 broken")
    assert "train.txt, line 1: '../../secret' is no path inside" in lines(out)["broken"]


def test_frames_that_are_in_no_split(tmp_path, call):
    path = WRITERS["own_folder"][1](tmp_path / "data").path
    manifest = json.loads((path / "dataset.yaml").read_text())
    del manifest["splits"]
    (path / "dataset.yaml").write_text(json.dumps(manifest))
    code, out, _ = call(path)
    assert (code, lines(out)["frames"]) == (0, "all 7, of 12 x 16")


def test_a_wrong_unit_is_doubted(tmp_path):
    written = WRITERS["own_folder"][1](tmp_path / "data")
    for scale, mean in (("1e-6", "0.0055"), ("1", "0")):
        text = (written.path / "dataset.yaml").read_text()
        manifest = {**json.loads(text), "depth_scale": float(scale)}
        (written.path / "dataset.yaml").write_text(json.dumps(manifest).replace("1e-06", "0.000001"))
        (doubt,) = verify(written.path, progress=False).doubts
        assert doubt == f"depth: a mean of {mean} m; is its unit right (millimetres, metres; depth_scale)?"


def test_holes_in_filled_depth_are_doubted(tmp_path):
    (doubt,) = verify(WRITERS["nyud_mt-atrc"][1](tmp_path / "data").path, progress=False).doubts
    assert doubt == "depth: 8.3% holes; the protocols mtl and laina expect filled depth"


def test_some_samples_of_each_split(tmp_path, call):
    written = WRITERS["nyud_nicr"][1](tmp_path / "data")
    written.files["train"][1]["depth"].unlink()
    code, out, _ = call(written.path, "--samples", 2)
    assert (code, lines(out)["image"]) == (0, "4 read")


def test_the_mat_is_read_without_writing_a_cache(tmp_path, call):
    written = WRITERS["nyud_mat"][1](tmp_path / "data")
    code, out, _ = call(written.path)
    assert code == 0
    assert "not the release, which has 2,972,037,809" in lines(out)["layout"]
    assert sorted(file.name for file in written.path.parent.iterdir()) == ["nyu.mat", "nyu_splits.mat"]
    written.path.write_bytes(written.path.read_bytes()[:20_000])
    code, out, _ = call(written.path)
    assert (code, lines(out)["result"]) == (1, "1 broken")
    assert "is truncated" in lines(out)["broken"]


@pytest.mark.parametrize("content", [b"", b"<html>", b"noise" * 100])
def test_a_file_that_is_no_mat(tmp_path, call, content):
    (tmp_path / "a.mat").write_bytes(content)
    code, out, err = call(tmp_path / "a.mat")
    assert (code, lines(out)["result"]) == (1, "1 broken")
    assert "Traceback" not in out + err


def test_mistakes_in_the_call(tmp_path, call):
    path = WRITERS["nyud_nicr"][1](tmp_path / "data").path
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "nothing"], "does not exist"),
        ([tmp_path / "empty"], "is in no known layout"),
        ([path, "--layout", "nyud_nicer"], "did you mean 'nyud_nicr'?"),
        ([path, "--layout", "nyud_mt"], "is not in the layout nyud_mt"),
        ([path, "--samples", 0], "samples must be 1 or more, got 0"),
        ([path, "--plot", tmp_path / "no" / "a.png"], "cannot write"),
    ):
        code, _, err = call(*arguments)
        assert code == 2
        error = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(error) == 1
        assert message in error[0]
    assert call("--nonsense")[0] == 2


def test_a_plot_leaves_broken_samples_out(tmp_path, call):
    written = WRITERS["nyud_nicr"][1](tmp_path / "data")
    written.files["train"][0]["depth"].unlink()
    code, out, _ = call(written.path, "--plot", tmp_path / "a.png")
    assert code == 1
    assert lines(out)["plot"] == str(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] == 1200
    for files in written.files["train"]:
        files["depth"].unlink(missing_ok=True)
    code, _, err = call(written.path, "--plot", tmp_path / "b.png")
    assert code == 2
    assert "nothing to plot" in err


def test_nothing_is_said_of_nothing(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        verify(tmp_path / "nothing")
