"""Reads what Weights & Biases keeps of a run on this machine, without an account and without a network.

W&B's own reader does it: `wandb leet inspect` prints the records of a `.wandb` file as JSON.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from perceiver_lightning.errors import InputError

STEP = "trainer/global_step"  # Lightning's; W&B's own _step counts calls of log


def wandb_file(path: Path) -> Path | None:
    """The file of a run of W&B: the path itself, or the one in that folder; None if it is neither."""
    if path.suffix == ".wandb":
        return path if path.is_file() else None
    found = list(path.glob("run-*.wandb")) if path.is_dir() else []
    return found[0] if len(found) == 1 else None


def parts(file: Path) -> list[Path]:
    """All files of that run, the oldest first: each time a run is gone on with, W&B begins another one beside it."""
    file = file.resolve()
    beside = {path.resolve() for path in file.parent.parent.glob(f"*run-*/{file.name}")}
    return sorted(beside | {file}, key=lambda path: path.parent.name.split("run-")[-1])


def read(file: Path) -> dict[str, Any]:
    """What a file of W&B says of its run.

    Returns:
        name     its display name, or project/id
        config   as it was logged, nested
        rows     {metric: number} for each call of log, each with its `step`

    Raises:
        InputError: it is no file of W&B's; the sentence names it.
    """
    summary = json.loads(inspect(file, "--summary"))
    config = {key: value for key, value in (summary.get("config") or {}).items() if key != "_wandb"}
    records = (json.loads(line) for line in inspect(file).splitlines())
    items = (record["history"]["item"] for record in records if record["type"] == "history")
    return {
        "name": summary["name"] or f"{summary['project']}/{summary['run_id']}",
        "config": config,
        "rows": [row for row in map(numbers, items) if len(row) > 1],
    }


def inspect(file: Path, *flags: str) -> str:
    """What W&B's reader prints: JSON, one object with --summary, else one for each record."""
    from wandb.util import get_core_path  # here, as it is slow to load

    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *flags]
    done = subprocess.run(
        [*command, "--run-file", str(file.resolve()), str(file.resolve().parent.parent)], capture_output=True, text=True
    )
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix("Error: ")
        raise InputError(f"{file}: expected a run of Weights & Biases, found another or a broken file ({said})")
    return done.stdout


def numbers(item: dict[str, Any]) -> dict[str, float]:
    """The metrics of a call of log, and its step; pictures and tables, and W&B's own keys, are left out."""
    media = tuple(key.removesuffix("_type") for key in item if key.endswith("._type"))
    row = {"step": float(item.get(STEP, item.get("_step", 0)))}
    for key, value in item.items():
        if not key.startswith(("_", *media)) and key != STEP:
            number = number_of(value)
            if number is not None:
                row[key] = number
    return row


def number_of(value: Any) -> float | None:
    """The value, if it is a number; what JSON has no number for stands there as text."""
    if isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return None
