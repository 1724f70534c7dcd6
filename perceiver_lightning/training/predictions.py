"""What `predict` writes."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as rows of file, class, probability.

    A file has one row, its most probable class; with several labels per file it has a row for every class.

    Args:
        output: the CSV file; it appears when it is complete.
        class_names: the classes, in the order of the probabilities; where the task knows them, its own count.
        multilabel: whether a file may have several classes.
    """

    def __init__(self, output: Path, class_names: Sequence[str], multilabel: bool) -> None:
        super().__init__(write_interval="epoch")
        self.output = output
        self.class_names = class_names
        self.multilabel = multilabel

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write what all processes predicted."""
        self.class_names = pl_module.hparams.get("class_names") or self.class_names
        rows = [row for batch in predictions for row in self.rows(**batch)]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
            rows = sorted((row for part in gathered for row in part), key=lambda row: row[0])
        if trainer.is_global_zero:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.output.with_name(f"{self.output.name}.new")
            with open(temporary, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["file", "class", "probability"])
                writer.writerows(rows)
            os.replace(temporary, self.output)

    def rows(self, name: Sequence[str], probabilities: torch.Tensor) -> list[tuple[str, str, str]]:
        """The rows of a batch: names of E examples and probabilities (E, K)."""
        rows = []
        for file, values in zip(name, probabilities.float().cpu(), strict=True):
            classes = range(len(values)) if self.multilabel else [int(values.argmax())]
            rows += [(file, self.class_names[k], f"{values[k]:.6f}") for k in classes]
        return rows
