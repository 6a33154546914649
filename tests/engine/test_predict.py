"""tools/predict.py as a person meets it."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from densebnn.dense import DensePredictor
from densebnn.deploy import PretrainedPredictor
from densebnn.tasks import Depth, Edges, MultiTask, Normals, Segmentation

from .test_inputs import gradient, huge, write_video

SIZE = (32, 64)
ALL = ("depth", "depth-mm", "edges", "labels", "normals", "overlay")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder of save_pretrained with four tasks."""
    torch.manual_seed(0)
    task = MultiTask([Segmentation(5), Depth(), Normals(), Edges()])
    model = DensePredictor(backbone="resnet20", decoder="Unet", out_channels=task.out_channels, head=task.head())
    net = PretrainedPredictor(model.eval(), tuple(task.parts), SIZE, tuple("abcde"))
    return net.save_pretrained(tmp_path_factory.mktemp("several") / "net")


def picture(path, height=40, width=70):
    Image.fromarray(gradient(height, width)).save(path)
    return path


def told(folder):
    return json.loads((folder / "predictions.json").read_text(encoding="utf-8"))


def test_a_run_and_a_picture(tool, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    file = picture(tmp_path / "ein Bild, größer 图.png")
    code, out, err = tool("predict", "--run", tmp_path / "run", "--input", file)
    assert (code, err) == (0, "")
    folder = tmp_path / "run/predictions"
    assert out == f"1 predicted: {folder}\n"
    assert {path.name for path in folder.iterdir()} == {
        *(f"{file.stem}-depth.png", f"{file.stem}-depth-mm.png", "predictions.json")
    }
    millimetres = np.array(Image.open(folder / f"{file.stem}-depth-mm.png"))
    assert (millimetres.dtype, millimetres.shape) == (np.uint16, (40, 70))
    (entry,) = told(folder)["predicted"]
    assert entry["input"] == str(file)
    look = entry["files"][0]
    assert look["red"] == pytest.approx(millimetres.min() / 1000, abs=2e-3)
    assert look["blue"] == pytest.approx(millimetres.max() / 1000, abs=2e-3)


def test_a_run_predicts_what_its_evaluation_scored(tool, trained, rooms, tmp_path):
    """A test frame, as a picture: the depths that the protocol compared with the truth."""
    from densebnn.data.nyud.dataset import NYUDv2

    frame = NYUDv2(rooms, "test", fields=("image", "depth"))[1]
    Image.fromarray(frame["image"]).save(tmp_path / "frame.png")
    assert tool("predict", "--run", trained[0], "--input", tmp_path / "frame.png", "--out", tmp_path / "out")[0] == 0
    metres = np.array(Image.open(tmp_path / "out/frame-depth-mm.png")) / 1000
    rmse = float(np.sqrt(np.square(metres - frame["depth"]).mean()))
    scored = dict(trained[1]["details"]["depth"]["images"])
    assert rmse == pytest.approx(scored[1], abs=1e-3)


def test_every_task_of_several(tool, several, tmp_path):
    code, _, err = tool("predict", "--run", several, "--input", picture(tmp_path / "a.jpg"), "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    found = {name: Image.open(tmp_path / f"out/a-{name}.png") for name in ALL}
    assert {name: image.mode for name, image in found.items()} == {
        **dict.fromkeys(ALL, "RGB"),
        "depth-mm": "I;16",
        "edges": "L",
        "labels": "P",
    }
    assert all(image.size == (70, 40) for image in found.values())
    about = told(tmp_path / "out")
    ids, classes = np.array(found["labels"]), about["classes"]
    assert ids.max() < 5
    assert [entry["name"] for entry in classes] == list("abcde")
    place = np.argwhere(ids == ids[0, 0])[0]
    colour = np.array(found["labels"].convert("RGB"))[tuple(place)]
    assert "#" + bytes(colour).hex() == classes[ids[0, 0]]["colour"]


def test_a_folder_with_all_sorts_of_things(tool, several, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    picture(folder / "good.png")
    Image.fromarray(gradient()).convert("L").save(folder / "grey.png")
    Image.fromarray(gradient()).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.full((5, 5), 30_000, np.uint16)).save(folder / "sixteen.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:-30])
    huge(folder / "huge.png")
    (folder / "notes.txt").write_text("not of interest")
    code, out, _ = tool("predict", "--run", several, "--input", folder, "--out", tmp_path / "out")
    assert code == 3
    assert out == f"3 predicted, 4 with something left out: {tmp_path / 'out'}\n"
    about = told(tmp_path / "out")
    assert [os.path.basename(entry["input"]) for entry in about["predicted"]] == ["alpha.png", "good.png", "grey.png"]
    left = {os.path.basename(entry["input"]): entry["reason"] for entry in about["left_out"]}
    assert left.keys() == {"broken.jpg", "cut.png", "huge.png", "sixteen.png"}
    assert "more pixels than" in left["huge.png"]
    assert not list((tmp_path / "out").glob("broken*"))
    assert len(list((tmp_path / "out").glob("*.png"))) == 3 * len(ALL)
    again = told(tmp_path / "out")
    assert tool("predict", "--run", several, "--input", folder, "--out", tmp_path / "out")[0] == 3
    assert told(tmp_path / "out") == again


def test_a_video_as_videos(tool, several, tmp_path):
    file = write_video(tmp_path / "clip.mp4", frames=6)
    code, _, err = tool("predict", "--run", several, "--input", file, "--out", tmp_path / "out", "--every", "2")
    assert (code, err) == (0, "")
    names = {f"clip-{name}.mp4" for name in ("depth", "edges", "normals", "overlay")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "predictions.json"}
    for name in names:
        video = cv2.VideoCapture(str(tmp_path / "out" / name))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
        assert video.read()[1].shape == (24, 32, 3)
    (entry,) = told(tmp_path / "out")["predicted"]
    assert {part["file"] for part in entry["files"]} == names


def test_a_video_as_numbered_pictures_and_one_that_ends_early(tool, several, tmp_path):
    content = write_video(tmp_path / "whole.avi", frames=60, codec="MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    flags = ("--frames", "--every", "10", "--metres", "[0.5,6]")
    code, _, _ = tool("predict", "--run", several, "--input", tmp_path / "cut.avi", "--out", tmp_path / "out", *flags)
    assert code == 3
    numbers = {path.name[:6] for path in (tmp_path / "out/cut").iterdir()}
    assert {"000000", "000010"} <= numbers <= {f"{number:06d}" for number in range(0, 50, 10)}
    assert len(list((tmp_path / "out/cut").iterdir())) == len(numbers) * len(ALL)
    about = told(tmp_path / "out")
    assert "it ends after" in about["left_out"][0]["reason"]
    depths = [part for part in about["predicted"][0]["files"] if part["file"].endswith("-depth.png")]
    assert {(part["red"], part["blue"]) for part in depths} == {(0.5, 6.0)}


def test_what_is_refused(refused, several, trained, tmp_path):
    file = picture(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "none").mkdir()
    run = ("--run", several)
    assert "no run given" in refused("predict", "--input", file)
    assert "no input given" in refused("predict", *run)
    assert "no such file or folder" in refused("predict", *run, "--input", tmp_path / "nothing")
    assert "holds no picture" in refused("predict", *run, "--input", tmp_path / "none")
    assert "there is no config.json" in refused("predict", "--run", tmp_path / "none", "--input", file)
    assert "not a whole safetensors file" in refused("predict", "--run", tmp_path / "file", "--input", file)
    assert "cannot write" in refused("predict", *run, "--input", file, "--out", tmp_path / "file/inside")
    assert "a file of that name is in the way" in refused("predict", *run, "--input", file, "--out", tmp_path / "file")
    assert "is the folder of the inputs" in refused("predict", *run, "--input", file, "--out", tmp_path)
    assert "max_pixels must be positive" in refused("predict", *run, "--input", file, "--max_pixels", 0)
    assert "the nearer one first" in refused("predict", *run, "--input", file, "--metres", "[3,1]")
    assert "alpha must be" in refused("predict", *run, "--input", file, "--alpha", "2")
    assert "unknown device" in refused("predict", *run, "--input", file, "--device", "tpu")
    shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("pretrained"))
    assert "holds no pretrained/" in refused("predict", "--run", tmp_path / "run", "--input", file)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_single_broken_picture_is_an_error(tool, several, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    code, out, err = tool("predict", "--run", several, "--input", tmp_path / "broken.png", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {tmp_path / 'broken.png'}: it is no whole JPEG or PNG file")
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_are_not_finite_give_no_pictures(tool, several, tmp_path):
    net = PretrainedPredictor.from_pretrained(several)
    head = net.model.network.segmentation_heads["depth"][0]
    torch.nn.init.constant_(head.bias, float("nan"))
    net.save_pretrained(tmp_path / "net")
    file = picture(tmp_path / "a.png")
    code, _, err = tool("predict", "--run", tmp_path / "net", "--input", file, "--out", tmp_path / "out")
    assert code == 2
    assert "predicts NaN or infinite values for depth" in err
    assert not (tmp_path / "out/predictions.json").exists()
