"""The command line as a person would type it, on the digits with a tiny model: for tests."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from perceiver_lightning.cli import CLI, main

TINY = {
    "name": "tiny",
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "limit_train_batches": 4,
        "limit_val_batches": 2,
        "log_every_n_steps": 2,
        "gradient_clip_val": None,
    },
    "model": {
        "class_path": "ClassificationTask",
        "init_args": {
            "num_latents": 4,
            "latent_width": 8,
            "cross_attends": [1],
            "self_attends": 1,
            "self_heads": 2,
            "bands": 2,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "schedule": "constant",
            "warmup": 0,
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 32}},
}


def fails(capsys, *args: str, status: int = 2) -> str:
    """Run a command that must end with one sentence on stderr; return that sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code == status
    *notes, said = capsys.readouterr().err.splitlines(keepends=True)
    assert all(note.startswith("data: ") for note in notes), notes  # what was found, what another class drops
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said.removeprefix("error: ").strip()


def metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> dict[int, float]:
    """Step -> value of a metric."""
    return {int(row["step"]): float(row[name]) for row in metrics(run) if row.get(name)}


def weights(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


class with_callback:
    """Adds a callback to every trainer that the command line makes meanwhile."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        make = CLI.make_trainer
        self.patch.setattr(CLI, "make_trainer", lambda cli, config, given: make(cli, config, [self.callback, *given]))

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
