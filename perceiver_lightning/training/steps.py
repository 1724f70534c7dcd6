"""How far a training has come, and what of it is left, in steps of the optimiser."""

import math
from typing import Any

from pytorch_lightning import Trainer


def steps_per_epoch(trainer: Trainer) -> float:
    """Steps of a whole epoch; infinite where its length is not known."""
    batches = trainer.num_training_batches
    return math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else math.inf


def start_afresh(trainer: Trainer) -> None:
    """Between two epochs, do not go on with the batches of the last one, as Lightning does where `max_steps` is set."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if epochs.ready == epochs.processed:
        trainer.fit_loop.epoch_loop.restarting = False


def in_an_epoch(trainer: Trainer) -> bool:
    """Whether an epoch has begun that has batches left."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress
    return epochs.ready > epochs.processed and not batches.is_last_batch


def steps_left(trainer: Trainer) -> float:
    """Steps from now, between two batches, to the end by `max_epochs` or `max_steps`; infinite where there is none."""
    by_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps - trainer.global_step
    each, max_epochs = steps_per_epoch(trainer), trainer.max_epochs
    if max_epochs is None or max_epochs == -1 or math.isinf(each):
        return by_steps
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if in_an_epoch(trainer):
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        inside = batches.processed // trainer.accumulate_grad_batches
        return min(by_steps, each * (max_epochs - epochs.processed) - inside)
    return min(by_steps, each * (max_epochs - epochs.ready))


def settle_epoch(loops: dict[str, Any]) -> None:
    """In the loops of a checkpoint: an epoch that was ended is done if all its batches are, and only then.

    Lightning takes one that `max_steps` or `max_time` cut for done, and one that ended with `max_steps` for half done:
    a training that goes on would lose steps.
    """
    epochs, batches = loops["fit_loop"]["epoch_progress"], loops["fit_loop"]["epoch_loop.batch_progress"]
    if epochs["current"]["processed"] == epochs["current"]["ready"] and batches["current"]["ready"]:
        for count in (epochs["current"], epochs["total"]):
            count["processed"] = count["completed"] = count["ready"] - (not batches["is_last_batch"])


def rescale_epoch(trainer: Trainer, batches_then: float) -> None:
    """Go on at the same share of the epoch, which had `batches_then` batches; of one that was cut, one is left."""
    batches, now = trainer.fit_loop.epoch_loop.batch_progress, trainer.num_training_batches
    if batches_then != now and math.isfinite(batches_then) and math.isfinite(now):
        count: Any = batches.current
        done = now if batches.is_last_batch else min(round(count.processed * now / batches_then), now - 1)
        shift = int(done) - count.processed
        for key in ("ready", "started", "processed", "completed"):
            setattr(count, key, getattr(count, key) + shift)
