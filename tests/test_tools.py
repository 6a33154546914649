"""The tools as a person meets them: exit codes, the one line on stderr, and what they leave behind."""

import json
import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from densebnn.backbones import create_backbone, save_backbone
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.run_folder import RunFolder

TOOLS = Path(__file__).parents[1] / "tools"


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def copied(rooms, folder, name="rooms.mat"):
    shutil.copy(rooms, folder / name)
    shutil.copy(rooms.with_name("rooms_splits.mat"), folder / f"{Path(name).stem}_splits.mat")
    return folder / name


def swap_axes(file):
    images = file["images"][()]
    del file["images"]
    file["images"] = np.ascontiguousarray(images.transpose(0, 1, 3, 2))


def no_depth(file):
    file["depths"][2, :, :20] = np.nan


def foreign_label(file):
    file["labels"][3, 5, 5] = 9999


def test_finetune_prints_table_folder_and_what_to_do_next_and_its_commands_work(tool, dense, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = tool("finetune_nyud", *dense(tmp_path / "run", "--train.steps", "2"))
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["depth", "value"]
    assert any(line.startswith("rmse ") for line in lines)
    assert f"run folder: {tmp_path / 'run'}" in lines
    commands = lines[lines.index("next:") + 1 :]
    assert len(commands) == 3
    assert err.splitlines()[-1].startswith("train 2/2 (100 %)")

    again = tool("finetune_nyud", *dense(tmp_path / "run", "--train.steps", "2"))
    assert again == (0, out, "")  # the same report, and nothing trained

    python, path, *flags = commands[0].split()
    assert (python, path) == ("python", "tools/eval.py")
    code, out, _ = tool("eval", *flags)
    assert code == 0
    assert "protocol: " in out
    assert (tmp_path / "run/eval-test-eigen.json").is_file()
    assert all(Path(TOOLS.parent, command.split()[1]).is_file() for command in commands)


def test_pretraining_and_then_finetuning_on_it(tool, classify, dense, tmp_path):
    network = ["--network.backbone", "resnet18", "--network.method", "bireal", "--train.steps", "1"]
    code, out, err = tool("pretrain_cls", *classify(tmp_path / "pre", *network))
    assert code == 0, err
    assert out.splitlines()[0].split() == ["classification", "value"]
    command = next(line for line in out.splitlines() if "finetune_nyud.py --task depth" in line)
    code, out, err = tool("finetune_nyud", *dense(tmp_path / "run", "--train.steps", "1"), *command.split()[2:])
    assert code == 0, err


def test_no_next_command_that_cannot_work(tool, classify, tmp_path):
    flags = ("--train.steps", "1", "--train.weights", "real")
    code, out, _ = tool("pretrain_cls", *classify(tmp_path / "pre", *flags))  # real weights: no packed backbone
    assert code == 0
    assert "finetune_nyud.py" not in out
    assert "next:" in out


def test_evaluation_as_table_and_json(tool, trained, tmp_path):
    folder, report = trained
    flags = ["--json", tmp_path / "a.json", "--threads", "1", "--device", "cpu"]
    code, out, err = tool("eval", folder, *flags)
    assert (code, err) == (0, "")
    figures = json.loads((tmp_path / "a.json").read_text())["figures"]
    assert figures["rmse"] == pytest.approx(report["figures"]["rmse"], rel=1e-6)
    assert f"{figures['rmse']:.4f}" in out
    assert out.splitlines()[-1] == f"written to {tmp_path / 'a.json'}"
    assert tool("eval", "--run", folder, "--split", "train", "--batch_size", "3", *flags)[0] == 0
    assert json.loads((tmp_path / "a.json").read_text())["split"] == "train"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--protocol", "egien"], "did you mean 'eigen'"),
        (["--split", "val"], "'test' or 'train' or 'all'"),
        (["--batch_size", "0"], "batch_size must be positive"),
        (["--data", "no.mat"], "no.mat"),
        (["--splits", "no.mat"], "no.mat"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--json", "no/such/eval.json"], "no/such"),
        (["--batchsize", "3"], "did you mean 'batch_size'"),
    ],
)
def test_evaluation_refuses(flags, reason, refused, trained):
    before = contents(trained[0])
    assert reason in refused("eval", trained[0], *flags)
    assert contents(trained[0]) == before


def test_evaluation_needs_a_finished_run_of_finetuning(refused, tool, dense, classify, trained, tmp_path):
    assert "no folder given" in refused("eval")
    assert str(tmp_path / "nothing") in refused("eval", tmp_path / "nothing")
    assert "expected the folder of a run" in refused("eval", tmp_path)
    shutil.copytree(trained[0], tmp_path / "unfinished")
    (tmp_path / "unfinished/weights.safetensors").unlink()
    assert "not finished; start it again" in refused("eval", tmp_path / "unfinished")
    assert tool("pretrain_cls", *classify(tmp_path / "pre", "--train.steps", "1"))[0] == 0
    assert "a run of another tool" in refused("eval", tmp_path / "pre")
    shutil.copytree(trained[0], tmp_path / "damaged")
    weights = tmp_path / "damaged/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert str(weights) in refused("eval", tmp_path / "damaged")


def test_weights_that_are_not_finite_get_no_figures(refused, trained, tmp_path):
    from densebnn.weights import load_weights, save_weights

    shutil.copytree(trained[0], tmp_path / "run")
    tensors, card = load_weights(tmp_path / "run/weights.safetensors")
    name = next(name for name in tensors if "segmentation_head" in name and name.endswith("weight"))
    tensors[name] = tensors[name] * float("nan")
    save_weights(tmp_path / "run/weights.safetensors", tensors, card)
    assert "prediction is not finite" in refused("eval", tmp_path / "run", "--json", tmp_path / "eval.json")
    assert not (tmp_path / "eval.json").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"<!DOCTYPE html><html><body>404 not found</body></html>" * 20, "HTML"),
        (b"", "empty"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(600), "MATLAB 5"),
    ],
)
def test_files_that_are_no_release(content, reason, refused, dense, tmp_path):
    path = tmp_path / "nyu.mat"
    if content is not None:
        path.write_bytes(content)
    line = refused("finetune_nyud", *dense(tmp_path / "run", "--data.path", str(path)))
    assert reason in line
    assert str(path) in line
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if content is None else ["nyu.mat"])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file(share, refused, dense, rooms, tmp_path):
    path = copied(rooms, tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    before = contents(tmp_path)
    assert str(path) in refused("finetune_nyud", *dense(tmp_path / "run", "--data.path", str(path)))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(swap_axes, "'images'"), (no_depth, "frame 3 of 'depths'"), (foreign_label, "frame 4 of 'labels' holds id 9999")],
)
def test_a_file_with_wrong_content(damage, reason, refused, dense, rooms, tmp_path):
    path = copied(rooms, tmp_path)
    with h5py.File(path, "r+") as file:
        damage(file)
    before = contents(tmp_path)
    line = refused("finetune_nyud", *dense(tmp_path / "run", "--data.path", str(path)))
    assert reason in line
    assert str(path) in line
    assert contents(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_some_nan_depths_are_counted_and_left_out(tool, dense, rooms, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = copied(rooms, tmp_path)
    with h5py.File(path, "r+") as file:
        for frame in range(11):
            file["depths"][frame, :, :3] = np.nan
            file["depths"][frame, 3, 3] = -np.inf
    code, _, err = tool("finetune_nyud", *dense(tmp_path / "run", "--data.path", str(path)))
    assert code == 0, err
    report = json.loads((tmp_path / "run/report.json").read_text())
    per_frame = 64 * 3 + 1
    assert report["figures"]["valid_pixels"] == 3 * (32 * 64 - per_frame)
    assert np.isfinite(report["figures"]["rmse"])
    assert any(str(11 * per_frame) in record.message.replace(",", "") for record in caplog.records)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--train.step", "3"], "unknown option --train.step (did you mean 'train.steps'?)"),
        (["--task", "dpeth"], "did you mean 'depth'"),
        (["--task", "depth,depth"], "each task once"),
        (["--task", "depth,"], "unknown task ''"),
        (["--train.steps", "many"], "an integer"),
        (["--train.lr", "nan"], "finite"),
        (["--segmentation.classes", "41"], "40 or 13 or 894"),
        (["--config", "no.yaml"], "no.yaml"),
        (["--run.device", "tpu"], "unknown device 'tpu'"),
        (["--decoder.name", "Unett"], "did you mean 'unet'"),
        (["--decoder.name", "DPT"], "vision transformers"),
        (["--encoder.method", "os.system"], "unknown"),
        (["--encoder.weights", "resnet18-reactnet-room"], "unknown weights"),
        (["--encoder.weights", "no.safetensors"], "no such file of weights: no.safetensors"),
        (["--decoder.name", "PAN", "--data.size", "[32,32]"], "PAN"),
        (["--decoder.name", "DeepLabV3Plus", "--train.batch_size", "1"], "use a batch size of at least 2"),
        (["--data.path", "."], "is in no known layout"),
    ],
)
def test_finetuning_refuses(flags, reason, refused, dense, tmp_path):
    assert reason in refused("finetune_nyud", *dense(tmp_path / "run"), *flags)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--data.name", "imagenet"], "unknown image dataset 'imagenet'"),
        (["--network.backbone", "resnet50"], "unknown backbone 'resnet50'"),
        (["--network.method", "xnr"], "did you mean 'xnor'"),
        (["--data.path", "no/such/folder"], "no/such/folder"),
        (["--contrastive.mode", "nec"], "'nce' or 'infonce'"),
    ],
)
def test_pretraining_refuses(flags, reason, refused, classify, tmp_path):
    assert reason in refused("pretrain_cls", *classify(tmp_path / "run"), *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_key_in_a_file(refused, dense, tmp_path):
    (tmp_path / "recipe.yaml").write_text("train:\n  stepps: 3\n")
    line = refused("finetune_nyud", *dense(tmp_path / "run"), "--config", tmp_path / "recipe.yaml")
    assert "unknown key 'train.stepps' (did you mean 'train.steps'?)" in line
    assert "recipe.yaml" in line
    assert not (tmp_path / "run").exists()


def test_weights_of_another_network(refused, dense, tmp_path):
    path = tmp_path / "other.safetensors"
    save_backbone(path, create_backbone("resnet34", method="reactnet", num_classes=2), {})
    line = refused("finetune_nyud", *dense(tmp_path / "run"), "--encoder.weights", path)
    assert "tensors fit" in line
    assert "stages." in line
    assert "these are of resnet34 with reactnet, or begin with random ones: --encoder.weights none" in line
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_not_free(refused, dense, trained, tmp_path):
    folder = trained[0]
    before = contents(folder)
    assert "holds a run with train.steps = 4, this one has 5" in refused(
        "finetune_nyud", *dense(folder), "--train.steps", 5
    )
    with RunFolder.open(folder, (folder / "config.yaml").read_text()):
        assert "is in use by process" in refused("finetune_nyud", *dense(folder))
        assert "is in use by process" in refused("finetune_nyud", *dense(folder), "--run.overwrite")
    assert contents(folder) == before
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds no run" in refused("finetune_nyud", *dense(tmp_path))
    assert "is a file" in refused("finetune_nyud", *dense(tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_loss_that_is_not_finite_ends_with_code_1(refused, dense, tmp_path):
    flags = dense(tmp_path / "run", "--train.lr", "1e30", "--train.checkpoint_every", "1")
    line = refused("finetune_nyud", *flags, code=1)
    assert "is not finite" in line
    assert "lower train.lr" in line
    last = Checkpoints(tmp_path / "run/checkpoints").latest()
    assert f"the loss of step {last.step + 1} is not finite" in line
    assert not (tmp_path / "run/weights.safetensors").exists()
    assert not (tmp_path / "run/report.json").exists()


def test_poisoned_weights_are_found_and_the_checkpoint_stays(tool, refused, dense, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run/report.json").unlink()
    checkpoints = Checkpoints(tmp_path / "run/checkpoints")
    state = checkpoints.latest().state
    state["objective"] = {
        name: tensor * float("nan") if tensor.ndim == 4 else tensor for name, tensor in state["objective"].items()
    }
    path = checkpoints.save(2, state)
    before = path.read_bytes()
    line = refused("finetune_nyud", *dense(tmp_path / "run"), code=1)
    assert "the loss of step 3 is not finite" in line
    assert path.read_bytes() == before
    code, _, err = tool("finetune_nyud", *dense(tmp_path / "run"), "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_depth_range_that_holds_no_truth_is_refused_or_trained_without_nan(tool, dense, tmp_path):
    code, _, err = tool("finetune_nyud", *dense(tmp_path / "run", "--depth.max_depth", "0.2", "--train.steps", "1"))
    assert code == 2, err  # the mean depth of the data lies outside
    assert "mean_depth" in err
    assert torch.is_grad_enabled()
