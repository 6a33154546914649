import numpy as np
import pytest
import torch

from densebnn.engine.assembly import build_predictor, build_task, build_weighting, describe_protocol, open_frames
from densebnn.engine.cli import parse
from densebnn.engine.config import FinetuneConfig
from densebnn.tasks import UncertaintyWeights


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


@pytest.mark.parametrize("task", ["segmentation", "depth", "depth,segmentation"])
def test_network_task_and_frames_fit_together(task, dense):
    config = configured(dense("run", "--task", task, "--decoder.name", "Linknet"))
    frames = open_frames(config, config.data, "test")
    built = build_task(config, frames)
    assert set(built.fields) < set(frames.fields)
    model = build_predictor(config, built).eval()
    truth = {name: torch.as_tensor(value)[None] for name, value in frames[0].items() if name != "index"}
    image = truth["image"].permute(0, 3, 1, 2) / 255
    losses = built.losses(model(image), {**truth, "label": truth["label"].long()} if "label" in truth else truth)
    assert ",".join(losses) == ",".join(config.tasks)
    assert all(torch.isfinite(loss) for loss in losses.values())


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
