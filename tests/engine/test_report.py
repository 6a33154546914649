from pathlib import Path

import torch

from densebnn.engine.report import figure_tables, finished, metric_table, table
from densebnn.engine.run_folder import RunFolder
from densebnn.engine.runtime import Runtime


def test_table_aligns_the_first_column_to_the_left_and_others_to_the_right():
    text = table([("a", "1.5", "x"), ("longer", "10", "yy")], ("name", "n", "what"))
    assert text.splitlines() == [
        "name      n  what",
        "------  ---  ----",
        "a       1.5     x",
        "longer   10    yy",
    ]


def test_figures_have_four_digits_counts_none_and_lists_are_left_out():
    text = metric_table({"rmse": 0.123456, "images": 3, "miou": None, "per_class": [0.1, 0.2]}, "depth")
    assert [line.split() for line in text.splitlines()] == [
        ["depth", "value"],
        ["------", "------"],
        ["rmse", "0.1235"],
        ["images", "3"],
        ["miou", "-"],
    ]


def test_the_end_of_a_run_is_printed_by_the_first_process_alone(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("")
    run = RunFolder.attach(tmp_path)
    report = {"task": "depth", "figures": {"rmse": 0.5}, "protocol": "all pixels"}
    finished(run, report, Runtime(torch.device("cpu"), rank=1, world=2), ["python next.py"])
    assert capsys.readouterr().out == ""
    finished(run, report, Runtime(torch.device("cpu")), ["python next.py", "python other.py"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "protocol: all pixels",
        f"run folder: {Path(tmp_path)}",
        "next:",
        "  python next.py",
        "  python other.py",
    ]
    finished(run, {"task": "depth", "figures": {}}, Runtime(torch.device("cpu")), [])
    assert "protocol" not in capsys.readouterr().out


def test_each_of_several_tasks_has_a_table_and_its_protocol():
    report = {
        "task": "segmentation,depth",
        "headline": {"segmentation": "miou", "depth": "rmse"},
        "figures": {"segmentation": {"miou": 0.25}, "depth": {"rmse": 0.5}},
        "protocol": {"segmentation": "whole frame", "depth": "a region"},
    }
    labels, depth = figure_tables(report).split("\n\n")
    assert labels.splitlines()[0].split() == ["segmentation", "value"]
    assert labels.splitlines()[-1] == "protocol: whole frame"
    assert depth.splitlines()[-2:] == ["rmse   0.5000", "protocol: a region"]
