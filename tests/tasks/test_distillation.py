import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from densebnn.registry import UserError
from densebnn.tasks import (
    Depth,
    Edges,
    Normals,
    Segmentation,
    attention_matching,
    feature_matching,
    logit_distillation,
    mixed_distillation,
    soft_cross_entropy,
)
from densebnn.tasks.distillation import edge_distillation

random = np.random.default_rng(0)
STUDENT, TEACHER, OTHER = (random.normal(0, 3, (5, 7)) for _ in range(3))


def tensor(array):
    return torch.from_numpy(array).requires_grad_()


def cross_entropy(student, teacher):
    return -(softmax(teacher, 1) * log_softmax(student, 1)).sum(1)


def test_the_distributional_loss():
    found = soft_cross_entropy(tensor(STUDENT), tensor(TEACHER))
    np.testing.assert_allclose(found.detach(), cross_entropy(STUDENT, TEACHER), rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_are_distilled_by_a_scaled_divergence(temperature):
    s, t = softmax(STUDENT / temperature, 1), softmax(TEACHER / temperature, 1)
    expected = temperature**2 * (t * np.log(t / s)).sum(1).mean()
    student, teacher = tensor(STUDENT), tensor(TEACHER)
    found = logit_distillation(student, teacher, temperature)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    np.testing.assert_allclose(student.grad, temperature * (s - t) / len(s), rtol=1e-9, atol=1e-15)
    assert teacher.grad is None
    assert logit_distillation(teacher, teacher, temperature).item() == 0


def test_at_temperature_1_both_have_one_gradient():
    one, two = tensor(STUDENT), tensor(STUDENT)
    logit_distillation(one, tensor(TEACHER)).backward()
    soft_cross_entropy(two, tensor(TEACHER)).mean().backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_of_several_teachers_the_farther_one_counts_more(temperature):
    losses = np.stack([cross_entropy(STUDENT / temperature, t / temperature) for t in (TEACHER, OTHER)], 1)
    mix = softmax(losses, 1)
    student = tensor(STUDENT)
    found = mixed_distillation(student, [tensor(TEACHER), tensor(OTHER)], temperature)
    assert found.item() == pytest.approx(temperature**2 * (mix * losses).sum(1).mean() / 2, rel=1e-12)
    found.backward()
    gaps = [softmax(STUDENT / temperature, 1) - softmax(t / temperature, 1) for t in (TEACHER, OTHER)]
    gradient = temperature * sum(mix[:, [k]] * gaps[k] for k in range(2)) / (2 * len(STUDENT))
    np.testing.assert_allclose(student.grad, gradient, rtol=1e-9, atol=1e-15)  # the mix is a constant


@pytest.mark.parametrize("norm", ["max", "l2"])
def test_attention_maps_are_matched(norm):
    shapes = [(2, 3, 4, 5), (2, 6, 2, 2)]
    students = [random.normal(size=shape) for shape in shapes]
    teachers = [random.normal(size=(shape[0], 8, *shape[2:])) for shape in shapes]

    def attention(features):
        flat = (features**2).mean(1).reshape(len(features), -1)
        size = flat.max(1) if norm == "max" else np.sqrt((flat**2).sum(1))
        return flat / size[:, None]

    expected = np.mean([((attention(s) - attention(t)) ** 2).mean() for s, t in zip(students, teachers, strict=True)])
    student, teacher = [tensor(s) for s in students], [tensor(t) for t in teachers]
    found = attention_matching(student, teacher, norm)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert all(s.grad.abs().sum() > 0 for s in student)
    assert all(t.grad is None for t in teacher)
    assert attention_matching(student, student, norm).item() == 0


def test_features_of_zero_have_an_attention_of_zero():
    zeros = torch.zeros(1, 2, 3, 3, requires_grad=True)
    loss = attention_matching([zeros], [torch.ones(1, 4, 3, 3)])
    loss.backward()
    assert loss.item() == 1
    assert zeros.grad.isfinite().all()


def test_directions_of_features_are_matched():
    shapes = [(2, 3, 4, 5), (2, 6, 2, 2)]
    students, teachers = ([random.normal(size=shape) for shape in shapes] for _ in range(2))

    def direction(features):
        return features / np.sqrt((features**2).sum(1, keepdims=True))

    gaps = [((direction(s) - direction(t)) ** 2).sum(1).mean() for s, t in zip(students, teachers, strict=True)]
    student, teacher = [tensor(s) for s in students], [tensor(t) for t in teachers]
    found = feature_matching(student, teacher)
    assert found.item() == pytest.approx(np.mean(gaps), rel=1e-12)
    found.backward()
    assert all(s.grad.abs().sum() > 0 for s in student)
    assert all(t.grad is None for t in teacher)
    assert feature_matching(student, [3 * s for s in student]).item() == pytest.approx(0, abs=1e-12)
    assert feature_matching([torch.ones(1, 2, 4, 4)], [torch.ones(1, 2, 2, 3)]).item() == pytest.approx(0, abs=1e-6)


def test_maps_of_another_resolution_are_refused():
    with pytest.raises(UserError, match="cannot be matched"):
        attention_matching([torch.ones(1, 2, 3, 3)], [torch.ones(1, 2, 4, 4)])


def test_half_precision_is_computed_in_float32():
    student, teacher = torch.from_numpy(STUDENT).half(), torch.from_numpy(TEACHER).half()
    assert soft_cross_entropy(student, teacher).dtype == torch.float32
    assert logit_distillation(student, teacher).item() == pytest.approx(
        (cross_entropy(STUDENT, TEACHER) - cross_entropy(TEACHER, TEACHER)).mean(), rel=0.01
    )


def divergence_of_maps(own, aim, temperature):
    p, q = softmax(aim / temperature, 1), softmax(own / temperature, 1)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean()


def divergence_of_edges(own, aim, temperature):
    two = [np.stack([x, np.zeros_like(x)], axis=1) for x in (own, aim)]  # the logit of none is 0
    return divergence_of_maps(*two, temperature)


RETOLD = {
    "segmentation": (lambda: Segmentation(5), divergence_of_maps),
    "edges": (Edges, divergence_of_edges),
    "depth": (Depth, lambda own, aim, temperature: np.abs(np.log(own) - np.log(aim)).mean()),
    "normals": (Normals, lambda own, aim, temperature: (1 - (own * aim).sum(axis=1)).mean()),
}


@pytest.mark.parametrize("name", RETOLD)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distance_to_a_dense_teacher_equals_numpy(name, temperature):
    make, retold = RETOLD[name]
    task = make()
    torch.manual_seed(0)
    raw = torch.randn(2, task.out_channels, 6, 8, requires_grad=True)
    own, aim = task.head()(raw), task.head()(2 * torch.randn(2, task.out_channels, 6, 8)).requires_grad_()
    found = task.distillation(own, aim, temperature)
    expected = retold(own.detach().double().numpy(), aim.detach().double().numpy(), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert raw.grad.abs().sum() > 0
    assert aim.grad is None
    assert task.distillation(own, own, temperature).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", RETOLD)
def test_a_dense_teacher_of_another_size_is_resized_and_bf16_is_compared_in_float32(name):
    task = RETOLD[name][0]()
    own, aim = (task.head()(torch.randn(2, task.out_channels, *size)) for size in ((6, 8), (12, 16)))
    assert task.distillation(own, aim).ndim == 0
    smooth = task.head()(
        torch.ones(2, task.out_channels, 3, 4) * torch.arange(1.0, 1 + task.out_channels).view(-1, 1, 1)
    )
    large = torch.nn.functional.interpolate(smooth, (6, 8), mode="nearest")
    torch.testing.assert_close(task.distillation(own, smooth), task.distillation(own, large))
    small = task.distillation(own.bfloat16(), aim.bfloat16())
    assert small.dtype == torch.float32
    assert small.item() == pytest.approx(task.distillation(own, aim).item(), rel=0.05)


def test_edges_are_two_classes():
    own, aim = torch.randn(3, 1, 4, 5), torch.randn(3, 1, 4, 5)
    two = [torch.cat([x, torch.zeros_like(x)], dim=1) for x in (own, aim)]
    torch.testing.assert_close(edge_distillation(own, aim, 2.0), logit_distillation(*two, 2.0))
    extreme = torch.tensor([[[[200.0, -200.0]]]], requires_grad=True)
    edge_distillation(extreme, -extreme.detach()).backward()
    assert torch.isfinite(extreme.grad).all()
