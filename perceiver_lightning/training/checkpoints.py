"""What is kept of a training: best.ckpt, last.ckpt, the configuration; and what a resumed one takes from it."""

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.cli import SaveConfigCallback
from torch.optim.lr_scheduler import LambdaLR

from perceiver_lightning.private import OpenCheckpoint, set_last_rates
from perceiver_lightning.training.steps import rescale_epoch, settle_epoch, start_afresh, steps_left, steps_per_epoch
from perceiver_lightning.training.stopping import Diverged, check_monitor


class BestAndLast(OpenCheckpoint):
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
        self.take_as_saved(trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the newest state, unless there was no step, or it is of no use."""
        if self._trains and not isinstance(exception, Diverged) and self.saves_on_exception(trainer):
            self.save_last_checkpoint(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the metric is there: Lightning's short validation before training finds that out in time."""
        check_monitor("checkpoint.monitor", self.monitor, trainer)
        super().on_validation_end(trainer, pl_module)
        if not self.saves_after_training_epochs(trainer):
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
        if not self.has_nothing_to_save(trainer):
            self.save_last_checkpoint(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A validation that was cut short begins again: Lightning would leave out as many of its last batches."""
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


class KeepConfig(SaveConfigCallback):
    """The whole configuration, nulls as well (a default may be something else), in config.yaml and each checkpoint."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not yet: a checkpoint that does not fit must leave its run unchanged."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is something to train: write config.yaml, which trains the run from its start."""
        folder, config = trainer.log_dir, self.config.clone()
        if folder and trainer.is_global_zero:
            if trainer.ckpt_path and Path(trainer.ckpt_path).resolve().is_relative_to(Path(folder).resolve()):
                config["ckpt_path"] = None
            text = self.parser.dump(config, skip_unset=False)
            Path(folder, "config.yaml").write_text(text, encoding="utf-8")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """As YAML text, which a checkpoint may hold: it is read with weights_only."""
        checkpoint["config"] = self.text

    @cached_property
    def text(self) -> str:
        """The configuration; made once, as the parser checks all of it each time."""
        return self.parser.dump(self.config, skip_unset=False)


class ConfigWins(Callback):
    """After a resume the optimisers have the settings of the config, not the checkpoint's.

    Restoring an optimiser and its schedule brings back the learning rate and weight decay they were saved with, so
    that a new value on the command line would be silently lost. The momenta stay.

    The schedule goes on at the same share of the training, and ends with it, even if an epoch now has another number of
    steps: by another batch size, accumulation or number of devices. An epoch that was cut is finished.
    Schedules are LambdaLR (`training/optim.py`): a factor, a function of the step, times the learning rate.
    """

    then: dict[str, float]  # batches and steps of an epoch, of the training that wrote the checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The optimisers are made from the config; the checkpoint's state is not yet in them."""
        self.groups = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the length of an epoch."""
        checkpoint["per_epoch"] = {"batches": trainer.num_training_batches, "steps": steps_per_epoch(trainer)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Before Lightning reads how far the training came."""
        self.then = checkpoint.get("per_epoch", {})
        settle_epoch(checkpoint["loops"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The checkpoint's state is in them."""
        start_afresh(trainer)
        if then := getattr(self, "then", None):
            rescale_epoch(trainer, then["batches"])
            if trainer.is_global_zero and then["steps"] != steps_per_epoch(trainer):
                print(other_steps(trainer, then["steps"]), flush=True)
        for optimizer, groups in zip(trainer.optimizers, self.groups, strict=True):
            for group, configured in zip(optimizer.param_groups, groups, strict=True):
                group.update(configured)
        total, left = trainer.estimated_stepping_batches, steps_left(trainer)
        for config in trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                if config.interval == "step" and math.isfinite(left):
                    schedule.last_epoch = int(total - left)
                groups = schedule.optimizer.param_groups
                schedule.base_lrs = [group["initial_lr"] for group in groups]
                for group, factor in zip(groups, schedule.lr_lambdas, strict=True):
                    group["lr"] = group["initial_lr"] * factor(schedule.last_epoch)
                set_last_rates(schedule, [group["lr"] for group in groups])


def other_steps(trainer: Trainer, then: float) -> str:
    """A line on an epoch that has another number of steps than `then`, before the resume."""
    averages = any(isinstance(one, WeightAveraging) for one in trainer.callbacks)  # type: ignore[attr-defined]
    return (
        f"an epoch has {steps_per_epoch(trainer)} steps, where it had {then}: the learning rate goes on at the same "
        f"share of the training{'; the average of the weights counts steps as before' if averages else ''}"
    )
