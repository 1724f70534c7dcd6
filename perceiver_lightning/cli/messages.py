"""Messages of jsonargparse, Lightning and the system as one sentence that names the key.

jsonargparse knows what is wrong, and says it over many lines, under a page of usage. Here its messages are read and
said again; what is not recognised is passed on unchanged.
"""

import ast
import difflib
import errno
import pydoc
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, get_type_hints, is_typeddict

from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from perceiver_lightning.cli.classes import arguments, find_class, known_classes
from perceiver_lightning.errors import InputError
from perceiver_lightning.names import shown

# Lightning's hints that say nothing to a person here, each with the reason.
HINTS = (
    ".*does not have many workers.*",  # small data in memory is read fastest without workers; a config's choice
    ".*The number of training batches .* is smaller than the logging interval.*",  # each epoch is logged anyway
    ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run goes on in its folder
    ".*callbacks used to create the checkpoint need to be provided.*",  # said when a flag changed the monitor
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # EpochLines show the step it goes on from
    ".*It is recommended to use .*sync_dist=True.*",  # train/loss on the bar is the first process's
    ".*was called before the ``update`` method.*",  # a process may have no batch of a small split
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6 with torch 2.14
)

# What the system says of a file or folder that a person named, and of a disk.
FILE_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


@contextmanager
def without_hints() -> Iterator[None]:
    """Keep Lightning's hints, and deprecations that are not this project's, from a person."""
    with warnings.catch_warnings():
        for message in HINTS:
            warnings.filterwarnings("ignore", message)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning|jsonargparse")
        yield


@contextmanager
def in_words() -> Iterator[None]:
    """Others' errors of input as InputError: Lightning's, of what a config asks for, and the system's, of files."""
    try:
        yield
    except MisconfigurationException as error:
        raise InputError(" ".join(str(error).split())) from error
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError) or not raised_by(error, "pytorch_lightning", "lightning_fabric"):
            raise  # of other places it is a bug, which keeps its traceback
        raise InputError(" ".join(str(error).split())) from error
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        raise InputError(
            f"{error.filename or 'a file'}: expected to read or write it, found {error.strerror}"
        ) from error


def tell(lines: Iterable[str]) -> None:
    """Lines on stderr, once for all processes: what a person should know of the settings."""
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        for line in lines:
            print(shown(line), file=sys.stderr)


def raised_by(error: BaseException, *packages: str) -> bool:
    """Whether the very line that raised an error is in one of these packages."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").split(".")[0] in packages


def wrapped(error: BaseException) -> InputError | None:
    """What a class raised itself: jsonargparse tries each type that an argument may have, and wraps that."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__ or cause.__context__
    return cause


def one_sentence(message: str, keys: Iterable[str] = ()) -> str:
    """Say a message of jsonargparse in one sentence: the key, what was expected, what was found.

    Args:
        message: jsonargparse's.
        keys: all keys there are, for "did you mean".
    """
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: -*([^\s=]+)", message):
        key = found[1] or found[2]
        return f"{key}: there is no such key{did_you_mean(key, keys)}"
    if found := re.search(r"is not accepted before subcommand '(\w+)'", message):
        return f"--config: expected it after the command {found[1]}, found before"
    if found := re.search(r"arguments are required: (.*)", message):
        missing = " and ".join(sorted((key.split(".")[-1] for key in found[1].split(", ")), reverse=True))
        return f"expected {missing}, found none: give --config FILE, or --ckpt_path FILE of a run that has them"

    key, class_path, text = innermost(message)
    if found := re.search(r"expected YAML, found (.* twice, in .*)", message):
        return f"{key}: expected YAML, found {found[1]}"
    if (found := re.search(r"Option '([^']+)' is not accepted", text)) and not class_path:
        return f"{key}{found[1]}: there is no such key{did_you_mean(key + found[1], keys)}"
    if found:
        name = class_path.split(".")[-1]
        cls = find_class("model" if key.startswith("model") else "data", class_path)
        names = arguments(cls) if cls is not None else ()
        hint = elsewhere(found[1], keys) or did_you_mean(found[1], names)
        return f"{key}{found[1]}: {name} has no such argument{hint}"
    if found := re.search(r"File does not exist: '?([^'\n]+)", text):
        return f"{key}: expected a file, found none at {found[1]}"
    unknown = r"Expected a dot import path string: (\S+)|No module named '(\S+)'|has no attribute '(\S+)'"
    if found := re.search(unknown, text):
        key = key.removesuffix(".init_args.")
        if found[2] and not class_path.startswith(found[2]):  # its module is there, and imports what is not
            module = class_path.rpartition(".")[0]
            return f"{key}: expected to import {module}, found No module named {found[2]!r}"
        name = found[1] or class_path  # the class path is the outer one's, where classes are nested
        return f"{key}: expected the name of a class, found {name}{did_you_mean(name, known_classes(key))}"
    if found := re.search(r"Unexpected keys: \{'([^']+)'", text):  # of a dict whose keys are declared
        typed = re.search(r"Subtypes: \[<class '([\w.]+)'", text)
        own = getattr(pydoc.locate(typed[1]), "__annotations__", {}) if typed else {}
        return f"{key}.{found[1]}: there is no such key{did_you_mean(found[1], own)}"
    value = re.search(r"(?:Given value|Got value): (.*)", text)
    if value and (types := re.findall(r"Expected an? (.*?)(?:\. Got value|\.?$)", text, re.MULTILINE)):
        given = re.sub(r"NestedArg\(.*val=(.*)\)$", r"\1", value[1])
        outer = re.findall(r"Given value: (\{.*\})", text)
        if outer and outer[0] != given:  # of a dict whose keys are declared, one value
            with suppress(ValueError, SyntaxError):  # of values that are no literals, as nan
                values = ast.literal_eval(outer[0])
                key = ".".join([key, *(name for name in values if str(values[name]) == given)][:2])
        given = "null" if given == "None" else given
        return f"{key}: expected {' or '.join(dict.fromkeys(map(readable_type, types)))}, found {given}"
    return " ".join(message.split())


def innermost(message: str) -> tuple[str, str, str]:
    """The key that a message of jsonargparse is about, the class it is an argument of, and what is said of it.

    Arguments of a class in a config are reported inside the report on the class, deeper indented:

        Parser key "data":
          Does not validate against any of the Union subtypes
          - Problem with given class_path 'datamodules.image.digits.Digits':
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
        group = group_of(class_path, "\n".join(lines[:at]))
        depth = len(lines[at]) - len(lines[at].lstrip())
        inside = lines[at + 1 :]
        end = next((i for i, line in enumerate(inside) if len(line) - len(line.lstrip()) <= depth), len(inside))
        key, lines = f"{key}.{group}.", inside[:end]


def group_of(class_path: str, text: str) -> str:
    """The key between an argument and the keys of a class in it: `init_args`, but of a dataclass in a dict its own."""
    typed = re.search(r"Subtypes: \[<class '([\w.]+)'", text)
    holder: Any = pydoc.locate(typed[1]) if typed else None
    declared = get_type_hints(holder) if is_typeddict(holder) else {}
    names = [name for name, kind in declared.items() if kind is pydoc.locate(class_path)]
    return names[0] if names else "init_args"


def as_yaml(value: Any) -> str:
    """A value as it stands in a config."""
    return "null" if value is None else repr(value)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The nearest of `names` as a question, or all of them where none is near and they are few."""
    names = list(names)
    if hint := elsewhere(name, names):
        return hint
    last = {one.split(".")[-1]: one for one in names}
    near = difflib.get_close_matches(name, names, n=1)
    near = near or [last[one] for one in difflib.get_close_matches(name.split(".")[-1], last, 1, cutoff=0.75)]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) < 10 else ""


def elsewhere(name: str, names: Iterable[str]) -> str:
    """Those of `names` as a question that end as this one does, at other places."""
    same = [one for one in names if one.split(".")[-1] == name.split(".")[-1]]
    return f"; did you mean {' or '.join(same[:3])}?" if same else ""


def readable_type(name: str) -> str:
    """`<class 'int'>` -> int, `typing.Literal['a', 'b']` -> 'a', 'b'."""
    name = re.sub(r"^typing\.Literal\[(.*)\]$", r"\1", name)
    name = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", name)
    return {"NoneType": "null", "bool": "true or false"}.get(name, name)
