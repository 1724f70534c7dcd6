"""Compares runs: a table of what they reached and how they differ, and a picture of their curves.

    python -m perceiver_lightning.analysis.runs RUN [RUN ...] [--output curves.png]

A RUN is the folder of a training, with config.yaml and metrics.csv.
"""

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from perceiver_lightning.errors import InputError

Metrics = dict[str, list[tuple[int, float]]]

NOTHING = "-"  # in the table, for what a run does not have


@dataclass(frozen=True)
class Run:
    """A training that was kept.

    name        its folder's last two names, "digits/version_0"
    config      the keys of config.yaml, joined by dots, without "init_args"
    metrics     {column of metrics.csv: [(step, value), ...]}, by rising step
    epochs      number of epochs begun
    """

    name: str
    config: dict[str, Any]
    metrics: Metrics
    epochs: int


def load_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        InputError: the folder is not a run's, or one of its files is broken; the sentence names it.
    """
    folder = Path(folder)
    for file in ("config.yaml", "metrics.csv"):
        if not (folder / file).is_file():
            inside = sorted(path.parent for path in folder.glob("*/metrics.csv"))
            hint = f"; did you mean {inside[-1]}?" if inside else ""
            found = f"no {file}" if folder.is_dir() else "no such folder"
            raise InputError(
                f"{folder}: expected a run, a folder with config.yaml and metrics.csv, found {found}{hint}"
            )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / 'config.yaml'}: expected YAML, found {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.yaml'}: expected keys and values, found {type(config).__name__}")
    metrics = load_metrics(folder)
    epochs = int(max(value for _, value in metrics["epoch"])) + 1 if "epoch" in metrics else 0
    return Run("/".join(folder.resolve().parts[-2:]), flat(config), metrics, epochs)


def load_metrics(folder: str | Path) -> Metrics:
    """The columns of a run's metrics.csv: `{column: [(step, value), ...]}`, by rising step, blanks left out.

    Where a metric was logged twice at a step, as by a second test, the later one counts.

    Raises:
        InputError: the file has no column `step`, no rows, or something else than a number; the sentence names it.
    """
    path = Path(folder) / "metrics.csv"
    columns: dict[str, dict[int, float]] = {}
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        for row in rows:
            numbers = {}
            for key, value in row.items():
                if value:
                    try:
                        numbers[key] = float(value)
                    except (TypeError, ValueError) as error:
                        raise InputError(
                            f"{path}, line {rows.line_num}, column {key}: expected a number, found {value!r}"
                        ) from error
            if "step" not in numbers:
                raise InputError(f"{path}, line {rows.line_num}: expected a number in column step, found none")
            if any(key.startswith("test/") for key in numbers):
                numbers.pop("epoch", None)  # a test's epoch is none of the training's
            for key, number in numbers.items():
                columns.setdefault(key, {})[int(numbers["step"])] = number
    if not columns:
        raise InputError(f"{path}: expected rows of metrics, found none")
    return {key: sorted(values.items()) for key, values in columns.items()}


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested mapping with its keys joined by dots; "init_args", which says nothing, is left out of them."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = before if key == "init_args" else f"{before}.{key}".lstrip(".")
        result |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return result


def best(run: Run) -> tuple[str, float, int] | None:
    """The monitored metric's name, its best value and the step of it; None if it was never logged."""
    monitor = run.config.get("checkpoint.monitor", "val/accuracy")
    choose = min if run.config.get("checkpoint.mode", "max") == "min" else max
    points = [(value, step) for step, value in run.metrics.get(monitor, []) if not math.isnan(value)]
    if not points:
        return None
    value, step = choose(points, key=lambda point: point[0])
    return monitor, value, step


def compare(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What runs reached and where their configs differ, as text: `{row: [one cell a run]}`."""
    bests = [best(run) for run in runs]
    rows: dict[str, list[str]] = {}
    for monitor in dict.fromkeys(found[0] for found in bests if found):
        rows[f"best {monitor}"] = [f"{found[1]:.4f}" if found and found[0] == monitor else NOTHING for found in bests]
    rows["at step"] = [str(found[2]) if found else NOTHING for found in bests]
    rows["last train/loss"] = [
        f"{run.metrics['train/loss'][-1][1]:.4f}" if "train/loss" in run.metrics else NOTHING for run in runs
    ]
    for key in dict.fromkeys(key for run in runs for key in run.metrics if key.startswith("test/")):
        rows[key] = [f"{run.metrics[key][-1][1]:.4f}" if key in run.metrics else NOTHING for run in runs]
    rows["epochs"] = [str(run.epochs) for run in runs]
    for key in dict.fromkeys(key for run in runs for key in run.config):
        values = [str(run.config[key]) if key in run.config else NOTHING for run in runs]
        if len(set(values)) > 1:
            rows[key] = values
    return rows


def table(runs: Sequence[Run]) -> Table:
    """`compare` as a table, a column a run; a line divides results from configuration."""
    result = Table()
    result.add_column("")
    for run in runs:
        result.add_column(run.name, justify="right", overflow="fold")
    for row, cells in compare(runs).items():
        result.add_row(row, *cells, end_section=row == "epochs")
    return result


def plot(runs: Sequence[Run], file: str | Path) -> None:
    """Draw loss and the monitored metric (accuracy, if that is the loss) over steps, train and val, a colour a run.

    A training that was logged at many steps is drawn as a running mean, over the pale values themselves.

    Raises:
        InputError: when the file cannot be written.
    """
    monitor = str(runs[0].config.get("checkpoint.monitor", "val/accuracy")).split("/")[-1]
    names = ["loss", monitor if monitor != "loss" else "accuracy"]
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2), names, strict=True):
            for number, run in enumerate(runs):
                _curves(axes, run, name, f"C{number % 10}")
            axes.set(title=name.replace("_", " "), xlabel="step")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.grid(alpha=0.25, linewidth=0.6)
        for number, run in enumerate(runs):
            axes.plot([], [], color=f"C{number % 10}", label=run.name)
        axes.plot([], [], color="0.4", linestyle=":", label="train")
        axes.plot([], [], color="0.4", marker="o", markersize=3, label="val")
        if any(f"test/{name}" in run.metrics for run in runs for name in names):
            axes.plot([], [], color="0.4", marker="*", markersize=9, linestyle="", label="test")
        figure.legend(loc="outside right upper", frameon=False)
        try:
            figure.savefig(file, dpi=150)
        except (OSError, ValueError) as error:  # ValueError: an ending that is no picture's
            raise InputError(f"--output {file}: expected a picture that can be written, found {error}") from error


def _curves(axes: Any, run: Run, name: str, color: str) -> None:
    if train := run.metrics.get(f"train/{name}"):
        steps, values = zip(*train, strict=True)
        width = len(values) // 40  # values on either side that the mean is taken over
        if width:
            axes.plot(steps, values, color=color, alpha=0.15, linewidth=0.8)
        around = [values[max(i - width, 0) : i + width + 1] for i in range(len(values))]
        axes.plot(steps, [sum(few) / len(few) for few in around], color=color, linestyle=":", linewidth=1.4)
    if val := run.metrics.get(f"val/{name}"):
        axes.plot(*zip(*val, strict=True), color=color, linewidth=1.4, marker="o", markersize=3)
    if test := run.metrics.get(f"test/{name}"):
        axes.plot(*test[-1], color=color, marker="*", markersize=9, linestyle="", zorder=3)


def main(args: Sequence[str] | None = None) -> None:
    """The command; the process's own arguments if None.

    Raises:
        SystemExit: with status 2, after one sentence, when the input is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m perceiver_lightning.analysis.runs", description="Compare runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder: runs/<name>/version_<k>")
    parser.add_argument("--output", metavar="FILE", help="the picture; curves.png of the first run if not given")
    given = parser.parse_args(args)
    file = Path(given.output or Path(given.runs[0]) / "curves.png")
    try:
        runs = [load_run(folder) for folder in given.runs]
        plot(runs, file)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    Console().print(table(runs))
    print(f"curves   {file}")


if __name__ == "__main__":
    main()
