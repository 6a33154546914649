"""Runs side by side: nothing stands in one column that is not the same figure."""

import json

import numpy as np
import pytest
from PIL import Image

from densebnn.engine.cli import parse
from densebnn.engine.compare_config import CompareConfig
from densebnn.engine.comparison import compare
from densebnn.registry import UserError

LAINA, EIGEN = "laina: whole frame", "eigen: region"


def run(folder, rmse, *, protocol=LAINA, data="rooms", steps=3, evals=(), **report):
    """A finished run of depth as its folder tells it."""
    folder.mkdir(parents=True)
    config = {"task": "depth", "data": {"path": str(data)}, "depth": {"protocol": protocol[:5]}}
    (folder / "config.yaml").write_text(json.dumps({**config, "train": {"steps": steps, "seed": 0}}))
    records = [{"step": step, "loss": 1 / (step + (rmse or 0))} for step in range(1, 400)]
    records[-1]["eval"] = {"rmse": rmse}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    told = {"task": "depth", "headline": "rmse", "figures": {"rmse": rmse, "delta1": 0.5, "images": 7}}
    (folder / "report.json").write_text(json.dumps({**told, "protocol": protocol, "test_samples": 7, **report}))
    for number, (described, value) in enumerate(evals):
        found = {**told, "figures": {"rmse": value, "images": 7}, "protocol": described, "data": str(data)}
        (folder / f"eval-{number}.json").write_text(json.dumps({**found, "split": "test"}))
    return folder


def compared(*runs, **options):
    return compare(CompareConfig(tuple(runs), **options))


def test_one_protocol_is_one_column_and_the_best_is_marked(tmp_path):
    found = compared(run(tmp_path / "a", 0.5, steps=3), run(tmp_path / "b", 0.25, steps=4), run(tmp_path / "c", None))
    assert found.names == ["a", "b", "c"]
    (column,) = found.columns
    assert (column.headline, found.best[column]) == ("depth rmse (laina)", False)
    assert [row[column] for row in found.rows] == [0.5, 0.25, None]
    assert [found.is_best(number, column) for number in range(3)] == [False, True, False]
    assert found.differences == {"train.steps": [3, 4, 3]}
    text = found.text()
    assert [line.split() for line in text.splitlines()[2:5]] == [["a", "0.5000"], ["b", "*0.2500"], ["c", "-"]]
    assert "[1] laina: whole frame; on rooms, test, 7 images" in text


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": EIGEN},
        {"data": "elsewhere.mat"},
        {"protocol": "laina: whole frame; the mean with the flipped image"},
        {"figures": {"rmse": 0.25, "images": 8}},
        {"figures": {"rmse": 0.25, "images": 7, "per_class_iou": [0.5] * 13}},
    ],
    ids=["protocol", "data", "flip", "images", "classes"],
)
def test_what_differs_stands_apart_and_none_is_better(other, tmp_path):
    found = compared(run(tmp_path / "a", 0.5), run(tmp_path / "b", 0.25, **other))
    assert len(found.columns) == 2
    assert [len(row) for row in found.rows] == [1, 1]
    assert not any(found.is_best(row, column) for row in range(2) for column in found.columns)
    assert "[2]" in found.text()


def test_evaluations_bring_runs_under_one_protocol(tmp_path):
    one = run(tmp_path / "a", 0.5, evals=[(EIGEN, 0.3)])
    two = run(tmp_path / "b", 0.4, protocol=EIGEN)
    (two / "eval-broken.json").write_text("{")
    (two / "eval-old.json").write_text('{"task": "depth"}')
    found = compared(one, two)
    first, second = found.columns
    assert first.headline == "depth rmse (eigen)"  # the one that both have
    assert [row.get(first) for row in found.rows] == [0.3, 0.4]
    assert [row.get(second) for row in found.rows] == [0.5, None]


def test_two_spellings_of_the_same_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nyu.mat").write_bytes(b"")
    found = compared(run(tmp_path / "a", 0.5, data="nyu.mat"), run(tmp_path / "b", 0.4, data=tmp_path / "nyu.mat"))
    (column,) = found.columns
    assert column.data == "nyu.mat"
    assert list(found.differences) == ["data.path"]


def test_runs_of_one_name_and_more_figures(tmp_path):
    runs = [run(tmp_path / "x/run", 0.5), run(tmp_path / "y/run", 0.4)]
    found = compared(*runs, figures="delta1")
    assert found.names == ["x/run", "y/run"]
    assert [column.figure for column in found.columns] == ["rmse", "delta1"]
    assert found.best[found.columns[1]] is None
    assert {column.figure for column in compared(*runs, figures="all").columns} == {"rmse", "delta1", "images"}
    with pytest.raises(UserError, match="no run has a figure 'delta'"):
        compared(*runs, figures="delta")


def test_what_is_refused(tmp_path):
    one = run(tmp_path / "a", 0.5)
    (tmp_path / "open").mkdir()
    (tmp_path / "open/config.yaml").write_text("task: depth\n")
    for given in ((), (one,), (one, tmp_path / "b/../a")):
        with pytest.raises(UserError, match="expected two or more folders of finished runs, each once"):
            compared(*given)
    with pytest.raises(UserError, match="not finished"):
        compared(one, tmp_path / "open")
    with pytest.raises(UserError, match="is not a run folder"):
        compared(one, tmp_path)


def test_the_tool_with_a_real_run_of_another_task(tool, trained, tmp_path):
    several = run(tmp_path / "several", 0.5)
    report = json.loads((several / "report.json").read_text())
    report |= {
        "headline": {"segmentation": "miou", "depth": "rmse"},
        "figures": {"segmentation": {"miou": 0.4, "per_class_iou": [0.4] * 13, "images": 3}, "depth": {"rmse": 0.5}},
        "protocol": {"segmentation": "full: whole|frame", "depth": "laina: $x$ <b>"},
    }
    (several / "report.json").write_text(json.dumps(report))
    code, out, err = tool("compare", trained[0], several, "--out", tmp_path / "out", "--figures", "all")
    assert (code, err) == (0, "")
    assert "segmentation miou (full)" in out
    assert f"{trained[1]['figures']['rmse']:.4f}" in out
    assert out.splitlines()[-1] == f"written to {tmp_path / 'out'}: comparison.md, comparison.json, comparison.png"
    text = (tmp_path / "out/comparison.md").read_text()
    assert "full: whole\\|frame" in text
    assert "<b>" not in text
    data = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [len(run["figures"]) for run in data["runs"]] == 2 * [len(data["columns"])]
    assert data["runs"][0]["cost"]["binary share of multiply-adds"] > 0
    pixels = np.array(Image.open(tmp_path / "out/comparison.png").convert("RGB"))
    assert pixels.std() > 10
    code, _, err = tool("compare", trained[0], several, "--out", trained[0] / "config.yaml")
    assert code == 2
    assert "cannot write" in err


def test_runs_are_given_without_a_flag_or_with_one(tmp_path):
    def runs(*argv):
        return [str(path) for path in parse(CompareConfig, argv, prog="", description="", positional="runs")[0].runs]

    assert runs("a", "b,c", "--figures", "all", "d e") == ["a", "b,c", "d e"]
    assert runs("--runs", "[a, b]") == ["a", "b"]
    assert runs("a") == ["a"]
    with pytest.raises(UserError, match="unexpected argument 'a'"):
        parse(CompareConfig, ["a"], prog="", description="")
