"""Errors of the command line, of config files and of Lightning, in one sentence that names the key.

jsonargparse knows what is wrong, and says it over many lines, under a page of usage. Here its messages are read and
said again; what is not recognised is passed on as it is.
"""

import argparse
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, NoReturn, get_args

import yaml
from pytorch_lightning.cli import LightningArgumentParser

from perceiver_lightning.cli.messages import arguments, one_sentence, plain, shown
from perceiver_lightning.errors import InputError


class Parser(LightningArgumentParser):
    """Lightning's parser, which raises InputError instead of printing its usage."""

    keys: Iterable[str] = ()  # all there are, of all subcommands

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as one sentence."""
        if not self.exit_on_error:  # a parser inside the parser, whose message becomes part of the outer one's
            super().error(message, ex)
        raise InputError(one_sentence(message, self.keys)) from ex


def look_ahead(args: list[str]) -> tuple[str | None, dict[str, list[str]]]:
    """What must be known before parsing: the checkpoint, and the classes that configs and flags name.

    Args:
        args: the command line.

    Returns:
        the value of --ckpt_path, and {"model": names, "data": names}.

    Raises:
        InputError: a config cannot be read.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--ckpt_path", nargs="?")
    early.add_argument("-c", "--config", nargs="?", action="append", default=[])
    for key in ("model", "data"):
        early.add_argument(f"--{key}", f"--{key}.class_path", dest=key, nargs="?")
    known, _ = early.parse_known_args(args)
    configs = [read_config(config) for config in known.config if config]
    named = {}
    for key in ("model", "data"):
        given = [config[key].get("class_path") for config in configs if isinstance(config.get(key), dict)]
        named[key] = [name for name in [*given, getattr(known, key)] if name]
    return known.ckpt_path, named


def read_config(config: str) -> dict[str, Any]:
    """A config file's keys and values; InputError that names the file, and the line where it is no YAML."""
    try:
        with open(config) as file:
            found = yaml.safe_load(file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{config}{line}: expected YAML, found {getattr(error, 'problem', error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config: expected a file, found none that can be read at {config}") from error
    if not isinstance(found, dict):
        raise InputError(f"{config}: expected keys and values, found {'nothing' if found is None else repr(found)}")
    return found


MORE_THAN_NONE = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_test_batches",
    "limit_predict_batches",
)


def check_settings(config: Any) -> None:
    """Raise an InputError for what Lightning takes, and fails over later, far from the key.

    Args:
        config: of a subcommand, as it was parsed.
    """
    if not config.get("trainer"):
        raise InputError(f"trainer: expected keys and values, found {shown(config.get('trainer'))}")
    for key in MORE_THAN_NONE:
        if (value := config.trainer.get(key)) is not None and value <= 0:
            raise InputError(f"trainer.{key}: expected more than 0, found {value}")
    if (clip := config.trainer.get("gradient_clip_val") or 0) < 0:
        raise InputError(f"trainer.gradient_clip_val: expected 0 or more, found {clip}")
    if (patience := config.get("early_stopping.patience", 0)) < 0:
        raise InputError(f"early_stopping.patience: expected 0 or more validations, found {patience}")
    if (name := PurePath(config.name)).is_absolute() or not name.parts or ".." in name.parts:
        raise InputError(f"name: expected the name of a folder in runs_dir, found {shown(config.name)}")
    for key in ("model", "data"):
        check_nulls(key, config.get(key))


def check_nulls(key: str, given: Any) -> None:
    """Raise an InputError where an argument of a class is null that may not be: jsonargparse lets null pass."""
    if not given or not given.get("init_args"):
        return
    for action in arguments(given.class_path):
        kinds = getattr(action, "_typehint", action.type)
        is_null = given.init_args.get(action.dest, ...) is None and action.default is not None
        if is_null and kinds is not None and type(None) not in get_args(kinds):
            raise InputError(f"{key}.init_args.{action.dest}: expected {plain(str(kinds))}, found null")
