"""Numbers of every run: what is trained, kept as facts.json, and how fast it goes, logged beside the losses."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from perceiver_lightning.analysis.costs import forward_flops
from perceiver_lightning.errors import InputError
from perceiver_lightning.private import accumulates, logs_now
from perceiver_lightning.training.commit import commit

FACTS_FILE = "facts.json"  # in a run's folder


class Measures(Callback):
    """Writes a run's `facts`, and logs to every logger, at the steps that the trainer logs:

        train/gradient_norm         Euclidean, of all gradients together, before they are clipped
        train/examples_per_second   rows of batches on all devices, loading included, since the last log; the time that
                                    validations take is left out
        train/flops_per_second      examples per second times three times `flops`: forward, and twice that backward
        train/flops_utilisation     its share of peak_flops, where that is given

    FLOPs are those of examples of full size by the attention in use, as `summary` counts them: what masked elements
    and the optimiser cost is not looked at.

    Args:
        peak_flops: FLOPs per second that all devices of this training could do together, as their maker says for its
            precision, or as measured.

    Raises:
        InputError: peak_flops is not above 0.
    """

    def __init__(self, peak_flops: float | None = None) -> None:
        if peak_flops is not None and not peak_flops > 0:
            raise InputError(f"measures.peak_flops: expected a number above 0, found {peak_flops}")
        self.peak_flops = peak_flops
        self.facts: dict[str, Any] = {}
        self.rows, self.since, self.stopped = 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the facts into the run's folder; start the clock."""
        folder = trainer.log_dir  # asked of all processes: they agree on it
        if trainer.is_global_zero:
            self.facts = facts(pl_module, getattr(trainer, "datamodule", None))
            if folder and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                (Path(folder) / FACTS_FILE).write_text(json.dumps(self.facts, indent=2) + "\n")
        self.facts = trainer.strategy.broadcast(self.facts)
        self.rows, self.since = 0, time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.stopped = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let it go on as if no time had passed."""
        if not trainer.sanity_checking:
            self.since += time.monotonic() - self.stopped

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the gradients."""
        if logs_now(trainer):
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            pl_module.log("train/gradient_norm", torch.nn.utils.get_total_norm(gradients), batch_size=1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log the speed."""
        self.rows += rows(batch)
        if not self.rows or accumulates(trainer) or not logs_now(trainer):  # the last batch of a step is logged
            return
        now = time.monotonic()
        speed = self.rows * trainer.world_size / max(now - self.since, 1e-9)
        self.rows, self.since = 0, now
        numbers = {"examples_per_second": speed}
        if flops := self.facts.get("flops"):
            numbers["flops_per_second"] = 3 * flops * speed
            if self.peak_flops is not None:
                numbers["flops_utilisation"] = numbers["flops_per_second"] / self.peak_flops
        pl_module.log_dict({f"train/{name}": value for name, value in numbers.items()}, batch_size=1)


def rows(batch: Any) -> int:
    """Number of rows of a batch of the contract in `datamodules/base.py`; 0 of any other."""
    inputs = batch.get("inputs") if isinstance(batch, Mapping) else None
    return len(next(iter(inputs.values()))["content"]) if inputs else 0


def facts(task: Any, datamodule: Any) -> dict[str, Any]:
    """Facts of a run, as far as they are known.

    Returns:
        commit      of this code in git; "-dirty" behind it where files that git knows are changed
        parameters  number of trained and fixed parameters
        flops       of the forward pass of one example, by the attention that the model takes; a multiply-add is two
    """
    found: dict[str, Any] = {}
    if known := commit():
        found["commit"] = known
    found["parameters"] = sum(parameter.numel() for parameter in task.parameters())
    if hasattr(task, "perceiver") and hasattr(datamodule, "modalities"):
        elements, batch_size = getattr(datamodule, "elements", None), getattr(datamodule, "batch_size", 1)
        found["flops"] = forward_flops(task.perceiver, datamodule.modalities, elements, batch_size=batch_size)
    return found
