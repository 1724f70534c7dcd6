"""When a training ends before its time."""

import sys
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping

from perceiver_lightning.errors import InputError


class Patience(EarlyStopping):
    """Early stopping that keeps its own patience on resume, not the checkpoint's.

    Args:
        monitor: the metric.
        patience: how many validations in a row may bring nothing better. None never stops: the command line leaves
            the callback out.
        options: other arguments of Lightning's EarlyStopping.
    """

    def __init__(self, monitor: str, patience: int | None = None, **options: Any) -> None:
        super().__init__(monitor, patience=sys.maxsize if patience is None else patience, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best value and how long it has stood."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if it is time, and if the metric is there."""
        if self.strict:
            check_monitor("early_stopping.monitor", self.monitor, trainer)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if it is time; not without a validation, as after resuming from one that was interrupted."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)


class Finite(Callback):
    """Ends a training whose loss is no number any more: it will not come back.

    Looked at before each validation, and so before `last.ckpt` is written: the state of the one before stays.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before a validation of a training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where nothing validates."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and not torch.isfinite(loss):
            raise Diverged(
                f"train/loss: expected a number, found {float(loss)} at step {trainer.global_step}; a lower "
                "learning_rate, more warmup or trainer.gradient_clip_val may help"
            )


class Diverged(InputError):
    """The loss is no number any more."""


def check_monitor(key: str, metric: str | None, trainer: Trainer) -> None:
    """Raise an InputError when the metric of that config key is not among the logged ones."""
    logged = [name for name in trainer.callback_metrics if name.startswith("val/")]
    if metric is not None and metric not in trainer.callback_metrics and not metric.startswith("train/"):
        raise InputError(f"{key}: expected one of {', '.join(sorted(logged))}, found {metric}")
