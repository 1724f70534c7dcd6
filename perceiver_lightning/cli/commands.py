"""The commands that need no training: `summary` and `check`."""

import sys
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from perceiver_lightning.analysis.costs import show, summarise, write_json
from perceiver_lightning.cli.check import check_splits


class CommandTrainer(Trainer):
    """Lightning's Trainer with commands of this project's own."""

    def summary(self, model: LightningModule, datamodule: LightningDataModule, json: str | None = None) -> None:
        """Print parameters, FLOPs, inputs, latents and memory; no data is needed.

        Args:
            json: a file for the same numbers.
        """
        task: Any = model
        data: Any = datamodule
        found = summarise(task, data)
        show(found, data.batch_size)
        if json is not None:
            write_json(found, json)

    def check(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Print what each split holds, and which files of equal content are in two of them: then the status is 1."""
        if check_splits(datamodule):
            sys.exit(1)
