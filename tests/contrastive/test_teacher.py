import copy

import pytest
import torch
from torch import nn

from densebnn.contrastive import TeacherMI
from densebnn.registry import UserError


def network(channels, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, channels, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


def batch(seed=0, index=(0, 3, 2, 5)):
    torch.manual_seed(seed)
    return {"image": torch.randn(4, 3, 5, 5), "index": torch.tensor(index), "target": torch.tensor([0, 1, 2, 0])}


def loss_of(term, student, seen_batch):
    with term.watch(student, seen_batch) as seen:
        student(seen_batch["image"])
    return term(seen)


@pytest.fixture
def student():
    return network(5, 0)


@pytest.fixture
def teacher():
    return network(4, 1).train()


def test_the_teacher_stays_as_it_is_and_network_and_heads_learn(student, teacher):
    before = copy.deepcopy(teacher.state_dict())
    term = TeacherMI(student, teacher, dim=4, bank=6, bank_negatives=20)
    loss_of(term, student, batch()).backward()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training
    assert student[0].weight.grad.abs().sum() > 0
    for head in (term.critic.latent_head, term.critic.binary_head):
        assert head.weight.grad.abs().sum() > 0
    assert not any("teacher" in name for name, _ in term.named_parameters())


def test_without_trained_heads_only_the_network_learns(student, teacher):
    term = TeacherMI(student, teacher, dim=4, bank=6, bank_negatives=20, train_heads=False)
    loss_of(term, student, batch()).backward()
    assert student[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in term.parameters())
    assert term.critic.released


def test_it_compares_what_the_classifiers_read(student, teacher):
    term, given = TeacherMI(student, teacher, dim=4), batch()
    with term.watch(student, given) as seen:
        student(given["image"])
    torch.testing.assert_close(seen[0].teacher, teacher[:4](given["image"]))
    assert torch.equal(seen[0].labels, given["target"])
    student.eval()
    with term.watch(student, given) as seen:
        student(given["image"])
    torch.testing.assert_close(seen[0].student, student[:4](given["image"]))


def test_cached_features_spare_the_teacher_and_are_saved(student, teacher):
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    term, given = TeacherMI(student, teacher, dim=4, cache=6), batch()
    first = loss_of(term, student, given)
    other = TeacherMI(student, teacher, dim=4, cache=6)
    other.load_state_dict(term.state_dict())
    for again in (term, other):
        again.critic.log_z.fill_(float("nan"))
        assert torch.equal(loss_of(again, student, given), first)
    assert len(calls) == 1
    loss_of(term, student, batch(index=(0, 1, 2, 4)))
    assert len(calls) == 2
    assert term.cache.known.all()
    with pytest.raises(UserError, match="indices"):
        loss_of(term, student, batch(index=(0, 1, 2, 6)))


def test_another_teachers_state_is_refused(student, teacher):
    term = TeacherMI(student, teacher, dim=4)
    with pytest.raises(UserError, match="other weights"):
        TeacherMI(student, network(4, 2), dim=4).load_state_dict(term.state_dict())


def test_networks_without_a_classifier_are_refused(student):
    with pytest.raises(UserError, match="no linear classifier"):
        TeacherMI(student, nn.Conv2d(3, 3, 1))
    with pytest.raises(UserError, match="takes no queue"):
        TeacherMI(student, network(4, 1), queue=3, bank=3)
