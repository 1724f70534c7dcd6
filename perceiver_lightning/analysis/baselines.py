"""Reads what the command `baseline` wrote, to stand beside runs."""

import csv
from collections.abc import Sequence
from pathlib import Path

from perceiver_lightning.analysis.runs import Run, flat
from perceiver_lightning.errors import InputError
from perceiver_lightning.yaml_text import load

DATA = ("data.class_path", "data.root", "data.table")  # which data they are
FOLDER = "baseline"  # in the folder of all runs; in it one for each name


def baselines(runs: Sequence[Run]) -> list[Run]:
    """The baselines of the names of these runs, on their data: each model as a run of one step, without curves.

    Each has the configuration of the first such run, but for its data, which are those it was trained on.

    Raises:
        InputError: a file of theirs is broken; the sentence names it.
    """
    firsts: dict[Path, Run] = {}
    for run in runs:
        name, everything = run.folder.resolve().parent, run.folder.resolve().parent.parent
        firsts.setdefault(everything / FOLDER / name.name, run)
    return [one for folder, run in firsts.items() if (folder / "metrics.csv").is_file() for one in _read(folder, run)]


def _read(folder: Path, run: Run) -> list[Run]:
    file = folder / "metrics.csv"
    try:
        config = flat(load((folder / "config.yaml").read_text(encoding="utf-8")))
        with file.open(newline="", encoding="utf-8") as text:
            found = {
                row.pop("model"): {key: [(0, float(value))] for key, value in row.items()}
                for row in csv.DictReader(text)
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: expected what `baseline` writes, found {error!r}") from error
    if any(config.get(key) != run.config.get(key) for key in DATA):
        return []
    return [Run(f"{FOLDER}: {model}", folder, run.config | config, metrics) for model, metrics in found.items()]
