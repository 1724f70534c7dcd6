"""Errors of the command line and of config files, in one sentence that names the key.

jsonargparse knows what is wrong, and says it over many lines, under a page of usage. Here its messages are read and
said again; what is not recognised is passed on as it is.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.loggers import Logger

from perceiver_lightning.errors import InputError


class Parser(LightningArgumentParser):
    """Lightning's parser, which raises InputError instead of printing its usage."""

    keys: Iterable[str] = ()  # all there are, of all subcommands

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as one sentence."""
        if not self.exit_on_error:  # a parser inside the parser, whose message becomes part of the outer one's
            super().error(message, ex)
        raise InputError(one_sentence(message, self.keys)) from ex


def one_sentence(message: str, keys: Iterable[str] = ()) -> str:
    """Say a message of jsonargparse in one sentence: the key, what was expected, what was found.

    Args:
        message: jsonargparse's.
        keys: all keys there are, for "did you mean".
    """
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: -*([^\s=]+)", message):
        key = found[1] or found[2]
        return f"{key}: there is no such key{did_you_mean(key, keys)}"
    if found := re.search(r"arguments are required: (.*)", message):
        missing = " and ".join(sorted((key.split(".")[-1] for key in found[1].split(", ")), reverse=True))
        return f"expected {missing}, found none: give --config FILE, or --ckpt_path FILE of a run that has them"

    key, class_path, text = innermost(message)
    if found := re.search(r"Option '([^']+)' is not accepted", text):
        name = class_path.split(".")[-1]
        return f"{key}{found[1]}: {name} has no such argument{did_you_mean(found[1], arguments(class_path))}"
    if found := re.search(r"File does not exist: '?([^'\n]+)", text):
        return f"{key}: expected a file, found none at {found[1]}"
    unknown = r"Expected a dot import path string: (\S+)|No module named '(\S+)'|has no attribute '(\S+)'"
    if found := re.search(unknown, text):
        key = key.removesuffix(".init_args.")
        name = found[1] or class_path  # the class path is the outer one's, where classes are nested
        return f"{key}: expected the name of a class, found {name}{did_you_mean(name, known_classes(key))}"
    value = re.search(r"(?:Given value|Got value): (.*)", text)
    if value and (types := re.findall(r"Expected an? (.*?)(?:\. Got value|\.?$)", text, re.MULTILINE)):
        given = re.sub(r"NestedArg\(.*val=(.*)\)$", r"\1", value[1])
        return f"{key}: expected {' or '.join(dict.fromkeys(map(plain, types)))}, found {given}"
    return " ".join(message.split())


def innermost(message: str) -> tuple[str, str, str]:
    """The key that a message of jsonargparse is about, the class it is an argument of, and what is said of it.

    Arguments of a class in a config are reported inside the report on the class, deeper indented:

        Parser key "data":
          Does not validate against any of the Union subtypes
          - Problem with given class_path 'datamodules.images.Digits':
              Parser key "batch_size":
                Expected a <class 'int'>. Got value: x
          - Expected a <class 'NoneType'>
    """
    key, class_path, lines = "", "", message.splitlines()
    while True:
        own = re.search(r'Parser key "([^"]+)"', "\n".join(lines))
        key += own[1] if own else ""
        at = next((i for i, line in enumerate(lines) if "Problem with given class_path" in line), None)
        if at is None:
            return key, class_path, "\n".join(lines)
        found = re.search(r"class_path '([^']+)'", lines[at])
        class_path = found[1] if found else ""
        depth = len(lines[at]) - len(lines[at].lstrip())
        inside = lines[at + 1 :]
        end = next((i for i, line in enumerate(inside) if len(line) - len(line.lstrip()) <= depth), len(inside))
        key, lines = f"{key}.init_args.", inside[:end]


def check_readable(config: str) -> None:
    """Raise an InputError that names the config file and the line where it is no YAML."""
    try:
        with open(config) as file:
            yaml.safe_load(file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{config}{line}: expected YAML, found {getattr(error, 'problem', error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config: expected a file, found none that can be read at {config}") from error


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The nearest of `names` as a question, or all of them where none is near and they are few."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) < 10 else ""


def arguments(class_path: str) -> list[str]:
    """Names of a class's arguments, those that it hands on included."""
    module, _, name = class_path.rpartition(".")
    cls: Any = getattr(__import__(module, fromlist=[name]), name)
    added = ArgumentParser(exit_on_error=False).add_class_arguments(cls, fail_untyped=False)
    return [key.split(".")[0] for key in added]


def known_classes(key: str) -> list[str]:
    """Short names of the classes that the config key may name, as far as they are imported."""
    bases = {"model": LightningModule, "data": LightningDataModule, "logger": Logger, "callbacks": Callback}
    base = bases.get(key.split(".")[-1])
    return sorted({cls.__name__ for cls in subclasses(base) if not cls.__name__.startswith("_")}) if base else []


def subclasses(base: type) -> list[type]:
    """All subclasses of a class, theirs included."""
    children: list[type] = base.__subclasses__()
    return [cls for child in children for cls in (child, *subclasses(child))]


def plain(name: str) -> str:
    """`<class 'int'>` -> int, `typing.Literal['a', 'b']` -> 'a', 'b'."""
    name = re.sub(r"^typing\.Literal\[(.*)\]$", r"\1", name)
    name = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", name)
    return {"NoneType": "null", "bool": "true or false"}.get(name, name)
