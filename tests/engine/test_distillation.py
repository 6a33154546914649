import pytest
import torch
from torch import nn

from densebnn.backbones import create_backbone
from densebnn.binary import set_modes
from densebnn.engine.distillation import Distillation, FeatureDistillation
from densebnn.engine.objective import Objective
from densebnn.engine.recipe import LossConfig
from densebnn.registry import UserError
from densebnn.tasks import (
    Classification,
    attention_matching,
    feature_matching,
    logit_distillation,
    mixed_distillation,
)
from densebnn.weights import fingerprint


def network(seed, **modes):
    torch.manual_seed(seed)
    model = create_backbone("resnet20", method="reactnet", num_classes=3)
    set_modes(model, **modes)
    return model


@pytest.fixture
def batch():
    torch.manual_seed(9)
    return {"image": torch.randn(4, 3, 16, 16), "target": torch.tensor([0, 1, 2, 1])}


def seen_by(term, model, batch):
    with term.watch(model, batch) as seen:
        model(batch["image"])
    return seen


def test_one_teacher_several_and_attention_add_up(batch):
    student, teachers = network(0), [network(1, weights="real"), network(2)]
    term = Distillation(LossConfig(logits=2.0, attention=5.0, temperature=3.0), teachers[:1], ["a"])
    logits = teachers[0](batch["image"])
    matched = attention_matching(student.features(batch["image"])[1:], teachers[0].features(batch["image"])[1:])
    expected = 2 * logit_distillation(student(batch["image"]), logits, 3.0) + 5 * matched
    torch.testing.assert_close(term(seen_by(term, student, batch)), expected)
    assert matched > 0
    term = Distillation(LossConfig(logits=1.0), teachers, ["a", "b"])
    expected = mixed_distillation(student(batch["image"]), [teacher(batch["image"]) for teacher in teachers])
    torch.testing.assert_close(term(seen_by(term, student, batch)), expected)


def test_teachers_are_frozen_and_see_a_batch_once(batch):
    student, teacher = network(0), network(1)
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(teacher.training))
    before = fingerprint(teacher)
    term = Distillation(LossConfig(logits=1.0, attention=1.0), [teacher], ["a"])
    objective = Objective(student, Classification(3), {"distillation": (term, 1.0)}, task_weight=0.0)
    objective.train()
    losses = objective(batch)
    losses["loss"].backward()
    assert losses["loss"].item() == losses["distillation"].item() > 0
    assert calls == [False]
    assert fingerprint(teacher) == before
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert student.stem.conv.weight.grad.abs().sum() > 0
    assert {id(p) for p in objective.parameters()} == {id(p) for p in student.parameters()}
    assert not any(module._forward_hooks for module in student.modules())


def test_a_resumed_run_needs_the_same_teachers():
    losses = LossConfig(logits=1.0)
    state = Distillation(losses, [network(1)], ["a"]).state_dict()
    assert state == {"_extra_state": fingerprint(network(1))}
    Distillation(losses, [network(1)], ["a"]).load_state_dict(state)
    with pytest.raises(UserError, match=r"the teachers \(b\) have other weights"):
        Distillation(losses, [network(2)], ["b"]).load_state_dict(state)


def test_attention_needs_stages():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(UserError, match="the teacher plain has no stages"):
        Distillation(LossConfig(attention=1.0), [plain], ["plain"])
    with pytest.raises(UserError, match="the network has no stages"):
        FeatureDistillation(plain, network(0), "a")
    Distillation(LossConfig(logits=1.0), [plain], ["plain"])


def test_features_are_regressed_onto_a_wider_teachers_and_the_regressors_learn(batch):
    torch.manual_seed(3)
    student, teacher = network(0), create_backbone("resnet18_cifar", method="reactnet", num_classes=5)
    term = FeatureDistillation(student, teacher, "a")
    assert [tuple(conv.weight.shape[:2]) for conv in term.regressors] == [(64, 16), (128, 32), (256, 64)]
    loss = term(seen_by(term, student, batch))
    own = [regress(f) for regress, f in zip(term.regressors, student.features(batch["image"])[1:], strict=True)]
    torch.testing.assert_close(loss, feature_matching(own, teacher.features(batch["image"])[1:4]))
    before = fingerprint(teacher)
    loss.backward()
    assert all(conv.weight.grad.abs().sum() > 0 for conv in term.regressors)
    assert student.stem.conv.weight.grad.abs().sum() > 0
    assert fingerprint(teacher) == before
    assert set(term.state_dict()) == {
        "_extra_state",
        *(f"regressors.{i}.{n}" for i in range(3) for n in ("weight", "bias")),
    }
