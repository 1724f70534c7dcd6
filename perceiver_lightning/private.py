"""Every use of private members of other libraries, so that there is one file to look at when one of them changes.

Lightning and jsonargparse offer no public way to do what stands here. Base classes give a private hook a public name,
functions read one private value. `tests/test_private.py` has a test for each, which fails when a library changes it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen
from typing import Any, get_args

from jsonargparse import ArgumentParser
from jsonargparse._loaders_dumpers import get_yaml_default_loader, yaml_load
from lightning_fabric.loggers.csv_logs import _ExperimentWriter
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.strategies.launchers import subprocess_script
from torch.optim.lr_scheduler import LRScheduler

# ---- the command line


class OpenCLI(LightningCLI):
    """Lightning's command line, whose steps may be overridden under public names."""

    def subcommand_parser(self, subcommand: str) -> LightningArgumentParser:
        """The parser of a subcommand."""
        return self._subcommand_parsers[subcommand]

    def add_subcommand_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Implement to add arguments to one subcommand alone."""

    def set_seed(self) -> None:
        """Seed by the config."""
        super()._set_seed()

    def make_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Make the Trainer of its own config and the callbacks that have keys of their own."""
        return super()._instantiate_trainer(config, callbacks)

    def run_subcommand(self, subcommand: str) -> None:
        """Run it."""
        super()._run_subcommand(subcommand)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self.add_subcommand_arguments(parser, subcommand)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's own memory of a checkpoint: there the checkpoint wins over flags."""

    def _set_seed(self) -> None:
        self.set_seed()

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        return self.make_trainer(config, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_subcommand(subcommand)


def actions(parser: ArgumentParser) -> list[Any]:
    """The arguments that a parser has, each with `dest` and `default`."""
    return parser._actions


def type_of(action: Any) -> Any:
    """The type of a parser's argument, None where it has none."""
    return getattr(action, "_typehint", action.type)


def yaml_loader() -> Any:
    """The class by which jsonargparse reads YAML: another one than PyYAML's tells what is a number."""
    return get_yaml_default_loader()


def whole_numbers_first(parser: ArgumentParser) -> None:
    """Have a parser take `1` for a whole number where a float would do: one batch, not all (`limit_train_batches`).

    jsonargparse takes the first type that fits, and Lightning names float first.
    """
    for action in actions(parser):
        if set(get_args(type_of(action))) == {int, float, type(None)}:
            action._typehint = int | float | None


def yaml_value(text: str) -> Any:
    """What jsonargparse takes a text for, in a config or on the command line."""
    try:
        return yaml_load(text)
    except TypeError:  # it fails to compare the text with a key that is no text: `?`, `1:`
        return text


# ---- what is trained


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The module's Trainer, None where it has none: the public `module.trainer` raises then."""
    return module._trainer


def logs_now(trainer: Trainer) -> bool:
    """Whether this step of the training is one that is logged."""
    return trainer._logger_connector.should_update_logs


def accumulates(trainer: Trainer) -> bool:
    """Whether the batch that was just trained on takes no step of the optimiser."""
    return trainer.fit_loop._should_accumulate()


def epoch_means(trainer: Trainer) -> dict[str, float]:
    """Means so far of what `training_step` logs over the epoch; Lightning tells them at its end."""
    found = {}
    for result in trainer.fit_loop.epoch_loop._results.values():
        meta = result.meta
        is_mean = meta.fx == "training_step" and meta.on_epoch and meta.is_mean_reduction and result.is_tensor
        if is_mean and result.cumulated_batch_size > 0:
            found[meta.name] = float(result.value / result.cumulated_batch_size)
    return found


def log_at_the_last_step(trainer: Trainer) -> None:
    """Log what comes at the number of the last step taken, as a validation in a training does."""
    trainer.fit_loop.epoch_loop._batches_that_stepped -= 1


def set_last_rates(schedule: LRScheduler, rates: list[float]) -> None:
    """Have `schedule.get_last_lr()` return these."""
    schedule._last_lr = list(rates)


def observe_children_with(observe: Callable[[list[Popen]], None]) -> None:
    """Have Lightning's launcher hand the processes that it starts to this, and not to its own observer."""
    launcher: Any = subprocess_script
    launcher._launch_process_observer = observe


def handle_sigterm(trainer: Trainer, handle: Callable[[int, Any], None]) -> None:
    """What the trainer does on SIGTERM, in the place of its own; to be called before it registers its handlers."""
    connector: Any = trainer._signal_connector
    connector._sigterm_notifier_fn = handle


def notice_sigterm(trainer: Trainer) -> None:
    """Have the trainer end after this batch, in all processes, as after a SIGTERM."""
    trainer._signal_connector.received_sigterm = True


def storage_key(storage: Any) -> int:
    """The same number for all tensors that share a storage, on the meta device as well."""
    return storage._cdata


# ---- callbacks and loggers


class OpenCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose decisions may be asked for."""

    def saves_after_training_epochs(self, trainer: Trainer) -> bool:
        """Whether it saves when an epoch of training ends, not after each validation."""
        return self._should_save_on_train_epoch_end(trainer)

    def saves_on_exception(self, trainer: Trainer) -> bool:
        """Whether it saves a training that is cut short now."""
        return self._should_save_on_exception(trainer)

    def has_nothing_to_save(self, trainer: Trainer) -> bool:
        """Whether this step has been saved, or nothing is to be."""
        return self._should_skip_saving_checkpoint(trainer)

    def take_as_saved(self, step: int) -> None:
        """Save nothing more at this step."""
        self._last_global_step_saved = step

    def save_last_checkpoint(self, trainer: Trainer) -> None:
        """Write last.ckpt."""
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class OpenProgressBar(RichProgressBar):
    """Lightning's bar, whose text and end may be overridden."""

    def describe_training(self) -> str:
        """What stands before the bar."""
        return super()._get_train_description(self.trainer.current_epoch)

    def before_stop(self) -> None:
        """Implement to do something when a bar that is shown is about to end."""

    @property
    def drawing(self) -> AbstractContextManager[Any] | None:
        """The lock of the thread that draws the bar; None while none is drawn."""
        return self.progress.live._lock if self.progress is not None else None

    def _get_train_description(self, current_epoch: int) -> str:
        return self.describe_training()

    def _stop_progress(self) -> None:
        if self.progress is not None and not self._progress_stopped:
            self.before_stop()
        super()._stop_progress()


class OpenWriter(ExperimentWriter):
    """Lightning's writer of metrics.csv, which keeps the file of a folder that exists."""

    def _check_log_dir_exists(self) -> None:
        pass


class OpenCSVLogger(CSVLogger):
    """Lightning's CSVLogger, whose writer and version may be set."""

    @property
    def writer(self) -> _ExperimentWriter | None:
        """The writer of the file; None before it is first asked for, and on other processes."""
        return self._experiment

    @writer.setter
    def writer(self, writer: ExperimentWriter) -> None:
        self._experiment = writer

    def next_version(self) -> None:
        """Take the folder after this one."""
        self._version = int(self.version) + 1


class OpenTensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, whose folder may be chosen later."""

    @property
    def writer(self) -> Any:
        """TensorBoard's writer; None before it is first asked for."""
        return self._experiment

    def write_into(self, folder: Path, purge_step: int | None) -> None:
        """Write into this folder; what is there of `purge_step` and later is out of date."""
        self._root_dir = str(folder)
        self._kwargs["purge_step"] = purge_step


class OpenWandb(WandbLogger):
    """Lightning's WandbLogger, whose settings may be changed until its run begins."""

    @property
    def begun(self) -> Any:
        """W&B's run; None before it begins and after `forget`."""
        return self._experiment

    def forget(self) -> None:
        """Begin another run when one is asked for."""
        self._experiment = None

    def setting(self, key: str) -> Any:
        """An argument of `wandb.init`."""
        return self._wandb_init.get(key)

    def change(self, key: str, value: Any) -> None:
        """Set an argument of `wandb.init`; None takes it back."""
        if value is None:
            self._wandb_init.pop(key, None)
        else:
            self._wandb_init[key] = value
        attribute = {"dir": "_save_dir", "name": "_name", "id": "_id", "project": "_project"}.get(key)
        if attribute is not None:
            setattr(self, attribute, value)
