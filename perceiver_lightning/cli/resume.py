"""What a checkpoint remembers of its run."""

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule

from perceiver_lightning.errors import InputError
from perceiver_lightning.names import shown
from perceiver_lightning.yaml_text import load_config


@dataclass
class Memory:
    """What a checkpoint remembers, without its tensors; of a command without a checkpoint nothing.

    config     the configuration of the training; from config.yaml of the run where the checkpoint has only weights,
               and {} where that is missing too
    step       the number of optimiser steps taken
    loops      how far the training came, for `fit_loop.load_state_dict`
    resumable  whether it has the optimiser's state
    run        the run's folder, if the checkpoint lies in one
    facts      the task's hyper-parameters, among them the facts of the data that it was trained on
    """

    config: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    loops: dict[str, Any] | None = None
    resumable: bool = True
    run: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """The epochs that are trained to their end."""
        if self.loops is None:
            return 0
        done = self.loops["epoch_progress"]["current"]
        is_whole = self.loops["epoch_loop.batch_progress"].get("is_last_batch")
        return done["processed" if is_whole else "completed"]


def read_checkpoint(path: str) -> Memory:
    """What a checkpoint remembers.

    Raises:
        InputError: there is no such file, or it is no checkpoint of Lightning's.
    """
    if os.path.isdir(path):
        inside = (f"{path}/{place}{name}.ckpt" for place in ("checkpoints/", "") for name in ("best", "last"))
        hint = next((f"; did you mean {file}?" for file in inside if os.path.isfile(file)), "")
        raise InputError(f"--ckpt_path: expected a checkpoint, found the folder {path}{hint}")
    if not os.path.isfile(path):
        raise InputError(f"--ckpt_path: expected a checkpoint, found no file {path}")
    try:
        if shown(path) == path:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        else:  # torch opens no name itself that is not UTF-8
            with open(path, "rb") as file:
                checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise InputError(f"--ckpt_path: expected a checkpoint, found another or a broken file in {path}") from error
    wanted = {"state_dict", "loops", "pytorch-lightning_version"}
    if not isinstance(checkpoint, dict) or not wanted <= checkpoint.keys():
        raise InputError(f"--ckpt_path: expected a checkpoint of Lightning's, found other contents in {path}")
    folder = Path(os.path.abspath(path)).parent
    run = folder.parent if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file() else None
    config = checkpoint.get("config") or (run and (run / "config.yaml").read_text(encoding="utf-8"))
    return Memory(
        config=load_config(config) if config else {},
        step=checkpoint["global_step"],
        loops=checkpoint["loops"]["fit_loop"],
        resumable="optimizer_states" in checkpoint,
        run=run,
        facts=checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {}),
    )


def check_resumable(config: Any, memory: Memory) -> None:
    """Raise an InputError if a `fit` of this configuration cannot go on with what a checkpoint remembers."""
    if not memory.resumable:
        found = f"only weights in {config.ckpt_path}"
        raise InputError(f"--ckpt_path: expected the optimiser's state to go on with, found {found}")
    if config.trainer.max_epochs not in (None, -1) and memory.epochs > config.trainer.max_epochs:
        raise InputError(nothing_trained(config, memory))


def nothing_trained(config: Any, memory: Memory, is_late: bool = False) -> str:
    """Why a `fit` of this configuration takes no step; `is_late`: its time is spent."""
    if is_late and not 0 <= (config.trainer.max_epochs or -1) <= memory.epochs:
        spent = f" that {config.ckpt_path} has trained" if config.ckpt_path else ""
        return f"trainer.max_time: expected more than the time{spent}, found {config.trainer.max_time}"
    key, done = "max_epochs", memory.epochs
    if config.trainer.max_steps not in (None, -1) and memory.step >= config.trainer.max_steps:
        key, done = "max_steps", memory.step
    which = f", the {key.removeprefix('max_')} that {config.ckpt_path} has trained" if config.ckpt_path else ""
    return f"trainer.{key}: expected more than {done}{which}, found {config.trainer[key]}"
