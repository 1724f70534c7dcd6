"""Reads runs: configuration, metrics and facts, what they reached and where they differ.

A run is the folder of a training, with config.yaml and metrics.csv, or what Weights & Biases keeps of a run on this
machine: a folder `wandb/offline-run-*`, or the `.wandb` file in it. With an account or without, nothing is fetched.

    run = read_run("runs/digits/version_0")       run.config, run.metrics, run.facts

`perceiver_lightning.checkpoint.load_run` gives its model and its data besides; `perceiver_lightning.compare` is the
command.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from perceiver_lightning.analysis.wandb_files import parts, read, wandb_file
from perceiver_lightning.errors import InputError
from perceiver_lightning.yaml_text import load

Metrics = dict[str, list[tuple[int, float]]]

NOTHING = "-"  # in the table, for what a run does not have


class Incomplete(InputError):
    """A folder that has not, or not yet, what a run has; among others it is passed over."""


@dataclass(frozen=True)
class Run:
    """A training that was kept.

    name        its folder's last two names, "digits/version_0"; in W&B its display name
    folder      where it was read
    config      the keys of config.yaml, joined by dots, without "init_args"
    metrics     {column of metrics.csv: [(step, value), ...]}, by rising step
    facts       of facts.json, as far as it has them: commit, parameters, flops
    """

    name: str
    folder: Path
    config: dict[str, Any]
    metrics: Metrics
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs begun."""
        return int(max(value for _, value in self.metrics["epoch"])) + 1 if "epoch" in self.metrics else 0

    @property
    def checkpoint(self) -> Path:
        """best.ckpt, or last.ckpt where there is no best."""
        for folder in (self.folder, self.folder.parent.parent):  # W&B keeps its own in <run>/wandb/offline-run-*
            for name in ("best.ckpt", "last.ckpt"):
                if (folder / "checkpoints" / name).is_file():
                    return folder / "checkpoints" / name
        raise InputError(
            f"{self.folder}: expected checkpoints/best.ckpt or last.ckpt, to load the model, found neither"
        )


def read_run(folder: str | Path) -> Run:
    """Read a run's folder, or a run of W&B.

    Raises:
        Incomplete: the folder is not a run's; the sentence names it and what is missing.
        InputError: one of its files is broken; the sentence names it.
    """
    folder = Path(folder)
    if (file := wandb_file(folder)) is not None:
        return _load_wandb(file)
    for name in ("config.yaml", "metrics.csv"):
        if not (folder / name).is_file():
            inside = [*sorted(folder.glob("*/metrics.csv")), *sorted(folder.glob("*/run-*.wandb"))]
            hint = f"; did you mean {inside[-1].parent}?" if inside else ""
            found = f"no {name}" if folder.is_dir() else "no such folder"
            raise (Incomplete if folder.is_dir() else InputError)(
                f"{folder}: expected a run, a folder with config.yaml and metrics.csv, found {found}{hint}"
            )
    config = _mapping(folder / "config.yaml", load, yaml.YAMLError, "YAML")
    file = folder / "facts.json"
    facts = _mapping(file, json.loads, json.JSONDecodeError, "JSON") if file.is_file() else {}
    return Run("/".join(folder.resolve().parts[-2:]), folder, flat(config), load_metrics(folder), facts)


def _mapping(file: Path, parse: Any, wrong: type[Exception], form: str) -> dict[str, Any]:
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except (wrong, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected {form}, found {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected keys and values, found {type(found).__name__}")
    return found


def _load_wandb(file: Path) -> Run:
    read_parts = [read(part) for part in parts(file)]
    config = {key: value for part in read_parts for key, value in part["config"].items()}
    rows = [row for part in read_parts for row in part["rows"]]
    if not rows:
        raise Incomplete(f"{file}: expected metrics, found none")
    facts = config.pop("facts", {})
    return Run(read_parts[-1]["name"], parts(file)[-1].parent, flat(config), by_column(rows), facts)


def load_metrics(folder: str | Path) -> Metrics:
    """The columns of a run's metrics.csv: `{column: [(step, value), ...]}`, by rising step, blanks left out.

    Where a metric was logged twice at a step, as by a second test, the later one counts.

    Raises:
        Incomplete: the file has no rows.
        InputError: it has no column `step`, or something else than a number, or is no text; the sentence names it.
    """
    path = Path(folder) / "metrics.csv"
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for row in reader:
                rows.append(_numbers(row, f"{path}, line {reader.line_num}"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table of numbers, found {error}") from error
    if not rows:
        raise Incomplete(f"{path}: expected rows of metrics, found none")
    return by_column(rows)


def _numbers(row: Mapping[str, str], where: str) -> dict[str, float]:
    numbers = {}
    for key, value in row.items():
        if value:
            try:
                numbers[key] = float(value)
            except (TypeError, ValueError) as error:
                raise InputError(f"{where}, column {key}: expected a number, found {value!r}") from error
    if not math.isfinite(numbers.get("step", math.nan)):
        raise InputError(f"{where}: expected a number in column step, found none")
    return numbers


def by_column(rows: Iterable[Mapping[str, float]]) -> Metrics:
    """`{metric: [(step, value), ...]}` by rising step, of rows that each have a `step`; the later at a step counts."""
    columns: dict[str, dict[int, float]] = {}
    for row in rows:
        is_test = any(key.startswith("test/") for key in row)
        for key, number in row.items():
            if not (is_test and key == "epoch"):  # a test's epoch is none of the training's
                columns.setdefault(key, {})[int(row["step"])] = number
    return {key: sorted(values.items()) for key, values in columns.items()}


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested mapping with its keys joined by dots; "init_args", which says nothing, is left out of them."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = ".".join(part for part in f"{before}.{key}".split(".") if part and part != "init_args")
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


def at_best(run: Run, metric: str) -> float | None:
    """A metric of validation at the step that was best by the monitored one; None if either was never logged."""
    found = best(run)
    return dict(run.metrics.get(metric, [])).get(found[2]) if found else None


def results(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What runs reached, as text: `{row: [one cell a run]}`."""
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
    return rows


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Where facts and configs of runs differ, as text: `{key: [one cell a run]}`."""
    rows = {}
    for known in ([run.facts for run in runs], [run.config for run in runs]):
        for key in dict.fromkeys(key for one in known for key in one):
            values = [as_text(one[key]) if one.get(key, {}) != {} else NOTHING for one in known]
            if len(set(values)) > 1:
                rows[key] = values
    return rows


def as_text(value: Any) -> str:
    """A value of a config as text; 1.0 as 1 and keys by the alphabet, which JSON does not tell apart."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_text(value[key])}' for key in sorted(value, key=str))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_text, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def table(runs: Sequence[Run]) -> Table:
    """`compare` as a table, a column a run; a line divides results from configuration."""
    result = Table()
    result.add_column("")
    for run in runs:
        result.add_column(Text(run.name), justify="right", overflow="fold")
    for row, cells in (results(runs) | differences(runs)).items():
        result.add_row(Text(row), *map(Text, cells), end_section=row == "epochs")
    return result


def summary_table(run: Run) -> Table:
    """What a training reached: each of its metrics at its best validation, and at the last step that has it."""
    found = best(run)
    result = Table(title=Text(f"{run.name}: {run.epochs} epochs"), title_justify="left")
    result.add_column("")
    if found:
        result.add_column(Text(f"best {found[0]}, step {found[2]}"), justify="right")
    result.add_column("last", justify="right")
    for key, points in sorted(run.metrics.items(), reverse=True):
        if key.startswith(("train/", "val/")):
            at_best = dict(points).get(found[2]) if found else None
            cells = [NOTHING if at_best is None else number(at_best)] if found else []
            result.add_row(Text(key), *cells, number(points[-1][1]))
    return result


def number(value: float) -> str:
    """Four digits behind the point, thousands with commas, what is very small by its power of ten."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
