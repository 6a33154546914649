import json
import math
import os
import subprocess
import sys
import time

import pytest

from densebnn.engine.ablation import AblateConfig, RowConfig, cells_of, run_cells
from densebnn.engine.ablation_table import tabulate, write_table
from densebnn.registry import UserError

TOOL = """
import json, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if flags["--gain"] == "bad":
    sys.exit("error: bad gain")
folder = pathlib.Path(flags["--run.out"])
folder.mkdir()
seed = int(flags["--train.seed"])
value = 0.5 + 0.01 * seed + float(flags["--gain"]) * (1 + seed)
report = {"headline": "top1", "figures": {"top1": value}, "seconds": 2.0}
if "--ops" in flags:
    report["cost"] = {"binary_share": 0.966, "ops": float(flags["--ops"])}
if "--held" in flags:
    report["held_out"] = {"top1": value / 2}
(folder / "report.json").write_text(json.dumps(report))
with open(folder.parent / "calls", "a") as calls:
    calls.write(folder.name + "\\n")
"""


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "tool.py"
    path.write_text(TOOL)
    return path


def config(tmp_path, **changes):
    rows = (RowConfig("Off", "--gain 0"), RowConfig("on, small", "--gain 0.1"))
    usual = {"rows": rows, "against": "Off", "seeds": 2, "processes": 2, "out": tmp_path / "out"}
    return AblateConfig(**{**usual, **changes})


def test_means_spreads_and_paired_differences_over_seeds(tmp_path, tool):
    settings = config(tmp_path)
    cells = cells_of(settings, sys.executable, tool)
    assert run_cells(cells, 2) == {}
    text, data = tabulate(settings, cells)
    write_table(settings, text, data)
    off, on = data["rows"]
    assert off["values"] == [0.5, 0.51]
    assert off["difference"] is None
    # differences 0.1 and 0.2: mean 0.15, sd 0.0707, t(0.975, 1) = 12.706
    assert on["difference"]["mean"] == pytest.approx(0.15)
    assert on["difference"]["half_width"] == pytest.approx(12.7062 * (0.1 / math.sqrt(2)) / math.sqrt(2), rel=1e-4)
    assert on["spread"] == pytest.approx((0.71 - 0.6) / math.sqrt(2))
    assert "on, small" in text
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == data


def test_figures_on_held_out_samples_have_a_column_where_there_are_any(tmp_path, tool):
    for flags, held in (("", None), (" --held yes", (0.25 + 0.255) / 2)):
        settings = config(tmp_path, rows=(RowConfig("Off", f"--gain 0{flags}"),), out=tmp_path / f"out{flags.strip()}")
        cells = cells_of(settings, sys.executable, tool)
        run_cells(cells, 1)
        text, data = tabulate(settings, cells)
        assert ("held out" in text) == (held is not None)
        assert data["rows"][0]["held_out"]["mean"] == (held and pytest.approx(held))


def test_what_a_network_costs_has_columns_where_any_run_tells_it(tmp_path, tool):
    rows = (RowConfig("Off", "--gain 0"), RowConfig("binary", "--gain 0 --ops 80e6"))
    settings = config(tmp_path, rows=rows, seeds=1)
    cells = cells_of(settings, sys.executable, tool)
    run_cells(cells, 2)
    text, data = tabulate(settings, cells)
    _, _, off, binary = text.splitlines()
    assert text.split("\n")[0].split()[-3:] == ["binary", "GOPs", "seconds"]
    assert off.split()[-3:-1] == ["-", "-"]
    assert binary.split()[-3:-1] == ["96.6%", "0.080"]
    assert data["rows"][1]["cost"]["ops"] == 80e6


def test_finished_cells_are_not_run_again_unless_their_command_changed(tmp_path, tool):
    settings = config(tmp_path, seeds=1)
    run_cells(cells_of(settings, sys.executable, tool), 1)
    run_cells(cells_of(settings, sys.executable, tool), 1)
    assert (tmp_path / "out" / "calls").read_text().split() == ["off-0", "on-small-0"]
    other = config(tmp_path, seeds=1, flags="--gain 1")
    assert all(cell.report is None for cell in cells_of(other, sys.executable, tool))


def test_a_row_that_fails_leaves_the_others(tmp_path, tool):
    rows = (RowConfig("good", "--gain 0"), RowConfig("bad", "--gain bad"))
    settings = config(tmp_path, rows=rows, against="good", seeds=1)
    cells = cells_of(settings, sys.executable, tool)
    assert [(cell.row, code) for cell, code in run_cells(cells, 1).items()] == [("bad", 1)]
    assert "bad gain" in (tmp_path / "out" / "bad-0.log").read_text()
    text, data = tabulate(settings, cells)
    assert data["rows"][1]["mean"] is None
    assert "bad" in text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rows": ()}, "at least one"),
        ({"rows": (RowConfig("a b"), RowConfig("A-B"))}, "name of its own"),
        ({"against": "none"}, "no row is called 'none'"),
        ({"seeds": 0}, "seeds"),
        ({"out": None}, "out"),
    ],
)
def test_tables_that_make_no_sense(tmp_path, changes, named):
    with pytest.raises(UserError, match=named):
        config(tmp_path, **changes)


def test_nothing_finished_is_said(tmp_path, tool):
    settings = config(tmp_path)
    with pytest.raises(UserError, match="no run in"):
        tabulate(settings, cells_of(settings, sys.executable, tool))


def test_a_folder_that_cannot_be_made_is_told(tmp_path, tool):
    (tmp_path / "file").write_text("")
    for out, reason in (("file", "file is a file; choose a folder"), ("file/below", "cannot write .*file/below")):
        settings = config(tmp_path, out=tmp_path / out)
        with pytest.raises(UserError, match=reason):
            run_cells(cells_of(settings, sys.executable, tool), 1)
    assert (tmp_path / "file").read_text() == ""


def test_sigterm_ends_the_runs_too(tmp_path):
    tool = tmp_path / "sleep.py"
    tool.write_text("import os, pathlib, sys, time\npathlib.Path(sys.argv[0] + '.pid').write_text(str(os.getpid()))\n")
    tool.write_text(tool.read_text() + "time.sleep(60)\n")
    code = f"""
from pathlib import Path
from densebnn.engine.ablation import Cell, run_cells
from densebnn.engine.cli import run_main
cell = Cell("row", 0, Path({str(tmp_path / "row-0")!r}), ({sys.executable!r}, {str(tool)!r}))
run_main(lambda _: run_cells([cell], 1), [])
"""
    with subprocess.Popen([sys.executable, "-c", code]) as table:
        pid = tool.with_suffix(".py.pid")
        while not (pid.exists() and pid.read_text()):
            assert table.poll() is None
            time.sleep(0.05)
        table.terminate()
        assert table.wait(timeout=20) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_runs_of_several_tasks_give_a_table_for_each(tmp_path):
    rows = (RowConfig("depth alone"), RowConfig("labels alone"), RowConfig("both", against="depth alone"))
    settings = config(tmp_path, rows=rows, against="labels alone")
    cells = cells_of(settings, sys.executable, tmp_path / "tool.py")
    for cell in cells:
        cell.folder.mkdir(parents=True)
        cell.folder.with_suffix(".command").write_text(cell.text)
        depth, labels = {"rmse": 0.6 + cell.seed / 10}, {"miou": 0.3 + cell.seed / 10}
        report = {
            "depth alone": {"task": "depth", "headline": "rmse", "figures": depth, "protocol": "laina: all"},
            "labels alone": {"task": "segmentation", "headline": "miou", "figures": labels, "protocol": "full: all"},
            "both": {
                "task": "segmentation,depth",
                "headline": {"segmentation": "miou", "depth": "rmse"},
                "figures": {"segmentation": {"miou": 0.25}, "depth": {"rmse": 0.5}},
                "protocol": {"segmentation": "full: all", "depth": "laina: all"},
            },
        }[cell.row]
        (cell.folder / "report.json").write_text(json.dumps({**report, "seconds": 2.0}))
    text, data = tabulate(settings, cells)
    by_task = {entry["task"]: entry for entry in data["tables"]}
    named = {task: (entry["headline"], entry["protocol"]) for task, entry in by_task.items()}
    assert named == {"depth": ("rmse", "laina"), "segmentation": ("miou", "full")}
    assert [row["row"] for row in by_task["depth"]["rows"]] == ["depth alone", "both"]
    assert [row["row"] for row in by_task["segmentation"]["rows"]] == ["labels alone", "both"]
    both = by_task["depth"]["rows"][1]
    assert both["values"] == [0.5, 0.5]
    assert both["difference"]["mean"] == pytest.approx(-0.15)
    both = by_task["segmentation"]["rows"][1]
    assert (both["against"], both["difference"]["mean"]) == ("labels alone", pytest.approx(-0.1))
    assert "depth rmse (laina), mean ± sd" in text
    assert "segmentation miou (full), mean ± sd" in text


def test_figures_under_different_protocols_are_not_compared(tmp_path):
    settings = config(tmp_path, rows=(RowConfig("one"), RowConfig("other")), against="one")
    cells = cells_of(settings, sys.executable, tmp_path / "tool.py")
    for cell in cells:
        cell.folder.mkdir(parents=True)
        cell.folder.with_suffix(".command").write_text(cell.text)
        protocol = {"one": "laina: whole frame", "other": "laina+flip: whole frame"}[cell.row]
        report = {"task": "depth", "headline": "rmse", "figures": {"rmse": 0.5}, "protocol": protocol, "seconds": 2.0}
        (cell.folder / "report.json").write_text(json.dumps(report))
    text, data = tabulate(settings, cells)
    assert [(table["protocol"], [row["row"] for row in table["rows"]]) for table in data["tables"]] == [
        ("laina", ["one"]),
        ("laina+flip", ["other"]),
    ]
    assert all(row["difference"] is None for table in data["tables"] for row in table["rows"])
    assert "depth rmse (laina+flip), mean ± sd" in text
