"""Config files: how they are read, and what is wrong with the places of their keys."""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from perceiver_lightning.cli.classes import BASES, arguments, find_class
from perceiver_lightning.cli.messages import did_you_mean
from perceiver_lightning.cli.renamed import OWN, key_of
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.yaml_text import load_config

EMPTY = ("model", "data", "trainer")  # as nothing: a config whose lines under them are comments
BESIDE = ("class_path, init_args", "them under model or data", "them beside these: are lines indented?")
NEVER_EMPTY = ("checkpoint", "early_stopping", "measures")  # null could be meant to switch them off


def read_config(config: str) -> dict[str, Any]:
    """A config file's keys and values, nested; what has nothing under it is left out.

    Raises:
        InputError: the file cannot be read, or is no YAML (then the line is named); a key is there twice, or has no
            value where it needs one.
    """
    if os.path.isdir(config):
        inside = ["config.yaml", "version_0/config.yaml"]  # of a run
        hint = next((f"; did you mean {config}/{name}?" for name in inside if os.path.isfile(f"{config}/{name}")), "")
        raise InputError(f"--config: expected a file, found the folder {config}{hint}")
    try:
        found = load_config(Path(config).read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        said = " ".join(str(getattr(error, "problem", error)).split())
        raise InputError(f"{config}{line}: expected YAML, found {said}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{config}: expected YAML in UTF-8, found other bytes ({error.reason})") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"--config: expected a file, found none that can be read at {config}") from error
    if not isinstance(found, dict):
        raise InputError(f"{config}: expected keys and values, found {'nothing' if found is None else repr(found)}")
    return without_empty(with_nested(found))


def with_nested(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """A config with `model.class_path: X` as `model: {class_path: X}`, as flags have it; so for keys of `init_args`."""
    found: dict[Any, Any] = {}
    for key, value in given.items():
        add(found, nested(key, value), str(key))
    return found


def nested(key: Any, value: Any) -> dict[Any, Any]:
    """A key and its value as nested dicts."""
    first, _, rest = key.partition(".") if isinstance(key, str) else (key, "", "")
    if rest:
        return {first: nested(rest, value)}
    if isinstance(value, dict):
        inner: dict[Any, Any] = {}
        for name, one in value.items():
            is_path = isinstance(name, str) and name.startswith("init_args.")
            add(inner, nested(name, one) if is_path else {name: one}, f"{key}.{name}")
        value = inner
    return {key: value}


def add(into: dict[Any, Any], other: Mapping[Any, Any], where: str) -> None:
    """Put what nested dicts hold into others; InputError where both have a value."""
    for key, value in other.items():
        if key in into and isinstance(into[key], dict) and isinstance(value, dict):
            add(into[key], value, where)
        else:
            require(key not in into, where, "each key once", f"{key} twice, nested and with dots")
            into[key] = value


def without_empty(config: dict[str, Any]) -> dict[str, Any]:
    """A config without keys that have nothing under them, where that means nothing."""
    for key in NEVER_EMPTY:
        require(config.get(key, {}) is not None, key, "keys and values", "nothing")
    return {key: _without_empty(value) for key, value in config.items() if value is not None or key not in EMPTY}


def _without_empty(given: Any) -> Any:
    """The same for `init_args` at any depth."""
    if isinstance(given, list):
        return [_without_empty(one) for one in given]
    if not isinstance(given, dict):
        return given
    return {key: _without_empty(value) for key, value in given.items() if key != "init_args" or value is not None}


def check_places(config: Mapping[str, Any], classes: Mapping[str, str]) -> None:
    """Raise an InputError for a key beside `class_path` and `init_args`, which says where it belongs.

    Args:
        config: in today's words.
        classes: their names, by the keys without `init_args` that lead to them.
    """
    for path, given in holders(config):
        where = "".join(f"{key}." for key in path)
        cls = find_class(path[0], classes.get(key_of(path))) if path and path[0] in ("model", "data") else None
        known = [] if cls is None else list(arguments(cls))
        strange = [str(name) for name in given if name not in OWN]
        require(bool(path) or not set(OWN) & given.keys(), *BESIDE)
        for name in strange:
            near = difflib.get_close_matches(name, OWN[:2], 1, cutoff=0.7)
            if near and name not in known:
                raise InputError(f"{where}{name}: there is no such key; did you mean {near[0]}?")
            if len(strange) == len(given):  # without `init_args`, short for what is in them
                continue
            if name in known or not known:
                raise InputError(f"{where}{name}: there is no such key; it belongs under {where}init_args")
            hint = did_you_mean(name, [f"{where}init_args.{one}" for one in known])
            raise InputError(f"{where}{name}: there is no such key{hint}")
        require(given.get("class_path", "") is not None, f"{where}class_path", "the name of a class", "nothing")


def holders(given: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """What names a class and its arguments in a config, each with the keys that lead to it."""
    if isinstance(given, list):
        given = {str(place): one for place, one in enumerate(given)}
    elif isinstance(given, dict) and ((path[-1:] and path[-1] in BASES) or set(OWN[:2]) & given.keys()):
        yield path, given
    for key, one in given.items() if isinstance(given, dict) else ():
        yield from holders(one, (*path, str(key)))
