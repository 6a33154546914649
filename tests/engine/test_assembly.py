import numpy as np
import pytest
import torch

from densebnn.data import DenseEval
from densebnn.engine.assembly import (
    build_predictor,
    build_task,
    build_weighting,
    describe_protocol,
    open_frames,
    with_class_weights,
)
from densebnn.engine.cli import parse
from densebnn.engine.config import FinetuneConfig
from densebnn.registry import UserError
from densebnn.tasks import UncertaintyWeights, balanced_weights
from densebnn.tasks.losses import gradient_matching, silog


def configured(flags):
    return parse(FinetuneConfig, flags, prog="", description="")[0]


def test_a_network_that_says_nothing_predicts_the_mean_depth_of_the_training_frames(dense):
    config = configured(dense("run"))
    train, test = (open_frames(config, config.data, split) for split in ("train", "test"))
    depths = np.concatenate([train[index]["depth"].ravel() for index in range(len(train))])
    for frames in (train, test):  # the test frames know the training frames' mean, not their own
        said = build_task(config, frames).head()(torch.zeros(1, 1, 2, 2))
        torch.testing.assert_close(said, torch.full((1, 1, 2, 2), float(depths[depths > 0].mean())), rtol=1e-5, atol=0)


def test_only_the_fields_that_are_read_are_loaded(rooms, dense):
    def fields(*flags):
        config = configured(dense("run", *flags))
        return open_frames(config, config.data, "test").fields

    assert fields("--task", "segmentation") == ("image", "label")
    assert fields("--depth.protocol", "laina") == ("image", "depth")
    assert set(fields("--depth.ground_truth", "raw_depth", "--depth.protocol", "laina")) == {
        "image",
        "depth",
        "raw_depth",
    }


@pytest.mark.parametrize("task", ["segmentation", "depth", "normals", "edges", "edges,normals,depth,segmentation"])
def test_network_task_and_frames_fit_together(task, dense):
    config = configured(dense("run", "--task", task, "--decoder.name", "Linknet"))
    frames = open_frames(config, config.data, "test")
    built = build_task(config, frames)
    assert set(built.fields) < set(frames.fields)
    model = build_predictor(config, built).eval()
    batch = {name: value[None] for name, value in DenseEval()(frames[0], 0).items()}
    losses = built.losses(model(batch["image"]), batch)
    assert ",".join(losses) == ",".join(config.tasks)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_the_depth_head_and_its_bins_are_those_asked_for(dense):
    flags = ["--depth.head", "bins_log", "--depth.bins", "12", "--decoder.name", "Linknet"]
    config = configured(dense("run", *flags, "--depth.loss", "silog+0.5*gradient", "--depth.silog_focus", "0.5"))
    frames = open_frames(config, config.data, "test")
    task = build_task(config, frames)
    assert task.out_channels == 12
    prediction, truth = torch.rand(1, 1, 8, 8) + 1, torch.rand(1, 8, 8) + 1
    valid = torch.ones_like(truth, dtype=torch.bool)
    expected = silog(prediction[:, 0], truth, valid, 0.5) + 0.5 * gradient_matching(prediction[:, 0], truth, valid)
    torch.testing.assert_close(task.loss(prediction, {"depth": truth}), expected)
    model = build_predictor(config, task).eval()
    assert model(torch.rand(1, 3, 32, 64)).shape == (1, 1, 32, 64)


def test_balanced_class_weights_are_counted_over_the_training_labels(dense):
    config = configured(dense("run", "--task", "segmentation", "--segmentation.class_weights", "balanced"))
    frames = open_frames(config, config.data, "train")
    weights = with_class_weights(config, frames).segmentation.class_weights
    labels = np.concatenate([frames[index]["label"].ravel() for index in range(len(frames))])
    counts = [(labels == number).sum() for number in range(13)]
    assert weights == pytest.approx(balanced_weights(counts))
    assert len(set(weights)) > 3
    plain = configured(dense("run", "--task", "segmentation"))
    assert with_class_weights(plain, frames) is plain
    given = configured(dense("run", "--task", "segmentation", "--segmentation.class_weights", "[1,2]"))
    with pytest.raises(UserError, match="2 class weights for 13 classes"):
        build_task(given, frames)


def test_one_task_has_no_weight_and_several_have_those_that_were_asked_for(dense):
    def weighting(*flags):
        config = configured(dense("run", *flags))
        return build_weighting(config, build_task(config, open_frames(config, config.data, "test")))

    assert weighting("--weights.depth", "3.0") is None
    assert weighting("--task", "segmentation,depth", "--weights.depth", "3.0").weights == {
        "segmentation": 1,
        "depth": 3,
    }
    learned = weighting("--task", "segmentation,depth", "--weights.by", "uncertainty")
    assert isinstance(learned, UncertaintyWeights)
    assert learned.factors == {"segmentation": 1.0, "depth": 0.5}


def test_every_task_tells_its_protocol(dense):
    def told(task):
        config = configured(dense("run", "--task", task))
        return describe_protocol(build_task(config, open_frames(config, config.data, "test")))

    assert told("segmentation,depth") == {"segmentation": told("segmentation"), "depth": told("depth")}
