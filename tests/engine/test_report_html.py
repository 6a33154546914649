import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from densebnn.engine.report_html import render, write_html
from densebnn.engine.results import open_results, results_of
from densebnn.engine.run_folder import RunFolder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NASTY = "<script>alert('x')</script> & \"quoted\" 'name' " + "long" * 20


@pytest.fixture
def nasty(tmp_path):
    """The results of a run of two tasks and 40 classes whose texts are hostile."""
    folder = tmp_path / "run"
    (folder / "examples").mkdir(parents=True)
    config = {"task": "segmentation,depth", "data": {"path": NASTY}, "depth": {"protocol": "eigen"}}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "lr": 0.1}\n{"step": 2, "loss": 1.0, "lr": 0.1}\n')
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    (folder / "examples/depth-000003-0.png").write_bytes(base64.b64decode(png))
    evaluated = {"task": NASTY, "headline": "rmse", "figures": {"rmse": 0.25}}
    (folder / "eval-test-mtl.json").write_text(json.dumps(evaluated))
    (folder / "eval-broken.json").write_text("{")
    names = [NASTY, *(f"class {number}" for number in range(1, 40))]
    confusion = [[10 * (row == column) + 1 for column in range(40)] for row in range(40)]
    pictures = [{"title": NASTY, "file": f"examples/depth-000003-{number}.png"} for number in (0, 1)]
    report = {
        "task": "segmentation,depth",
        "headline": {"segmentation": "miou", "depth": "rmse"},
        "protocol": {"segmentation": NASTY, "depth": NASTY},
        "figures": {
            "segmentation": {"miou": 0.5, "per_class_iou": [None, *[0.5] * 39], "pixels": 1234567},
            "depth": {"rmse": 1.25, "silog": None},
        },
        "details": {
            "segmentation": {"images": [[0, 0.5], [1, None]], "classes": names, "confusion": confusion},
            "depth": {
                "images": [[3, 1.0]],
                "distance": [{"from": 1, "to": 2, "pixels": 3, "rmse": 0.1, "abs_rel": 0.1}],
            },
        },
        "examples": [
            {"task": "depth", "kind": "best", "index": 3, "figure": 1.0, "headline": "rmse", "pictures": pictures}
        ],
    }
    totals = {"bops": 300, "flops": 100, "ops": 104.7, "binary_parameters": 10, "real_parameters": 5, "bytes": 22}
    report["cost"] = {"input_size": [3, 64, 96], "verdict": "static", **totals}
    return results_of(RunFolder.attach(folder), report)


def test_the_page_of_a_run_tells_all_of_it(trained):
    results = open_results(trained[0])
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert page == render(results)  # the same folder, the same bytes
    figures = trained[1]["figures"]
    assert f"{figures['rmse']:.4f}" in page
    assert "depth, protocol laina" in page
    assert html.escape(trained[1]["protocol"]) in page
    assert all(f"image {index}: rmse" in page for index in range(3))
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert page.count('src="data:image/png;base64,') == 3 * 3 + 1  # truth, prediction, error; diagnostics
    assert page.count('src="data:image/svg+xml;base64,') >= 4
    cost = trained[1]["cost"]
    assert f"{100 * cost['bops'] / (cost['bops'] + cost['flops']):.1f} %" in page
    assert "train.steps: 4" in page
    assert "python tools/eval.py RUN" in page
    assert str(trained[0]) not in page


def test_nothing_comes_from_elsewhere_and_nothing_is_run(trained):
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<script|<iframe|<object|javascript:|@import|\son\w+=", page) == []
    assert {source.partition(":")[0] for source in re.findall(r'(?:src|href)="([^"]*)"', page)} == {"data"}
    assert re.findall(r"https?://", page) == []


def test_text_is_escaped_and_what_is_missing_is_left_out(nasty):
    page = render(nasty)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") >= 6
    assert page.count("<figcaption>") == 1  # the second picture's file is not there
    assert "eval-test-mtl" in page
    assert "eval-broken" not in page
    assert "75.0 %" in page
    assert "1,234,567" in page
    assert page == render(nasty)


def test_a_page_of_little_is_a_page(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {name: rooms}\nnetwork: {backbone: resnet20, method: irnet}\n")
    report = {"task": "classification", "headline": "top1", "figures": {"top1": 0.5}}
    results = results_of(RunFolder.attach(tmp_path), report)
    assert write_html(results) == tmp_path / "report.html"
    page = (tmp_path / "report.html").read_text()
    assert "0.5000" in page
    assert "pretrain_cls.py" in page
    assert "Confusion" not in page


PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images], all = [...document.querySelectorAll("main *")];
  const wide = all.filter(e => !e.closest(".wide, pre") && e.getBoundingClientRect().right > innerWidth + 0.5);
  parent.postMessage({width: innerWidth, content: document.documentElement.scrollWidth, images: images.length,
    loaded: images.filter(i => i.complete && i.naturalWidth > 0).length, wide: wide.map(e => e.outerHTML.slice(0, 80)),
    small: all.filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).length,
    scripts: document.querySelectorAll("main script").length}, "*");
});
</script>"""

FRAME = """<title>waiting</title>
<script>addEventListener("message", e => { document.title = "TOLD" + JSON.stringify(e.data); });</script>
<iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""  # a window may not be narrow


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so the page is not looked at in a browser")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", ["trained", "nasty"])
def test_a_browser_shows_it_without_overflow_or_complaint(which, width, request, tmp_path):
    results = request.getfixturevalue(which)
    results = open_results(results[0]) if which == "trained" else results
    page = render(results).replace("</body>", PROBE + "</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    told, complaints = looked_at(tmp_path / "frame.html", tmp_path)
    assert complaints == []
    assert told["width"] == width
    assert told["content"] <= width
    assert told["wide"] == []
    assert told["loaded"] == told["images"] >= 5
    assert (told["small"], told["scripts"]) == (0, 0)


def looked_at(page: Path, home: Path):
    """What the page's probe found, and the browser's console."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={home / 'browser'}", "--window-size=1400,1000", "--enable-logging=stderr"),
        *("--virtual-time-budget=10000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    (told,) = re.findall(r"<title>TOLD(.*?)</title>", done.stdout)
    return json.loads(html.unescape(told)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
