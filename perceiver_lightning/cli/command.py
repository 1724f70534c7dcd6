"""The command line: a config names data and model, the data's facts build the model, and a run is kept in one folder.

    python -m perceiver_lightning fit      --config FILE [--config FILE ...] [--key value ...]
    python -m perceiver_lightning test     --ckpt_path FILE          (also validate)
    python -m perceiver_lightning predict  --ckpt_path FILE --data.init_args.predict_dir FOLDER
    python -m perceiver_lightning fit      --ckpt_path FILE          goes on with a training
    python -m perceiver_lightning summary  --config FILE [--json FILE]     what a training would cost
    python -m perceiver_lightning check    --config FILE     what each split holds, and whether files are in two of them
    python -m perceiver_lightning baseline --config FILE     what simple models reach on the same splits

A run is a folder, `runs/<name>/version_k/`, with config.yaml (the whole configuration), metrics.csv and checkpoints/
(best.ckpt and last.ckpt). A checkpoint holds the configuration too, so it needs nothing beside it; what is given on
the command line, in configs or as flags, wins over what it remembers. Resuming goes on in the run's own folder,
unless `--name` or `--runs_dir` asks for another; validate, test and predict write into it as well.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from perceiver_lightning.analysis.baselines import FOLDER as BASELINES
from perceiver_lightning.analysis.runs import read_run, summary_table
from perceiver_lightning.cli.carried import log_for
from perceiver_lightning.cli.commands import CommandTrainer
from perceiver_lightning.cli.facts import fill_in_facts, link_facts
from perceiver_lightning.cli.messages import in_words, tell, wrapped
from perceiver_lightning.cli.parser import Parser, check_modes, check_settings, look_ahead, once_each
from perceiver_lightning.cli.reports import (
    how_to_resume,
    next_commands,
    opening,
    path_as_typed,
    remove_without_checkpoint,
)
from perceiver_lightning.cli.resume import Memory, check_resumable, nothing_trained, read_checkpoint
from perceiver_lightning.cli.unused import Unreached, without_effect
from perceiver_lightning.clock import time_spent
from perceiver_lightning.errors import InputError
from perceiver_lightning.private import OpenCLI, actions, log_at_the_last_step, whole_numbers_first
from perceiver_lightning.tasks import PerceiverTask
from perceiver_lightning.training.checkpoints import BestAndLast, ConfigWins, KeepConfig
from perceiver_lightning.training.explain import Explain
from perceiver_lightning.training.loggers import RunLogger, TensorBoard
from perceiver_lightning.training.measures import Measures
from perceiver_lightning.training.predictions import PredictionWriter, check_output
from perceiver_lightning.training.processes import Together
from perceiver_lightning.training.progress import Bar, DataLine, EpochLines
from perceiver_lightning.training.stopping import Finite, Patience
from perceiver_lightning.training.wandb_logger import Wandb
from perceiver_lightning.training.wandb_report import WandbReport
from perceiver_lightning.yaml_text import each_string

PROGRAM = "python -m perceiver_lightning"


class CLI(OpenCLI):
    """Lightning's command line with this project's defaults, run folders and memory.

    Another subcommand `name` is an entry in `subcommands()` and a method `name` of the Trainer (a subclass of it).
    """

    def __init__(self, args: list[str]) -> None:
        self.command = look_ahead(args, ALL_SUBCOMMANDS)
        self.memory = self.command.memory or Memory()
        self.run = Path()  # the run's folder
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=CommandTrainer,
            save_config_callback=KeepConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"log_every_n_steps": 10, "gradient_clip_val": 1.0, "enable_model_summary": False},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": PROGRAM, "allow_abbrev": False, "logger": log_for(self.command.lines)},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hyper-parameters are what the task was made with, facts included
            args=self.command.args,
        )

    # ---- what can be said

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Lightning's, and `summary`; the one that is asked for alone, as building a parser takes time."""
        asked = self.command.subcommand
        return ALL_SUBCOMMANDS if asked is None else {asked: ALL_SUBCOMMANDS[asked]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name, the callbacks with their defaults, and the facts that go from the data to the model."""
        task = self.command.task or PerceiverTask
        parser.add_argument(
            "--name", type=str, default="perceiver", help="The run is kept in <runs_dir>/<name>/version_k."
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="The folder of all runs.")
        parser.add_lightning_class_args(BestAndLast, "checkpoint")
        parser.add_lightning_class_args(Patience, "early_stopping")
        parser.add_lightning_class_args(Measures, "measures")
        best = {key: getattr(task, key, getattr(PerceiverTask, key)) for key in ("monitor", "mode")}
        parser.set_defaults(
            {
                **{f"{callback}.{key}": best[key] for callback in ("checkpoint", "early_stopping") for key in best},
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.save_on_exception": True,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
            }
        )
        link_facts(parser, task)
        whole_numbers_first(parser)

    def add_subcommand_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Where `predict` writes; the model that `check` does not need."""
        if subcommand == "check":
            parser.set_defaults({"model": {"class_path": "pytorch_lightning.LightningModule"}})
        if subcommand == "predict":
            parser.add_argument(
                "--output", type=str, default=None, help="CSV file; predictions.csv of the run if not given."
            )
            parser.add_argument(
                "--explain", type=str, metavar="FOLDER", help="Also draw where the model looks, in 32 examples."
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; Lightning's own warns of arguments in sys.argv."""
        parsers = map(self.subcommand_parser, self.subcommands())
        Parser.keys = [*(action.dest for subparser in parsers for action in actions(subparser)), *self.command.places]
        try:
            self.config = each_string(parser.parse_args(self.command.args), str)
        except SystemExit:  # after --print_config
            tell(self.command.lines)
            raise

    def set_seed(self) -> None:
        """Seed by the config."""
        try:
            super().set_seed()
        except ValueError as error:
            raise InputError(f"seed_everything: {error}") from error

    # ---- what is made of it

    def before_instantiate_classes(self) -> None:
        """Find the run's folder, which is the checkpoint's own if it has one and no other is asked for."""
        config = self.config[self.subcommand]
        check_settings(config)
        ckpt_path = config.get("ckpt_path")
        if ckpt_path is None and self.subcommand in ("validate", "test", "predict"):
            raise InputError(f"{self.subcommand}: expected --ckpt_path FILE, the checkpoint of a run, found none")
        if ckpt_path is not None and self.command.memory is None:  # named in a config, not as a flag
            self.memory = read_checkpoint(ckpt_path)
        if self.subcommand == "fit":
            check_resumable(config, self.memory)
        remembered = self.memory.config
        if self.subcommand == "fit" and any(config[key] != remembered.get(key) for key in ("name", "runs_dir")):
            self.memory.run = None
        if self.subcommand == "predict":
            fill_in_facts(config, self.command.task, self.memory.facts)
        once_each(config.trainer)
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")  # TensorFloat-32: several times faster, close enough to train

    def instantiate_classes(self) -> None:
        """Make data, model and trainer."""
        try:
            with in_words():
                super().instantiate_classes()
        except ValueError as error:
            if (cause := wrapped(error)) is None:
                raise  # a bug keeps its traceback
            raise cause from None

    def make_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """The Trainer, with the run's metrics.csv as its first logger, whose folder is the run's."""
        asked = self.config[self.subcommand]
        if self.subcommand in OWN_SUBCOMMANDS:  # wherever it will be trained: nothing runs, and nothing is kept
            quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            trainer = CommandTrainer(accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
            trainer.folder = Path(asked.runs_dir) / BASELINES / asked.name
            trainer.config = {"name": asked.name, "data": asked.data.as_dict()}
            return trainer
        self.run_logger = RunLogger(asked.runs_dir, asked.name, self.memory.run, self.resumes_at)
        self.run = Path(self.run_logger.log_dir)
        config["logger"] = [self.run_logger, *(one for one in as_list(config["logger"]) if isinstance(one, Logger))]
        callbacks = self.chosen_callbacks(config, callbacks)
        if not any(isinstance(callback, ProgressBar) for callback in as_list(config["callbacks"])):
            screen = rich.get_console()
            if config["enable_progress_bar"] is not False and (screen.is_terminal or screen.is_jupyter):
                callbacks = [*callbacks, Bar()]
            else:
                config["enable_progress_bar"] = False
        return super().make_trainer(config, callbacks)

    def chosen_callbacks(self, config: dict[str, Any], callbacks: list[Callback]) -> list[Callback]:
        """The callbacks that this command needs, of those with keys of their own and of others."""
        asked = self.config[self.subcommand]
        if self.subcommand == "predict":
            self.output = Path(asked.output or self.run / "predictions.csv")
            check_output(self.output)
            explain = [] if asked.explain is None else [Explain(asked.explain)]
            return [Together(), DataLine(), PredictionWriter(self.output), *explain]
        if self.subcommand != "fit":
            return [Together(), DataLine()]
        check_modes(asked, self.model)
        without: tuple[type, ...] = (BestAndLast,) if config["enable_checkpointing"] is False else ()
        if asked.early_stopping.patience is None:
            without = (*without, Patience)
        callbacks = [callback for callback in callbacks if not isinstance(callback, without)]
        report = [WandbReport()] if any(isinstance(logger, Wandb) for logger in config["logger"]) else []
        return [
            Together(),
            DataLine(),
            Finite(),
            Unreached(asked.as_dict()),
            *callbacks,
            LearningRateMonitor(),
            ConfigWins(),
            EpochLines(),
            *report,
        ]

    # ---- what is done with it

    @property
    def resumes_at(self) -> int | None:
        """The step that a training goes on from; None of one that begins, and of other commands."""
        goes_on = self.subcommand == "fit" and self.memory.loops is not None
        return self.memory.step if goes_on else None

    def run_subcommand(self, subcommand: str) -> None:
        """Run it, say where the results are, and leave nothing half-written."""
        tell(self.command.lines)
        if subcommand == "fit":
            tell(without_effect(self.config.fit.as_dict(), getattr(self.datamodule, "modalities", ())))
        if subcommand in OWN_SUBCOMMANDS:
            with in_words():
                return super().run_subcommand(subcommand)
        is_kept = not self.config[subcommand].trainer.fast_dev_run
        speaks = self.trainer.is_global_zero and is_kept
        is_new = not os.path.exists(self.run)
        if speaks and subcommand == "fit" and self.memory.run is None:
            self.run, is_new = self.run_logger.reserve(), True
        for logger in self.trainer.loggers:
            if isinstance(logger, Wandb):
                logger.keep_in(self.run)
            elif isinstance(logger, TensorBoard):
                logger.keep_in(self.run, self.resumes_at)
        if self.memory.loops is not None and subcommand != "fit":
            # Results are logged at the checkpoint's own step, as those of the validation there were.
            self.trainer.fit_loop.load_state_dict(self.memory.loops)
            log_at_the_last_step(self.trainer)
        if speaks:
            print(opening(self.trainer, self.model, self.datamodule, self.run, self.resumes_at), flush=True)
        try:
            with in_words():
                super().run_subcommand(subcommand)
                if subcommand == "fit" and is_kept and self.trainer.global_step == self.memory.step:
                    is_late = time_spent(self.trainer) >= 1
                    raise InputError(nothing_trained(self.config[subcommand], self.memory, is_late))
        except BaseException as error:
            self.clean_up(error, speaks, is_new)
            if isinstance(error, SystemExit):  # Lightning's own: after Ctrl-C, or a SIGTERM
                sys.exit(143 if isinstance(error, SIGTERMException) else 130)
            raise
        if speaks:
            self.report()

    def clean_up(self, error: BaseException, speaks: bool, is_new: bool) -> None:
        """After an error: leave nothing of a run that came to nothing, and say how to go on with one that did not."""
        fit = self.subcommand == "fit"
        trained = fit and self.trainer.global_step > self.memory.step
        if speaks and is_new and not trained:
            remove_without_checkpoint(self.run, self.run_logger.made)
        if speaks and (trained or (fit and isinstance(error, KeyboardInterrupt | SystemExit))):
            print(how_to_resume(self.trainer, self.run), flush=True)

    def report(self) -> None:
        """Say where the results are."""
        if self.subcommand == "fit":
            with contextlib.suppress(InputError):  # a training so short that nothing was logged
                rich.print(summary_table(read_run(self.run)))
            print(next_commands(self.trainer, self.run), flush=True)
        else:
            results = self.output if self.subcommand == "predict" else self.run / "metrics.csv"
            print(f"results  {path_as_typed(results)}", flush=True)


OWN_SUBCOMMANDS = {name: {"model", "datamodule"} for name in ("summary", "check", "baseline")}
ALL_SUBCOMMANDS = {**OpenCLI.subcommands(), **OWN_SUBCOMMANDS}


def as_list(given: Any) -> Sequence[Any]:
    """What the Trainer takes as one or several."""
    return given if isinstance(given, list) else [given]
