"""The commands that need no training: `summary`, `check` and `baseline`."""

import sys
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from perceiver_lightning.analysis.costs import show, summarise, write_json
from perceiver_lightning.cli.baseline import run_baselines
from perceiver_lightning.cli.check import check_splits


class CommandTrainer(Trainer):
    """Lightning's Trainer with commands of this project's own.

    Attributes:
        folder: for what `baseline` finds.
        config: which is kept beside it.
    """

    folder: Path
    config: dict[str, Any]

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

    def baseline(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Print and keep what simple models reach on the same splits: majority, nearest neighbour, ridge."""
        run_baselines(model, datamodule, self.folder, self.config)
