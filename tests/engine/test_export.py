"""tools/export.py as a person meets it: files that give what the frozen network gives, and reports that say so."""

import importlib.util
import json
import shutil

import pytest
import torch

import densebnn.deploy.kernels  # noqa: F401  # the operators of programs
from densebnn.data.transforms import DenseEval
from densebnn.deploy import PretrainedPredictor, exporting, freeze, load_packed
from densebnn.deploy.exporting import FORMATS
from densebnn.engine.cli import dump, parse
from densebnn.engine.config import ExportConfig, PretrainConfig
from densebnn.engine.finished import open_finished

MISSING = [name for name in exporting._EXTRA if importlib.util.find_spec(name) is None]
NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(name == "onnx" and bool(MISSING), reason=f"without {MISSING}"))
    for name in FORMATS
]
SIZE = (64, 96)
CARD = {
    "tasks": ["depth"],
    "channels": {"depth": 1},
    "class_names": [],
    "input_size": list(SIZE),
    "image": {"order": "RGB", "scale": "0 to 1", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


def opened(name, path):
    """The file and its card, opened with what users of the format have."""
    if name == "packed":
        net = PretrainedPredictor.from_packed(path)
        assert (net.tasks, net.input_size) == (("depth",), SIZE)
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return load_packed(path), json.loads(header["__metadata__"]["card"])
    if name == "torch-export":
        extra = {"card.json": ""}
        return torch.export.load(path, extra_files=extra).module(), json.loads(extra["card.json"])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, found.name) == ("image", [2, 3, *SIZE], "prediction")
    card = json.loads(session.get_modelmeta().custom_metadata_map["densebnn"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]), card


def network(run):
    """The network of a run, in eval mode, and its frames: images (N, 3, H, W) and depths (N, H, W)."""
    finished = open_finished(run)
    _, frames, task = finished.examined(ExportConfig(run=run))
    samples = [DenseEval(SIZE)(frames[index], 0) for index in range(len(frames))]
    return finished.predictor(task).eval(), *(torch.stack([one[key] for one in samples]) for key in ("image", "depth"))


def rmse(prediction, truth):
    """The error under the protocol `laina`, in metres."""
    resized = torch.nn.functional.interpolate(prediction.double(), truth.shape[1:], mode="bilinear")[:, 0]
    valid = (truth > 0) & (truth <= 10)
    return float((resized - truth.double())[valid].square().mean().sqrt())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_what_the_frozen_network_gives_and_its_report_says_how_exactly(name, tool, trained, tmp_path):
    out = tmp_path / f"net{FORMATS[name].suffix}"
    code, text, err = tool("export", trained[0], "--format", name, "--out", out, "--batch_size", 2)
    assert (code, [line for line in err.splitlines() if not line.startswith("compare ")]) == (0, [])
    assert {path.name for path in tmp_path.iterdir()} == {
        *(out.name, f"{out.name}.parity.json", f"{out.name}.parity.txt")
    }
    run, card = opened(name, out)
    assert card.items() >= CARD.items()
    model, images, truth = network(trained[0])
    batches = images[:2], images[1:]  # programs are fixed to two images
    with torch.no_grad():
        given, frozen, before = (
            torch.cat([net(batches[0]), net(batches[1])[1:]]) for net in (run, freeze(model), model)
        )
    assert given.shape == (3, 1, *SIZE)
    assert given.std() > 1e-3  # so that being equal means something
    apart = (given - frozen).abs().flatten(1).amax(1)
    assert int((apart > 1e-4).sum()) <= 1  # a sum at its very threshold may turn a sign

    report = json.loads((tmp_path / f"{out.name}.parity.json").read_text())
    assert (report["bytes"], report["images"], report["exact_images"]) == (out.stat().st_size, 3, 3)
    assert report["bytes"] < report["bytes_of_weights"] == (trained[0] / "weights.safetensors").stat().st_size
    assert report["layers"][0] == "16 of 16 binary layers are frozen to bits"
    assert report["shape"] == (None if name == "packed" else [2, 3, *SIZE])
    pairs = report["predictions"]["depth"]
    exact = {"file against network in float64", "network against network in float64"}
    assert pairs.keys() == {"file against network", *exact}
    apart = (given - before).abs()
    said = pairs["file against network"]
    assert said["share_differing"] == pytest.approx(float((apart > 1e-3).double().mean()), abs=1e-3)
    assert said["largest"] == pytest.approx(float(apart.max()), abs=2e-5)
    figures = report["figures"]["depth"]["rmse"]
    assert figures["before"] == pytest.approx(rmse(before, truth), rel=1e-6)
    assert figures["before"] == pytest.approx(trained[1]["figures"]["rmse"], rel=1e-6)
    assert figures["after"] == pytest.approx(rmse(given, truth), rel=1e-6)
    assert figures["difference"] == figures["after"] - figures["before"]
    written = (tmp_path / f"{out.name}.parity.txt").read_text()
    assert written.splitlines() == text.splitlines()[:-2]
    assert all(head in written for head in ("pixels that differ", "largest in m", "difference", "rmse"))


@pytest.fixture
def shifted(monkeypatch):
    """Packed files that are wrong: in the first quarter of the rows, something is added to their depths."""
    right = FORMATS["packed"]

    def change(by):
        def write(path, model, shape, card):
            run = right.write(path, model, shape, card)

            def wrong(image):
                found = run(image)
                found[:, :, :16] += by
                return found

            return wrong

        monkeypatch.setitem(FORMATS, "packed", right._replace(write=write))

    return change


def test_a_file_that_is_wrong_is_told(tool, trained, tmp_path, shifted):
    shifted(0.5)
    assert tool("export", trained[0], "--out", tmp_path / "net")[0] == 0
    report = json.loads((tmp_path / "net.parity.json").read_text())
    said = report["predictions"]["depth"]
    assert said["file against network"]["share_differing"] == pytest.approx(0.25, abs=0.02)
    assert said["file against network"]["largest"] == pytest.approx(0.5, abs=1e-3)
    assert said["file against network in float64"]["largest"] == pytest.approx(0.5, abs=1e-3)
    assert said["network against network in float64"]["largest"] < 0.1
    assert abs(report["figures"]["depth"]["rmse"]["difference"]) > 0.01
    assert "25.0000 %" in (tmp_path / "net.parity.txt").read_text()


def test_a_comparison_that_fails_leaves_no_report_of_another_file(tool, trained, tmp_path, shifted):
    assert tool("export", trained[0], "--out", tmp_path / "net", "--exact", 0)[0] == 0
    shifted(float("nan"))
    code, out, err = tool("export", trained[0], "--out", tmp_path / "net", "--exact", 0)
    assert (code, out) == (2, "")
    assert "NaN" in err
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_each_of_several_tasks_has_its_part_of_the_report(tool, dense, tmp_path):
    run = tmp_path / "run"
    flags = ["--task", "segmentation,depth", "--decoder.name", "Linknet", "--train.steps", "1"]
    assert tool("finetune_nyud", *dense(run, *flags))[0] == 0
    code, text, _ = tool("export", run)
    report = json.loads((run / "network.packed.safetensors.parity.json").read_text())
    trained_as = json.loads((run / "report.json").read_text())["figures"]
    assert code == 0
    assert report["protocol"].keys() == report["predictions"].keys() == {"segmentation", "depth"}
    classes, metres = (report["predictions"][task]["file against network"] for task in ("segmentation", "depth"))
    assert classes.keys() == {"share_differing"}
    assert metres.keys() == {"share_differing", "largest", "mean", "unit"}
    assert classes["share_differing"] < 0.05
    for task, name in (("segmentation", "miou"), ("depth", "rmse")):
        change = report["figures"][task][name]
        assert change["before"] == pytest.approx(trained_as[task][name], rel=1e-6)
        assert change["difference"] == change["after"] - change["before"]
    assert all(words in text for words in ("those of another class", "miou", "those with a depth", "rmse"))
    net = PretrainedPredictor.from_packed(run / "network.packed.safetensors")
    assert net.tasks == ("segmentation", "depth")
    assert len(net.class_names) == net.model.options["out_channels"]["segmentation"] == 13


def test_frames_and_size_are_chosen_and_the_run_folder_is_the_usual_place(tool, trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    flags = ("--frames", 2, "--exact", 1, "--split", "train", "--size", "[32,64]", "--protocol", "eigen")
    assert tool("export", run, *flags)[0] == 0
    report = json.loads((run / "network.packed.safetensors.parity.json").read_text())
    assert (report["file"], report["split"]) == (str(run / "network.packed.safetensors"), "train")
    assert (report["images"], report["exact_images"], report["compared_at"]) == (2, 1, [32, 64])
    assert report["protocol"].startswith("eigen:")


def test_an_earlier_export_is_written_over_and_no_other_file(tool, refused, trained, tmp_path):
    first, mine = tmp_path / "net", tmp_path / "mine"
    mine.write_text("mine")
    flags = ("--frames", 1, "--exact", 0)
    assert tool("export", trained[0], "--out", first, *flags)[0] == 0
    content = first.read_bytes()
    first.write_bytes(b"damaged")
    assert tool("export", trained[0], "--out", first, *flags)[0] == 0
    assert first.read_bytes() == content
    run = shutil.copytree(trained[0], tmp_path / "run")
    for path in (mine, run / "weights.safetensors", run / "config.yaml", run / "pretrained/model.safetensors"):
        before = path.read_bytes()
        assert f"{path} is there already, and no export" in refused("export", run, "--out", path)
        assert path.read_bytes() == before


def test_onnx_without_its_packages(refused, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "onnx" else name)
    said = refused("export", trained[0], "--format", "onnx", "--out", tmp_path / "net.onnx")
    assert said == 'error: ONNX needs onnx: pip install "densebnn[export]"'
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(refused, trained, classify, tmp_path):
    out, other = tmp_path / "net", tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(dump(parse(PretrainConfig, classify(other), prog="", description="")[0]))
    shutil.copy(trained[0] / "weights.safetensors", other)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "none").mkdir()
    shutil.copytree(trained[0], tmp_path / "unfinished", ignore=shutil.ignore_patterns("weights.safetensors"))
    cut = shutil.copytree(trained[0], tmp_path / "cut")
    (cut / "weights.safetensors").write_bytes((cut / "weights.safetensors").read_bytes()[:-9])
    expected = "expected the folder of a run of finetune_nyud.py"
    assert f"no folder given: {expected}" in refused("export", "--out", out)
    for path in ("nothing", "none", "file"):
        assert f"{tmp_path / path}: {expected}" in refused("export", tmp_path / path, "--out", out)
    assert f"{other} holds a run of another tool: {expected}" in refused("export", other, "--out", out)
    assert "its run is not finished; start it again" in refused("export", tmp_path / "unfinished", "--out", out)
    assert "not a whole safetensors file" in refused("export", cut, "--out", out)
    run = (trained[0], "--out", out)
    assert "expected 'packed' or 'onnx' or 'torch-export', given 'onx'" in refused("export", *run, "--format", "onx")
    assert "batch_size" in refused("export", *run, "--batch_size", 0)
    assert "size" in refused("export", *run, "--size", 0)
    assert "size at most 8192" in refused("export", *run, "--size", 9000)
    assert "exact" in refused("export", *run, "--exact", -1)
    assert "unknown" in refused("export", *run, "--protocol", "egien")
    assert "no.mat" in refused("export", *run, "--data", tmp_path / "no.mat")
    assert "its folder does not exist" in refused("export", trained[0], "--out", tmp_path / "no/net")
    assert "it is a folder" in refused("export", trained[0], "--out", tmp_path / "none")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.glob("net*"))
