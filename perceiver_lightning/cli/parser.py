"""The parser, what must be known of a command before it is parsed, and what is checked after."""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NoReturn, get_args

from pytorch_lightning.cli import LightningArgumentParser

from perceiver_lightning.cli.carried import carry_all, class_of, forgotten
from perceiver_lightning.cli.classes import arguments, find_class, import_named
from perceiver_lightning.cli.configs import check_places, read_config
from perceiver_lightning.cli.messages import as_yaml, one_sentence, readable_type
from perceiver_lightning.cli.renamed import Translation
from perceiver_lightning.cli.resume import Memory, read_checkpoint
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.private import type_of
from perceiver_lightning.yaml_text import dump, load

# What a checkpoint's configuration is taken over from; the first five also by validate, test and predict, which may
# run on other hardware.
REMEMBERED = (
    *("name", "runs_dir", "seed_everything", "model", "data"),
    *("trainer", "checkpoint", "early_stopping", "measures"),
)


class Parser(LightningArgumentParser):
    """Lightning's parser, which raises InputError instead of printing its usage."""

    keys: Iterable[str] = ()  # all there are, of the subcommands that are known

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as one sentence."""
        if not self.exit_on_error:  # a parser inside the parser, whose message becomes part of the outer one's
            super().error(message, ex)
        raise InputError(one_sentence(message, self.keys)) from ex


@dataclass
class Command:
    """A command line before it is parsed.

    args        what is to be parsed: today's names, and a checkpoint's configuration as if it were the first --config
    subcommand  None where none is named
    memory      of the checkpoint that is named as a flag
    task        the class of the model, None where none is named or it cannot be imported
    places      of what the classes of model and data take, as model.init_args.bands
    lines       what a person is told of settings that are dropped
    """

    args: list[str]
    subcommand: str | None
    memory: Memory | None
    task: Any
    places: list[str]
    lines: list[str]


def look_ahead(args: Sequence[str], subcommands: Iterable[str]) -> Command:
    """Read the configs and the checkpoint that a command names, and import the classes that they name.

    Raises:
        InputError: one of the files cannot be read.
    """
    at = next((i for i, arg in enumerate(args) if arg in subcommands), None)
    subcommand = None if at is None else args[at]
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--ckpt_path", nargs="?")
    early.add_argument("-c", "--config", nargs="?", action="append", default=[])
    for key in ("model", "data"):
        early.add_argument(f"--{key}", f"--{key}.class_path", dest=key, nargs="?")
    known, _ = early.parse_known_args(args)
    configs = {config: read_config(config) for config in known.config if config}
    memory = read_checkpoint(known.ckpt_path) if known.ckpt_path and subcommand else None
    keys = REMEMBERED if subcommand == "fit" else REMEMBERED[:5]
    remembered = {key: value for key, value in memory.config.items() if key in keys} if memory else {}
    import_named([*args, *map(str, configs.values()), str(remembered)])

    named: dict[str, list[str]] = {}
    lines: list[str] = []
    for key in ("model", "data"):
        given = [class_of(config.get(key)) for config in configs.values()]
        named[key] = [name for name in [class_of(remembered.get(key)), *given, getattr(known, key)] if name]
        if len({name.split(".")[-1] for name in named[key]}) > 1:  # another class takes none of its arguments
            lines += forgotten(key, remembered.pop(key, None), named[key][-1])
    translation = Translation({key: names[-1] if names else None for key, names in named.items()})
    remembered = translation.config(remembered)
    today = {config: translation.config(given) for config, given in configs.items()}
    for config in today.values():
        check_places(config, translation.classes)
        for key, names in named.items():
            require(bool(names) or not config.get(key), f"{key}.class_path", "the name of a class", "none")
    for key in named:
        if names := named[key]:
            lines += carry_all(key, today, names[-1])
    changed = {
        config: as_text(now) for config, now in today.items() if now != load(Path(config).read_text("utf-8-sig"))
    }
    args = list(replaced(translation.flags(args), changed))
    if at is not None and memory is not None:
        args = [*args[: at + 1], "--config", as_text(remembered), *args[at + 1 :]]
    classes = {key: find_class(key, translation.classes.get(key)) for key in named}
    places = [f"{key}.init_args.{name}" for key, cls in classes.items() if cls is not None for name in arguments(cls)]
    return Command(args, subcommand, memory, classes["model"], places, lines)


def as_text(config: Any) -> str:
    """A configuration as YAML, which --config takes in the place of a file."""
    return dump(config)


def replaced(args: Iterable[str], configs: dict[str, str]) -> Iterator[str]:
    """A command line with the texts of these configs in the place of their files."""
    is_config = False
    for arg in args:
        if arg.startswith("--config="):
            yield f"--config={configs.get(arg.partition('=')[2], arg.partition('=')[2])}"
        else:
            yield configs.get(arg, arg) if is_config else arg
        is_config = arg in ("--config", "-c")


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
        raise InputError(f"trainer: expected keys and values, found {as_yaml(config.get('trainer'))}")
    for key in MORE_THAN_NONE:
        if (value := config.trainer.get(key)) is not None and value <= 0:
            raise InputError(f"trainer.{key}: expected more than 0, found {value}")
    if (clip := config.trainer.get("gradient_clip_val") or 0) < 0:
        raise InputError(f"trainer.gradient_clip_val: expected 0 or more, found {clip}")
    if (patience := config.get("early_stopping.patience") or 0) < 0:
        raise InputError(f"early_stopping.patience: expected 0 or more validations, found {patience}")
    for key in ("name", "runs_dir"):
        is_path = isinstance(config[key], str) and not re.search("://|::|\0", config[key])  # of fsspec, not a folder
        require(is_path, key, "the name of a folder, without :: and ://", as_yaml(config[key]))
    if (name := PurePath(config.name)).is_absolute() or not name.parts or ".." in name.parts:
        raise InputError(f"name: expected the name of a folder in runs_dir, found {as_yaml(config.name)}")
    for key in ("model", "data"):
        check_nulls(key, config.get(key))


def check_modes(config: Any, task: Any) -> None:
    """Raise an InputError where the best is chosen in the wrong direction: then the worst would be kept.

    Args:
        config: of `fit`, as it was parsed.
        task: made of it; its metrics say which direction is better.
    """
    for key in ("checkpoint", "early_stopping") if hasattr(task, "metrics") else ():
        monitor, mode = config[key].monitor or "", config[key].mode
        split, _, name = monitor.partition("/")
        known = dict(task.metrics[split].items()) if split in task.metrics else {}
        metric = known.get(name)
        higher = getattr(getattr(metric, "wrapped_metric", metric), "higher_is_better", None)
        higher = False if name == "loss" else higher
        better = {True: "max", False: "min", None: mode}[higher]
        expected = f"{better}, as {'higher' if higher else 'lower'} is better for {monitor}"
        require(mode == better, f"{key}.mode", expected, mode)


def once_each(trainer: Any) -> None:
    """Leave out what is twice: `logger+` in a config appends once more to what a checkpoint remembers."""
    for key in ("logger", "callbacks"):
        items = trainer[key]
        if isinstance(items, list):
            trainer[key] = [item for i, item in enumerate(items) if item not in items[:i]]


def check_nulls(key: str, given: Any) -> None:
    """Raise an InputError where an argument of a class is null that may not be: jsonargparse lets null pass."""
    if not given or not given.get("init_args"):
        return
    known = arguments(find_class(key, given.class_path))
    for group in dict.fromkeys(name.split(".")[0] for name in known if "." in name):
        is_there = given.init_args.get(group, ...) is not None
        require(is_there, f"{key}.init_args.{group}", "keys and values", "null")
    for name, action in known.items():
        kinds = type_of(action)
        is_null = given.init_args.get(name, ...) is None and action.default is not None
        if is_null and kinds is not None and type(None) not in get_args(kinds):
            raise InputError(f"{key}.init_args.{name}: expected {readable_type(str(kinds))}, found null")
