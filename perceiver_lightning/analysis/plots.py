"""Draws the curves of what runs logged."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perceiver_lightning.analysis.labels import as_label
from perceiver_lightning.analysis.runs import Run
from perceiver_lightning.errors import InputError

STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}
COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"]
POINTS = 400  # of a curve in a page: more than it has pixels


def color(number: int) -> str:
    """The colour of a run, by its place among all."""
    return COLORS[number % len(COLORS)]


def plot(runs: Sequence[Run], file: str | Path) -> None:
    """Draw loss and the monitored metric (accuracy, if that is the loss) over steps, train and val, a colour a run.

    A training that was logged at many steps is drawn as a running mean, over the pale values themselves.

    Raises:
        InputError: when the file cannot be written.
    """
    monitor = str(runs[0].config.get("checkpoint.monitor", "val/accuracy")).split("/")[-1]
    names = ["loss", monitor if monitor != "loss" else "accuracy"]
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2), names, strict=True):
            _panel(axes, runs, name)
        for number, run in enumerate(runs):
            axes.plot([], [], color=color(number), label=as_label(run.name))
        axes.plot([], [], color="0.4", linestyle=":", label="train")
        axes.plot([], [], color="0.4", marker="o", markersize=3, label="val")
        if any(f"test/{name}" in run.metrics for run in runs for name in names):
            axes.plot([], [], color="0.4", marker="*", markersize=9, linestyle="", label="test")
        figure.legend(loc="outside right upper", frameon=False)
        try:
            figure.savefig(file, dpi=150)
        except (OSError, ValueError) as error:  # ValueError: an ending that is no picture's
            raise InputError(f"--output {file}: expected a picture that can be written, found {error}") from error


def svg(runs: Sequence[Run]) -> str:
    """Curves of all metrics that were logged more than once, as an <svg> element; "" if there are none."""
    names = sorted(
        {
            key.split("/", 1)[1] if key.startswith(("train/", "val/", "test/")) else key
            for run in runs
            for key, points in run.metrics.items()
            if key not in ("step", "epoch") and len(points) > 1
        },
        key=lambda name: (name != "loss", name != "accuracy", name),
    )
    if not names:
        return ""
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    text = io.StringIO()
    # Text stays text: smaller, and a page's reader can search for it. One salt: the same runs give the same page.
    with rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "runs", "font.family": "sans-serif"}):
        figure = Figure(figsize=(3.6 * columns, 2.5 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, name in zip(panels, names, strict=False):
            _panel(axes, runs, name, POINTS)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    found = text.getvalue()
    return re.sub(r' (width|height)="[^"]*pt"', "", found[found.index("<svg") :], count=2)  # as wide as there is room


def _panel(axes: Any, runs: Sequence[Run], name: str, most: int | None = None) -> None:
    for number, run in enumerate(runs):
        _curves(axes, run, name, color(number), most)
    axes.set(title=as_label(name.replace("_", " ")), xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)


def _curves(axes: Any, run: Run, name: str, color: str, most: int | None) -> None:
    # What is logged under no split, as the learning rate is, is the training's.
    if train := run.metrics.get(f"train/{name}") or run.metrics.get(name):
        steps, values = zip(*train[:: -(-len(train) // 4000)], strict=True)
        width = len(values) // 40  # values on either side that the mean is taken over
        few = slice(None, None, -(-len(values) // most) if most else 1)
        if width:
            axes.plot(steps[few], values[few], color=color, alpha=0.15, linewidth=0.8)
        around = [values[max(i - width, 0) : i + width + 1] for i in range(len(values))]
        means = [sum(these) / len(these) for these in around]
        axes.plot(steps[few], means[few], color=color, linestyle=":", linewidth=1.4)
    if val := run.metrics.get(f"val/{name}"):
        axes.plot(*zip(*val, strict=True), color=color, linewidth=1.4, marker="o", markersize=3)
    if test := run.metrics.get(f"test/{name}"):
        axes.plot(*test[-1], color=color, marker="*", markersize=9, linestyle="", zorder=3)
