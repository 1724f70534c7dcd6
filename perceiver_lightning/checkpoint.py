"""Opens what was trained: a run, or a checkpoint, with its model and its data.

run = load_run("runs/digits/version_0")       run.model, run.datamodule, run.config, run.metrics
opened = open_checkpoint("best.ckpt")         opened.model, opened.datamodule
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from perceiver_lightning.analysis.runs import Run, read_run
from perceiver_lightning.cli.command import CLI
from perceiver_lightning.cli.messages import without_hints


class LoadedRun(Run):
    """A run that also gives its model and its data, made when they are first asked for."""

    @cached_property
    def _opened(self) -> CLI:
        return open_checkpoint(self.checkpoint)

    @property
    def model(self) -> Any:
        """The LightningModule, with the weights of `checkpoint`, on the CPU, for evaluation."""
        return self._opened.model

    @property
    def datamodule(self) -> Any:
        """The LightningDataModule."""
        return self._opened.datamodule


def load_run(folder: str | Path) -> LoadedRun:
    """A run, as `analysis.runs.read_run` reads it, with `.model` and `.datamodule`.

    Raises:
        InputError: it is not a run, or one of its files is broken; when the model is asked for, it has no checkpoint.
    """
    return LoadedRun(**vars(read_run(folder)))


class Opened(CLI):
    """A command up to the point where it would run."""

    def run_subcommand(self, subcommand: str) -> None:
        """Nothing."""


def open_checkpoint(path: str | Path) -> CLI:
    """The command line object of `test` for that checkpoint, with its weights in `.model`, in evaluation mode.

    Nothing is run or written, and random numbers go on as if nothing had been. Weights and data are those that
    `test --ckpt_path` would take.

    Raises:
        InputError: it is not a checkpoint, or not one of this project's.
    """
    with without_hints(), torch.random.fork_rng(devices=[]):
        cli = Opened(["test", f"--ckpt_path={path}", "--seed_everything=false", "--trainer.accelerator=cpu"])
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    cli.model.load_state_dict(checkpoint["state_dict"])
    cli.datamodule.load_state_dict(checkpoint.get(type(cli.datamodule).__qualname__, {}))  # where Lightning keeps it
    cli.model.eval()
    return cli
