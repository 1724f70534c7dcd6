"""The command `summary`."""

from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from perceiver_lightning.analysis.costs import show, summarise, write_json


class SummaryTrainer(Trainer):
    """Lightning's Trainer, which can also say what a training would cost: the command `summary`."""

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
