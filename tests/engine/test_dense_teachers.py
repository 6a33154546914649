"""A finished dense run as the teacher of another one."""

import shutil

import pytest
import torch

from densebnn.engine import finetune as module
from densebnn.engine.checkpoint import Checkpoints
from densebnn.engine.cli import parse
from densebnn.engine.config import FinetuneConfig
from densebnn.engine.dense_distillation import DenseDistillation
from densebnn.engine.dense_teachers import open_any_teacher
from densebnn.engine.distillation import FeatureDistillation
from densebnn.engine.finetune import finetune
from densebnn.engine.finished import open_finished
from densebnn.registry import UserError
from densebnn.tasks import Depth, MultiTask, Segmentation
from densebnn.weights import fingerprint

NETWORK = ("--decoder.name", "Linknet")


def configured(flags):
    return parse(FinetuneConfig, flags, prog="", description="")[0]


@pytest.fixture(scope="module")
def twin(dense, runtime, tmp_path_factory):
    """The folder of a finished real-valued run of two tasks."""
    flags = ["--task", "segmentation,depth", *NETWORK, "--decoder.shared", "--train.steps", "1"]
    flags += ["--train.weights", "real", "--train.activations", "real"]
    return finetune(configured(dense(tmp_path_factory.mktemp("twin") / "run", *flags)), runtime)[0].path


class Frames:
    class_names, ignore_index = ("a", "b", "c"), 255


def test_a_teacher_is_the_network_of_its_run(twin, tmp_path):
    finished = open_finished(twin)
    by_folder = open_any_teacher(str(twin), Frames(), (32, 64), ("depth",)).eval()
    by_file = open_any_teacher(str(twin / "weights.safetensors"), Frames(), (32, 64), ("depth",)).eval()
    assert fingerprint(by_folder) == fingerprint(by_file)
    task = MultiTask([Segmentation(13), Depth(mean_depth=3.0)])
    image = torch.randn(1, 3, 32, 64)
    assert by_folder.encoder is by_folder.predictor.encoder
    with torch.no_grad():
        found, expected = by_folder(image), finished.predictor(task).eval()(image)
    assert list(found) == ["segmentation", "depth"]
    assert all(torch.equal(found[name], expected[name]) for name in found)  # its head has the range of its run
    assert list(by_folder.common) == ["depth"]
    modes = {(m.weight_mode, m.activation_mode) for m in by_folder.modules() if hasattr(m, "weight_mode")}
    assert modes == {("real", "real")}


@pytest.mark.parametrize("student", [("depth",), ("segmentation",), ("segmentation", "depth", "edges")])
def test_distances_of_the_tasks_that_both_have_are_added_up(student, twin):
    teacher = open_any_teacher(str(twin), Frames(), (32, 64), student).eval()
    term = DenseDistillation(teacher, "twin", temperature=2.0)
    image = torch.randn(2, 3, 32, 64)
    aim = teacher(image)
    own = {"depth": aim["depth"] * 1.5, "segmentation": -aim["segmentation"], "edges": aim["depth"]}

    class Student(torch.nn.Module):
        def forward(self, x):
            return own[student[0]] if len(student) == 1 else {name: own[name] for name in student}

    model = Student()
    with term.watch(model, {"image": image}) as seen:
        model(image)
    expected = [part.distillation(own[name], aim[name], 2.0) for name, part in teacher.tasks.items() if name in student]
    torch.testing.assert_close(term(seen), sum(expected))
    if student == ("depth",):
        assert term(seen).item() == pytest.approx(0.405465, rel=1e-4)  # ln 1.5
    assert not model._forward_hooks
    assert set(term.state_dict()) == {"_extra_state"}
    assert list(term.parameters()) == []


TERMS = (
    *("--encoder.bottleneck", "deepest", "--terms.bottleneck.weight", "0.01"),
    *("--terms.features.weight", "2", "--terms.logits.weight", "0.5", "--terms.logits.temperature", "2"),
)


def test_features_and_predictions_are_distilled_in_bf16_and_a_killed_run_goes_on(
    twin, dense, runtime, tmp_path, monkeypatch
):
    flags = ["--task", "segmentation,depth", *NETWORK, *TERMS, "--train.precision", "bf16", "--data.size", "[32,64]"]
    flags += ["--decoder.shared", "--train.steps", "2", "--train.checkpoint_every", "1"]
    flags += ["--terms.features.teacher", str(twin), "--terms.logits.teacher", str(twin)]
    run, whole = finetune(configured(dense(tmp_path / "whole", *flags)), runtime)
    for record in run.records():
        parts = {"segmentation": 1, "depth": 1, "bottleneck": 0.01, "features": 2, "logits": 0.5}
        assert record["loss"] == pytest.approx(sum(w * record[name] for name, w in parts.items()), rel=1e-4)
        assert all(record[name] > 0 for name in parts)

    class Killed(BaseException):
        pass

    def log(self, record, **options):
        if record["step"] > 1:
            raise Killed
        return real(self, record, **options)

    real = module.RunFolder.log
    monkeypatch.setattr(module.RunFolder, "log", log)
    with pytest.raises(Killed):
        finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    monkeypatch.setattr(module.RunFolder, "log", real)
    _, report = finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    assert report["weights_sha256"] == whole["weights_sha256"]
    states = [Checkpoints(tmp_path / folder / "checkpoints").latest().state for folder in ("whole", "run")]
    assert fingerprint(states[0]) == fingerprint(states[1])


def test_a_student_of_another_task_and_other_classes_learns_from_features(twin, dense, runtime, tmp_path):
    flags = ["--task", "segmentation", "--segmentation.classes", "40", *NETWORK, "--train.steps", "1"]
    flags += ["--terms.features.teacher", str(twin)]
    run, _ = finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    (record,) = run.records()
    assert record["loss"] == pytest.approx(record["segmentation"] + record["features"], rel=1e-5)
    teacher = open_any_teacher(str(twin), Frames(), (32, 64), ("edges",))
    assert len(FeatureDistillation(teacher.predictor, teacher, "twin").regressors) == 4


def test_what_cannot_be_is_refused_before_there_is_a_folder(twin, dense, runtime, tmp_path):
    shutil.copytree(twin, tmp_path / "unfinished")
    (tmp_path / "unfinished/weights.safetensors").unlink()
    (tmp_path / "empty").mkdir()
    for task, term, teacher, reason in (
        ("edges", "logits", twin, "predicts segmentation, depth, this network edges: terms.logits needs a task that"),
        ("depth", "features", tmp_path / "unfinished", "holds no weights.safetensors: its run is not finished"),
        ("depth", "features", tmp_path / "empty", r"expected the folder of a run of finetune_nyud\.py"),
        ("depth", "features", "runs/nowhere", "unknown teacher 'runs/nowhere'"),
        ("depth", "bottleneck", "", r"give --encoder\.bottleneck deepest or all"),
    ):
        flags = dense(tmp_path / "run", "--task", task, f"--terms.{term}.weight", "1")
        flags += [f"--terms.{term}.teacher", str(teacher)] if teacher else []
        with pytest.raises(UserError, match=reason):
            finetune(configured(flags), runtime)
    with pytest.raises(UserError, match=r"whose weight is to be given: --terms\.bottleneck\.weight 0\.01, or 0"):
        finetune(configured(dense(tmp_path / "run", "--encoder.bottleneck", "all")), runtime)
    assert not (tmp_path / "run").exists()


def test_a_bottleneck_of_weight_0_is_noise_alone(dense, runtime, tmp_path):
    flags = [*NETWORK, "--encoder.bottleneck", "all", "--terms.bottleneck.weight", "0", "--train.steps", "1"]
    run, _ = finetune(configured(dense(tmp_path / "run", *flags)), runtime)
    (record,) = run.records()
    assert record["loss"] == record["depth"]
    assert "bottleneck" not in record
