"""What is shown of a run: a line about its data, a bar, and a line per validation."""

import math
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from perceiver_lightning.clock import time_limit
from perceiver_lightning.private import OpenProgressBar, epoch_means
from perceiver_lightning.training.steps import steps_left


def headline(trainer: Trainer) -> dict[str, float]:
    """The losses, what the task counts as its headline, and the metric that decides what is best, as far as known."""
    monitor = getattr(trainer.checkpoint_callback, "monitor", None)
    names = dict.fromkeys(["train/loss", "val/loss", *getattr(trainer.lightning_module, "headline", ()), monitor])
    return {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}


def counted(trainer: Trainer) -> str:
    """The epoch that runs, counted from 1, of how many if that is known: " 3/30"."""
    last = str(trainer.max_epochs) if trainer.max_epochs is not None and trainer.max_epochs > 0 else ""
    return f"{trainer.current_epoch + 1:>{len(last)}}{'/' if last else ''}{last}"


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Counts of kinds in one line, the most first: "300 .jpg, 20 .png"."""
    return ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(counts.items(), key=lambda kind: (-kind[1], kind[0]))
    )


class DataLine(Callback):
    """Lines on stderr at the start: how many examples each split has, what was left out, what is to be known."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print it; the datamodule's own `setup` has been called."""
        if trainer.is_global_zero and hasattr(data := trainer.datamodule, "found"):  # type: ignore[attr-defined]
            counts = ", ".join(f"{count:,} in {split}" for split, count in data.found(stage).items())
            left_out = counts_in_words(data.left_out(stage))
            print(f"data: {counts}{'; left out: ' if left_out else ''}{left_out}", file=sys.stderr)
            print(*(f"data: {note}\n" for note in data.notes(stage)), sep="", end="", file=sys.stderr, flush=True)


class EpochLines(Callback):
    """One line per validation, and per epoch without any: reads well in a terminal, above the bar, and in a file."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; say what a schedule and a limit of time mean together."""
        self.start, self.validated, self.first_step = time.monotonic(), -1, trainer.global_step
        schedule = pl_module.hparams.get("schedule", "constant")
        if trainer.is_global_zero and schedule != "constant" and (timer := time_limit(trainer)) is not None:
            left, total = timedelta(seconds=round(timer.time_remaining() or 0)), trainer.estimated_stepping_batches
            steps = f" or {total:g} steps, whichever is first" if math.isfinite(total) else ""
            print(f"max_time: the learning rate comes to the end of {schedule!r} after {left}{steps}", flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.validated = trainer.current_epoch
            self._print(trainer, headline(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of an epoch that did not validate, without what an earlier validation found.

        A training that goes on after the validation of an epoch ends that epoch again, without a step.
        """
        if self.validated != trainer.current_epoch and trainer.global_step > self.first_step:
            known = headline(trainer)
            self._print(trainer, {name: value for name, value in known.items() if not name.startswith("val/")})

    def _print(self, trainer: Trainer, known: dict[str, float]) -> None:
        if trainer.is_global_zero:
            clock = timedelta(seconds=round(time.monotonic() - self.start))
            metrics = "  ".join(f"{name} {value:.4f}" for name, value in known.items())
            line = f"epoch {counted(trainer)}  step {trainer.global_step}  {clock}  {metrics}"
            if isinstance(trainer.progress_bar_callback, Bar):
                trainer.progress_bar_callback.print(line)
            else:
                print(line, flush=True)


class Bar(OpenProgressBar):
    """Lightning's bar for the epoch that runs, which leaves nothing behind: `EpochLines` stay.

    Beside it: the loss, the epoch's other training metrics so far, examples per second, and the time that is left of
    the whole training at the pace so far, validations included; a training that stops early takes less.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.looked = -math.inf
        self.seen: dict[str, int | str | float | dict[str, float]] = {}
        self.start, self.first_step, self.last_step = 0.0, 0, math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.start, self.first_step = time.monotonic(), trainer.global_step
        self.last_step = self.first_step + steps_left(trainer)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands beside the bar; looked at a few times a second, as a GPU stops to tell."""
        if time.monotonic() - self.looked > 0.2:
            self.looked, self.seen = time.monotonic(), self._look(trainer)
        return self.seen

    def _look(self, trainer: Trainer) -> dict[str, int | str | float | dict[str, float]]:
        known = trainer.callback_metrics
        found: dict[str, int | str | float | dict[str, float]] = {}
        if "train/loss" in known:
            found["loss"] = float(known["train/loss"])
        means = epoch_means(trainer)
        found |= {name.removeprefix("train/"): value for name, value in means.items() if name.startswith("train/")}
        if "train/examples_per_second" in known:
            found["examples/s"] = f"{float(known['train/examples_per_second']):,.0f}"
        if (left := self.seconds_left(trainer)) is not None:
            found["left"] = str(timedelta(seconds=round(left)))
        return found

    def seconds_left(self, trainer: Trainer) -> float | None:
        """Of the whole training; None where its length is not known, or before the first step."""
        done, timer = trainer.global_step - self.first_step, time_limit(trainer)
        by_time = math.inf if timer is None else timer.time_remaining() or 0.0
        by_steps = math.inf
        if done >= 1 and math.isfinite(self.last_step):
            by_steps = (time.monotonic() - self.start) / done * (self.last_step - trainer.global_step)
        left = min(by_time, by_steps)
        return left if math.isfinite(left) else None

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Epoch, bar, batches; Lightning's clock is the epoch's, and its speed that of batches."""
        return super().configure_columns(trainer)[:3]

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the bar; the lock keeps the thread that draws the bar from drawing over it."""
        with self.drawing or nullcontext():
            print(*args, **kwargs)

    def describe_training(self) -> str:
        """The epoch."""
        return f"epoch {counted(self.trainer)}"

    def before_stop(self) -> None:
        """Have it leave nothing behind."""
        if self.progress is not None:
            self.progress.live.transient = True
