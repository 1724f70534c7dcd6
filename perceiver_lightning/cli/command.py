"""The command line: a config names data and model, the data's facts build the model, and a run is kept in one folder.

    python -m perceiver_lightning fit      --config FILE [--config FILE ...] [--key value ...]
    python -m perceiver_lightning test     --ckpt_path FILE          (also validate)
    python -m perceiver_lightning predict  --ckpt_path FILE --data.init_args.predict_dir FOLDER
    python -m perceiver_lightning fit      --ckpt_path FILE          goes on with a training
    python -m perceiver_lightning summary  --config FILE [--json FILE]     what a training would cost

A run is a folder, `runs/<name>/version_k/`, with config.yaml (the whole configuration), metrics.csv and checkpoints/
(best.ckpt and last.ckpt). A checkpoint holds the configuration too, so it needs nothing beside it; what is given on
the command line, in configs or as flags, wins over what it remembers. Resuming goes on in the run's own folder,
unless `--name` or `--runs_dir` asks for another; validate, test and predict write into it as well.
"""

import contextlib
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import rich
import torch
import yaml
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException

import datamodules
from perceiver_lightning.analysis.runs import load_run, summary_table
from perceiver_lightning.cli.messages import in_words
from perceiver_lightning.cli.parser import Parser, check_settings, look_ahead
from perceiver_lightning.cli.reports import (
    how_to_resume,
    next_commands,
    nothing_trained,
    opening,
    remove_without_checkpoint,
    shown,
)
from perceiver_lightning.cli.resume import read_checkpoint
from perceiver_lightning.cli.summary import SummaryTrainer
from perceiver_lightning.errors import InputError
from perceiver_lightning.training.checkpoints import BestAndLast, ConfigWins, KeepConfig
from perceiver_lightning.training.explain import Explain
from perceiver_lightning.training.loggers import RunLogger, TensorBoard
from perceiver_lightning.training.measures import Measures
from perceiver_lightning.training.memory import keep_freed_memory
from perceiver_lightning.training.predictions import PredictionWriter
from perceiver_lightning.training.progress import Bar, EpochLines
from perceiver_lightning.training.stopping import Finite, Patience
from perceiver_lightning.training.wandb_logger import Wandb
from perceiver_lightning.training.wandb_report import WandbReport

for name in datamodules.__all__:  # configs name them by their short names
    getattr(datamodules, name)

FACTS = ("modalities", "num_classes", "class_names", "multilabel")
# What a checkpoint's configuration is taken over from; the first five also by validate, test and predict, which may
# run on other hardware.
REMEMBERED = (
    *("name", "runs_dir", "seed_everything", "model", "data"),
    *("trainer", "checkpoint", "early_stopping", "measures"),
)
PROGRAM = "python -m perceiver_lightning"

# Lightning's hints that say nothing to a person here, each with the reason.
QUIET_WARNINGS = (
    ".*does not have many workers.*",  # small data in memory is read fastest without workers; a config's choice
    ".*The number of training batches .* is smaller than the logging interval.*",  # each epoch is logged anyway
    ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run goes on in its folder
    ".*callbacks used to create the checkpoint need to be provided.*",  # said when a flag changed the monitor
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # EpochLines show the step it goes on from
    ".*It is recommended to use .*sync_dist=True.*",  # train/loss on the bar is the first process's
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6 with torch 2.14
)


def main(args: list[str] | None = None) -> "CLI":
    """Run a command; the way in from a terminal, a test or a notebook.

    Args:
        args: the command line, such as `["fit", "--config", "configs/image/digits.yaml"]`; the process's own if None.

    Returns:
        the command line object, with `.model`, `.datamodule`, `.trainer` and `.config`.

    Raises:
        SystemExit: with status 2 after one sentence on stderr when the input is wrong, with 130 after Ctrl-C, with 0
            after --help or --print_config. With `--debug` among the arguments, wrong input raises InputError.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    keep_freed_memory()
    with warnings.catch_warnings():
        for message in QUIET_WARNINGS:
            warnings.filterwarnings("ignore", message)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning|jsonargparse")
        for name in ("pytorch_lightning", "lightning_fabric"):  # tips, devices, seeds: the run's first line says more
            logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
        try:
            return CLI([arg for arg in args if arg != "--debug"])
        except InputError as error:
            if debug:
                raise
            # A process that reads data ahead hands on its whole traceback, which ends in the sentence.
            print(f"error: {str(error).rpartition('InputError: ')[2].strip()}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)


class CLI(LightningCLI):
    """Lightning's command line with this project's defaults, run folders and memory.

    Another subcommand `name` is an entry in `subcommands()` and a method `name` of the Trainer (a subclass of it).
    """

    def __init__(self, args: list[str]) -> None:
        self.memory: dict[str, Any] = {}  # what the checkpoint remembers: `read_checkpoint`
        self.run = Path()  # the run's folder
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=SummaryTrainer,
            save_config_callback=KeepConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"log_every_n_steps": 10, "enable_model_summary": False},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": PROGRAM, "allow_abbrev": False},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hyper-parameters are what the task was made with, facts included
            args=args,
        )

    # ---- what can be said

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, and `summary`."""
        return {**LightningCLI.subcommands(), "summary": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name, the callbacks with their defaults, and the facts that go from the data to the model."""
        parser.add_argument("--name", default="perceiver", help="The run is kept in <runs_dir>/<name>/version_k.")
        parser.add_argument("--runs_dir", default="runs", help="The folder of all runs.")
        parser.add_lightning_class_args(BestAndLast, "checkpoint")
        parser.add_lightning_class_args(Patience, "early_stopping")
        parser.add_lightning_class_args(Measures, "measures")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.save_on_exception": True,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
                "early_stopping.monitor": "val/accuracy",
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
            }
        )
        for fact in FACTS:
            parser.link_arguments(f"data.{fact}", f"model.init_args.{fact}", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument("--output", default=None, help="CSV file; predictions.csv of the run if not given.")
            parser.add_argument("--explain", metavar="FOLDER", help="Also draw where the model looks, in 32 examples.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a checkpoint's configuration comes first, as if it were the first --config."""
        assert isinstance(args, list)
        ckpt_path, named = look_ahead(args)
        at = next((i for i, arg in enumerate(args) if arg in self.subcommands()), None)
        if ckpt_path and at is not None:
            self.memory = read_checkpoint(ckpt_path)
            keys = REMEMBERED if args[at] == "fit" else REMEMBERED[:5]
            remembered = {key: value for key, value in self.memory["config"].items() if key in keys}
            for key in {"model", "data"} & remembered.keys():  # another class takes none of its arguments
                own = remembered[key]["class_path"].split(".")[-1]
                if any(name.split(".")[-1] != own for name in named[key]):
                    del remembered[key]
            args = [*args[: at + 1], "--config", yaml.safe_dump(remembered), *args[at + 1 :]]
        Parser.keys = {action.dest for sub in self._subcommand_parsers.values() for action in sub._actions}
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's own memory of a checkpoint: there the checkpoint wins over flags."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
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
        if ckpt_path is not None and not self.memory:  # named in a config, not as a flag
            self.memory = read_checkpoint(ckpt_path)
        if self.subcommand == "fit" and not self.memory.get("resumable", True):
            raise InputError(
                f"--ckpt_path: expected the optimiser's state to go on with, found only weights in {ckpt_path}"
            )
        remembered = self.memory.get("config", {})
        if self.subcommand == "fit" and any(config[key] != remembered.get(key) for key in ("name", "runs_dir")):
            self.memory["run"] = None
        if self.subcommand == "predict" and config.get("data.init_args.num_classes", 0) is None:
            # The folder of the training, which tells the classes, may be gone by now: the checkpoint knows them.
            config.data.init_args.num_classes = self.memory["num_classes"]
        for key in ("logger", "callbacks"):  # `logger+` in a config appends once more to what the checkpoint remembers
            items = config.trainer[key]
            if isinstance(items, list):
                config.trainer[key] = [item for i, item in enumerate(items) if item not in items[:i]]
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")  # TensorFloat-32: several times faster, close enough to train

    def instantiate_classes(self) -> None:
        """Make data, model and trainer."""
        try:
            with in_words():
                super().instantiate_classes()
        except ValueError as error:
            # jsonargparse tries each type that an argument may have, and wraps what the classes themselves raise.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise  # a bug keeps its traceback
            raise cause from None

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """The Trainer, with the run's metrics.csv as its first logger, whose folder is the run's."""
        if self.subcommand == "summary":  # wherever it will be trained: nothing runs, and nothing is kept
            quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            return SummaryTrainer(accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
        asked = self.config[self.subcommand]
        fit = self.subcommand == "fit"
        own = self.memory.get("run")
        self.run_logger = RunLogger(asked.runs_dir, asked.name, own, self.memory.get("step") if fit else None)
        self.run = Path(self.run_logger.log_dir)
        loggers = config["logger"] if isinstance(config["logger"], list) else [config["logger"]]
        config["logger"] = [self.run_logger, *(logger for logger in loggers if isinstance(logger, Logger))]

        if not fit:
            callbacks = []
        elif config["enable_checkpointing"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, BestAndLast)]
        if fit:
            callbacks = [Finite(), *callbacks, LearningRateMonitor(), ConfigWins(), EpochLines()]
            if any(isinstance(logger, Wandb) for logger in config["logger"]):
                callbacks = [*callbacks, WandbReport()]
        if self.subcommand == "predict":
            self.output = Path(asked.output or self.run / "predictions.csv")
            data: Any = self.datamodule
            callbacks = [*callbacks, PredictionWriter(self.output, data.class_names, data.multilabel)]
            if asked.explain is not None:
                callbacks = [*callbacks, Explain(asked.explain)]
        given = config["callbacks"] if isinstance(config["callbacks"], list) else [config["callbacks"]]
        if not any(isinstance(callback, ProgressBar) for callback in given):
            screen = rich.get_console()
            if config["enable_progress_bar"] is not False and (screen.is_terminal or screen.is_jupyter):
                callbacks = [*callbacks, Bar()]
            else:
                config["enable_progress_bar"] = False
        return super()._instantiate_trainer(config, callbacks)

    # ---- what is done with it

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it, say where the results are, and leave nothing half-written."""
        if subcommand == "summary":
            return super()._run_subcommand(subcommand)
        is_kept = not self.config[subcommand].trainer.fast_dev_run
        speaks = self.trainer.is_global_zero and is_kept
        is_new = not self.run.exists()
        if speaks and subcommand == "fit" and self.memory.get("run") is None:
            self.run, is_new = self.run_logger.reserve(), True
        for logger in self.trainer.loggers:
            if isinstance(logger, Wandb):
                logger.keep_in(self.run)
            elif isinstance(logger, TensorBoard):
                logger.keep_in(self.run, self.memory.get("step") if subcommand == "fit" else None)
        if "loops" in self.memory and subcommand != "fit":
            # Results are logged at the checkpoint's own step, as those of the validation there were.
            self.trainer.fit_loop.load_state_dict(self.memory["loops"])
            self.trainer.fit_loop.epoch_loop._batches_that_stepped -= 1
        if speaks:
            step = self.memory.get("step") if subcommand == "fit" else None
            print(opening(self.trainer, self.model, self.datamodule, self.run, step), flush=True)
        try:
            with in_words():
                super()._run_subcommand(subcommand)
                if subcommand == "fit" and is_kept and self.trainer.global_step == self.memory.get("step", 0):
                    raise InputError(nothing_trained(self.config[subcommand]))
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
            trained = subcommand == "fit" and self.trainer.global_step > self.memory.get("step", 0)
            if speaks and is_new and not trained:
                remove_without_checkpoint(self.run, self.run_logger.made)
            if speaks and (trained or (interrupted and subcommand == "fit")):
                print(how_to_resume(self.trainer, self.run), flush=True)
            if isinstance(error, SystemExit):  # Lightning's own: after Ctrl-C, or a SIGTERM
                sys.exit(143 if isinstance(error, SIGTERMException) else 130)
            raise
        if speaks:
            if subcommand == "fit":
                with contextlib.suppress(InputError):  # a training so short that nothing was logged
                    rich.print(summary_table(load_run(self.run)))
                print(next_commands(self.trainer, self.run), flush=True)
            else:
                results = self.output if subcommand == "predict" else self.run / "metrics.csv"
                print(f"results  {shown(results)}", flush=True)


class Opened(CLI):
    """A command up to the point where it would run."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def opened(checkpoint: str | Path) -> CLI:
    """The command line object of `test` for that checkpoint, with its weights in `.model`, in evaluation mode.

    Nothing is run or written, and random numbers go on as if nothing had been. Weights and data are those that
    `test --ckpt_path` would take.

    Raises:
        InputError: it is no checkpoint, or not one of this project's.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        for message in QUIET_WARNINGS:
            warnings.filterwarnings("ignore", message)
        cli = Opened(["test", f"--ckpt_path={checkpoint}", "--seed_everything=false", "--trainer.accelerator=cpu"])
    cli.model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    cli.model.eval()
    return cli
