import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from densebnn.binary import DIAGNOSTICS
from densebnn.engine.diagnostics_plot import write_diagnostics

LOG = [
    {
        "step": 1,
        "loss": 3.0,
        "diagnostics": {"a": {"inside": 0.8, "entropy": 0.9}, "b": {"inside": 1.0, "entropy": 0.5}},
    },
    {"step": 2, "loss": 2.5},
    {
        "step": 3,
        "loss": 2.0,
        "diagnostics": {
            "a": {"flips": 0.2, "silent": 0.8, "inside": 0.7, "entropy": 1.0},
            "b": {"flips": 0.0, "silent": 1.0},
            "c": {"inside": 0.4, "entropy": 0.3},
        },
    },
]


@pytest.fixture
def plotted(monkeypatch):
    """The lines of each panel that is drawn, by the first word of its title: [(steps, values, colour), ...]."""
    panels = {}
    save = Figure.savefig

    def spied(figure, *arguments, **named):
        for axis in figure.axes:
            if axis.get_title():
                lines = [(list(line.get_xdata()), list(line.get_ydata()), line.get_color()) for line in axis.lines]
                panels[axis.get_title().split(":")[0]] = lines, axis.get_ylim()
        return save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", spied)
    return panels


def test_every_figure_has_a_panel_and_every_layer_a_line_there(tmp_path, plotted):
    write_diagnostics(tmp_path / "diagnostics.png", LOG)
    assert list(plotted) == list(DIAGNOSTICS)
    points = {name: [(steps, values) for steps, values, _ in lines] for name, (lines, _) in plotted.items()}
    assert points["flips"] == [([3], [0.2]), ([3], [0.0])]
    assert points["silent"] == [([3], [0.8]), ([3], [1.0])]
    assert points["inside"] == [([1, 3], [0.8, 0.7]), ([1], [1.0]), ([3], [0.4])]
    assert points["entropy"] == [([1, 3], [0.9, 1.0]), ([1], [0.5]), ([3], [0.3])]
    for name, (lines, (low, high)) in plotted.items():
        values = [value for _, values, _ in lines for value in values]
        assert low <= min(values), name
        assert high >= max(values), name


def test_colours_tell_the_depth(tmp_path, plotted):
    log = [{"step": 1, "diagnostics": {str(layer): {"inside": 0.5, "entropy": 0.5} for layer in range(9)}}]
    write_diagnostics(tmp_path / "diagnostics.png", log)
    colours = [colour for _, _, colour in plotted["inside"][0]]
    np.testing.assert_allclose(colours[0], matplotlib.colormaps["viridis"](0.0))
    np.testing.assert_allclose(colours[-1], matplotlib.colormaps["viridis"](1.0))
    assert len(set(colours)) == 9


def test_a_run_of_one_layer_can_be_drawn(tmp_path):
    write_diagnostics(
        tmp_path / "diagnostics.png", [{"step": 1, "diagnostics": {"a": {"inside": 1.0, "entropy": 0.0}}}]
    )
    assert (tmp_path / "diagnostics.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["diagnostics.png"]


def test_no_plot_without_binary_layers(tmp_path):
    write_diagnostics(tmp_path / "diagnostics.png", [{"step": 1, "loss": 2.0}])
    assert list(tmp_path.iterdir()) == []
