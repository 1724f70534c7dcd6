"""How much of its limit of time a training has spent."""

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer


def time_limit(trainer: Trainer) -> Timer | None:
    """The clock of a training that ends by time (`max_time`); None of others."""
    timers = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
    return next((one for one in timers if one.time_remaining() is not None), None)


def time_spent(trainer: Trainer) -> float:
    """Share of `max_time` that is spent, with that before a resume, from 0 to 1; 0 without a limit of time."""
    if (timer := time_limit(trainer)) is None:
        return 0.0
    elapsed, left = timer.time_elapsed(), timer.time_remaining() or 0.0
    return elapsed / (elapsed + left) if left > 0 else 1.0
