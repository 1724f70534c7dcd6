"""The classes that configs, flags and checkpoints name.

Data sets are imported when they are named, since each brings libraries of its own; jsonargparse finds short names among
the classes that are imported.
"""

import inspect
import re
import typing
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.loggers import Logger

import datamodules
import perceiver_lightning.tasks
from perceiver_lightning.private import actions, type_of

BASES = {"model": LightningModule, "data": LightningDataModule, "logger": Logger, "callbacks": Callback}
# Packages that import their classes when they are asked for.
LAZY = {"model": perceiver_lightning.tasks, "data": datamodules}


def import_named(texts: Iterable[str]) -> None:
    """Import the data sets and tasks whose names occur in these texts, in configs or on the command line."""
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    for package in LAZY.values():
        for name in words.intersection(package.__all__):
            getattr(package, name)


def find_class(key: str, name: str | None) -> Any:
    """The class of a name, short or with its module, as the config key `model` or `data` may have it; else None."""
    if not name:
        return None
    module, _, short = name.rpartition(".")
    if not module:
        if name in LAZY[key].__all__:
            return getattr(LAZY[key], name)
        return next((cls for cls in subclasses(BASES[key]) if cls.__name__ == name), None)
    try:
        return getattr(import_module(module), short, None)
    except ImportError:  # the parser says what is wrong with it
        return None


def known_classes(key: str) -> list[str]:
    """Short names of the classes that a config key may name, as far as they are known."""
    key = key.split(".")[-1]
    if key not in BASES:
        return []
    imported = {cls.__name__ for cls in subclasses(BASES[key]) if not cls.__name__.startswith(("_", "Open"))}
    return sorted(imported.union(LAZY[key].__all__ if key in LAZY else []))


def subclasses(base: type) -> list[type]:
    """All subclasses of a class, theirs included."""
    children: list[type] = base.__subclasses__()
    return [cls for child in children for cls in (child, *subclasses(child))]


@cache
def parser_of(cls: Any) -> ArgumentParser:
    """The parser of a class's arguments, those it hands on included."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    return parser


@cache
def arguments(cls: Any) -> dict[str, Any]:
    """A class's arguments as the parser has them, with `type` and `default`, by name; those it hands on included.

    One whose type is a dataclass is there with each of its fields: `augment`, `augment.mixup`.
    """
    own = ("help", "config")
    return {action.dest: action for action in actions(parser_of(cls)) if action.dest.split(".")[-1] not in own}


def default_of(cls: type, name: str) -> Any:
    """The default of an argument of a class, or of one that it hands on to; KeyError where there is none."""
    for one in cls.__mro__:
        own = vars(one).get("__init__")
        parameter = inspect.signature(own).parameters.get(name) if own is not None else None
        if parameter is not None:
            if parameter.default is parameter.empty:
                break
            return parameter.default
    raise KeyError(name)


def fields(cls: Any) -> dict[str, Any]:
    """{name: type} of what a class, or a TypedDict, takes; of a dataclass also its fields, with dots before them."""
    if not typing.is_typeddict(cls):
        return {name: type_of(action) for name, action in arguments(cls).items()}
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(cls).items():
        found[name] = kind
        found |= {f"{name}.{field}": None for field in getattr(kind, "__dataclass_fields__", ())}
    return found
