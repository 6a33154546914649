import base64
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from densebnn.engine.charts import confusion_chart, curve_chart, curves_of, distance_chart, images_chart

RECORDS = [
    {"step": step, "lr": 0.1, "loss": 1 / step, "depth": 1 / step, **({"eval": {"rmse": 2.0}} if step == 2 else {})}
    for step in range(1, 4)
]


def drawing(source):
    start = "data:image/svg+xml;base64,"
    assert source.startswith(start)
    return ElementTree.fromstring(base64.b64decode(source[len(start) :]))


def test_curves_of_a_log():
    charts = curves_of(RECORDS, {"depth": "rmse"})
    assert list(charts) == ["loss", "learning rate", "depth, held-out rmse"]
    assert charts["loss"] == {"loss": [(1, 1.0), (2, 0.5), (3, 1 / 3)]}  # the only part of it is not told twice
    assert charts["depth, held-out rmse"] == {"rmse": [(2, 2.0)]}
    several = {"step": 1, "loss": 3, "depth": 1, "segmentation": 2, "eval": {"depth": {"rmse": 1.0}}, "terms": {"a": 1}}
    charts = curves_of([several], {"depth": "rmse", "segmentation": "miou"})
    assert list(charts["loss"]) == ["loss", "depth", "segmentation"]
    assert list(charts) == ["loss", "depth, held-out rmse"]
    assert curves_of([], {}) == {}


def test_long_curves_are_averaged_to_some_hundred_points():
    long = [(step, 7.0) for step in range(100_000)]
    assert len(curve_chart("loss", {"loss": long})) < 100_000
    assert drawing(curve_chart("loss", {"loss": long[:1]})).tag.endswith("svg")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: curve_chart("loss", {"a": [(1, 2.0), (2, 1.0)], "b <&$x$>": [(1, 1.0)]}),
        lambda: distance_chart([{"from": 0.0, "to": 1.0, "pixels": 3, "rmse": 0.1, "abs_rel": 0.2}]),
        lambda: distance_chart([{"from": 10.0, "to": None, "pixels": 3, "rmse": 0.1, "abs_rel": 0.2}]),
        lambda: images_chart([[0, 0.5], [1, None], [2, 0.25]], "rmse"),
        lambda: images_chart([[0, 0.5]], "rmse"),
        lambda: confusion_chart(["wall", "$\\frac$ <b>"], [[3, 1], [0, 0]]),
        lambda: confusion_chart([f"class {n}" for n in range(41)], np.eye(41, dtype=int).tolist()),
    ],
)
def test_every_chart_is_a_drawing_and_the_same_bytes_each_time(draw):
    source = draw()
    assert drawing(source).tag.endswith("svg")
    assert source == draw()
