"""What happens around a training: what is kept, what is shown, what is written."""

import csv
import math
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import SaveConfigCallback
from torch.optim.lr_scheduler import LambdaLR

from perceiver_lightning.errors import InputError


class BestAndLast(ModelCheckpoint):
    """`best.ckpt` by a metric of the validation, and `last.ckpt`, the newest state, also of a training cut short.

    What Lightning's own does otherwise: last.ckpt is written after every epoch, not only with a new best; a training
    that is cut short writes last.ckpt and leaves best.ckpt alone; a run goes on with its best value wherever its folder
    has been moved to, and a new run that starts from another's checkpoint begins its own; a metric that nobody logs is
    found before training.
    """

    _trains = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on there is something to lose."""
        super().on_train_start(trainer, pl_module)
        self._trains = True
        self._last_global_step_saved = trainer.global_step

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the newest state, unless there was no step, or it is of no use."""
        if self._trains and not isinstance(exception, Diverged) and self._should_save_on_exception(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the metric is there: Lightning's short validation before training finds that out in time."""
        check_monitor("checkpoint.monitor", self.monitor, trainer)
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._save_newest(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, where that is not done after each validation."""
        if self.monitor is None or self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)
        self._save_newest(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is left; Lightning's own writes last.ckpt here even of a trial run (fast_dev_run)."""
        self._save_newest(trainer)

    def _save_newest(self, trainer: Trainer) -> None:
        """Write last.ckpt, unless this step has been saved: so a new best comes first, or it would not be saved."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A validation that was cut short begins anew: Lightning would leave out as many of its last batches."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]
        progress.update(dict.fromkeys(progress, 0))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best so far where its file is beside the new ones."""
        if self.dirpath is None or not os.path.isfile(self._here(state_dict["best_model_path"])):
            return
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        state_dict = state_dict | {key: self._here(state_dict[key]) for key in paths}
        state_dict["best_k_models"] = {self._here(path): best for path, best in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        """The file of that name in this run; "", no file, stays ""."""
        return path and os.path.join(str(self.dirpath), os.path.basename(path))


class Patience(EarlyStopping):
    """Early stopping that keeps its own patience on resume, not the checkpoint's."""

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


class KeepConfig(SaveConfigCallback):
    """The whole configuration, nulls as well (a default may be something else), in config.yaml and each checkpoint."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not yet: a checkpoint that does not fit must leave the run it is of as it is."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is something to train: write config.yaml, which trains the run from its start."""
        folder, config = trainer.log_dir, self.config.clone()
        if folder and trainer.is_global_zero:
            if trainer.ckpt_path and Path(trainer.ckpt_path).resolve().is_relative_to(Path(folder).resolve()):
                config["ckpt_path"] = None
            self.parser.save(config, os.path.join(folder, "config.yaml"), skip_unset=False, overwrite=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """As YAML text, which a checkpoint may hold: it is read with weights_only."""
        checkpoint["config"] = self.parser.dump(self.config, skip_unset=False)


class ConfigWins(Callback):
    """After a resume the optimisers have the settings of the config, not the checkpoint's.

    Restoring an optimiser and its schedule brings back the learning rate and weight decay they were saved with, so
    that a new value on the command line would be silently lost. The momenta and the place on the schedule stay.
    Schedules are LambdaLR (`training/optim.py`): a factor, a function of the step, times the learning rate.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The optimisers are made from the config; the checkpoint's state is not yet in them."""
        self.groups = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The checkpoint's state is in them."""
        for optimizer, groups in zip(trainer.optimizers, self.groups, strict=True):
            for group, configured in zip(optimizer.param_groups, groups, strict=True):
                group.update(configured)
        for config in trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                groups = schedule.optimizer.param_groups
                schedule.base_lrs = [group["initial_lr"] for group in groups]
                for group, factor in zip(groups, schedule.lr_lambdas, strict=True):
                    group["lr"] = group["initial_lr"] * factor(schedule.last_epoch)
                schedule._last_lr = [group["lr"] for group in groups]


def headline(trainer: Trainer) -> dict[str, float]:
    """The losses and the metric that decides what is best, as far as they are known."""
    monitor = getattr(trainer.checkpoint_callback, "monitor", None)
    names = dict.fromkeys(["train/loss", "val/loss", "val/accuracy", monitor])
    return {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}


def counted(trainer: Trainer) -> str:
    """The epoch that runs, counted from 1, of how many if that is known: " 3/30"."""
    last = str(trainer.max_epochs) if trainer.max_epochs is not None and trainer.max_epochs > 0 else ""
    return f"{trainer.current_epoch + 1:>{len(last)}}{'/' if last else ''}{last}"


class EpochLines(Callback):
    """One line per validation, and per epoch without any: reads well in a terminal, above the bar, and in a file."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start, self.validated, self.first_step = time.monotonic(), -1, trainer.global_step

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


class Bar(RichProgressBar):
    """Lightning's bar for the epoch that runs, which leaves nothing behind: `EpochLines` stay.

    Beside it: the loss, the epoch's accuracy so far, examples per second, and the time that is left of the whole
    training at the pace so far, validations included; a training that stops early takes less.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.looked = -math.inf
        self.seen: dict[str, int | str | float | dict[str, float]] = {}
        self.start, self.first_step = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.start, self.first_step = time.monotonic(), trainer.global_step

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
        # Lightning tells the mean over an epoch at its end: this is what it has of it.
        accuracy = trainer.fit_loop.epoch_loop._results.get("training_step.train/accuracy")
        if accuracy is not None and accuracy.cumulated_batch_size > 0:
            found["accuracy"] = float(accuracy.value / accuracy.cumulated_batch_size)
        if "train/examples_per_second" in known:
            found["examples/s"] = f"{float(known['train/examples_per_second']):,.0f}"
        if (left := self.seconds_left(trainer)) is not None:
            found["left"] = str(timedelta(seconds=round(left)))
        return found

    def seconds_left(self, trainer: Trainer) -> float | None:
        """Of the whole training; None where its length is not known, or before the first step."""
        done = trainer.global_step - self.first_step
        if done < 1 or not math.isfinite(steps := trainer.estimated_stepping_batches):
            return None
        return (time.monotonic() - self.start) / done * (steps - trainer.global_step)

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Epoch, bar, batches; Lightning's clock is the epoch's, and its speed that of batches."""
        return super().configure_columns(trainer)[:3]

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the bar; the lock keeps the thread that draws the bar from drawing over it."""
        with self.progress.live._lock if self.progress is not None else nullcontext():
            print(*args, **kwargs)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {counted(self.trainer)}"

    def _stop_progress(self) -> None:
        if self.progress is not None and not self._progress_stopped:
            self.progress.live.transient = True
            super()._stop_progress()


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
