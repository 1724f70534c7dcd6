"""Configs, checkpoints and flags of earlier versions: class paths that have moved, and arguments with another name.

Arguments that belong together were gathered in dataclasses: `mixup` is `augment.mixup` now. An old name is known by
this: the class has no argument of that name, and just one of its dataclasses has a field of it.
"""

import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from yaml import YAMLError

from perceiver_lightning.cli.classes import LAZY, fields, find_class, known_classes
from perceiver_lightning.yaml_text import dump, load

# Of one class: the name before, the name now.
RENAMED = {"Paired": {"members": "datamodules"}}
OWN = ("class_path", "init_args", "dict_kwargs")  # of jsonargparse, beside or around a class's arguments
# What every class once took and some do not: left out where it says nothing.
GONE = {"multilabel": False, "class_names": None, "num_classes": None}
CACHES = {True: "memory", False: None, "true": "memory", "false": "null"}  # images once said true or false


TEXT = (str, str | None)  # types of which a value is text, whatever it looks like
UNKNOWN = object()  # the type of an argument that a class does not have


class Translation:
    """Translates one command: its configs in their order, then its flags, which may leave out the class.

    Args:
        classes: `{"model": name, "data": name}`, those in use.
    """

    def __init__(self, classes: Mapping[str, str | None]) -> None:
        self.classes = {key: name for key, name in classes.items() if name}  # by key, without OWN

    def config(self, given: Any, path: tuple[str, ...] = ()) -> Any:
        """A config, or what stands in it at a path, in today's words."""
        if isinstance(given, str):
            return class_path(given)
        if isinstance(given, list):
            return [self.config(item, (*path, str(place))) for place, item in enumerate(given)]
        if not isinstance(given, dict):
            return given
        if isinstance(given.get("class_path"), str):
            self.classes[key_of(self.now(path)[0])] = class_path(given["class_path"])
        start = len(self.now(path)[0])
        result: dict[str, Any] = {}
        for key, value in given.items():
            keys, kind = self.now((*path, str(key)))
            if kind is UNKNOWN and key in GONE and value is GONE[key]:
                continue
            value = self.config(value, (*path, str(key)))
            inner = result
            for group in keys[start:-1]:
                inner = inner.setdefault(group, {})
            inner[keys[-1]] = inner.get(keys[-1], {}) | value if isinstance(value, dict) else as_cache(value, kind)
        return result

    def flags(self, args: Sequence[str]) -> Iterator[str]:
        """A command line in today's words."""
        waiting: str | None = None  # the flag that waits for its value
        for arg in args:
            found = re.fullmatch(r"--([\w.]+\+?)(?:=(.*))?", arg, re.DOTALL)
            if waiting is not None:
                yield from self._flag(waiting, None if found else [arg])
                waiting = None
                if not found:
                    continue
            if not found:
                yield class_path(arg)
            elif found[2] is None:
                waiting = found[1]
            else:
                yield "=".join(self._flag(found[1], [found[2]]))
        if waiting is not None:
            yield from self._flag(waiting, None)

    def _flag(self, flag: str, value: Sequence[str] | None) -> list[str]:
        """A flag and its value, if it has one."""
        keys, kind = self.now(tuple(flag.split(".")))
        whole = f"--{'.'.join(keys)}"
        if value is None:
            return [whole]
        text = self._value(keys, kind, value[0])
        if text.startswith("{") and keys[0] in LAZY and kind not in TEXT and isinstance(given := read(text), dict):
            given = {str(key): one for key, one in given.items()}
            now = self.config(given, tuple(flag.split(".")))
            return [whole, text if now == given else dump(now, flow=True)]
        is_null = text in ("null", "None", "~") and self._is_in_group(keys)
        if is_null or is_text(text, kind):
            # jsonargparse takes no null for one field of a dataclass, nor for text what YAML takes for something else;
            # this leaves the others unchanged, too.
            inside = (*keys[:-1], "init_args") if keys[-2:-1] in (("model",), ("data",)) else keys[:-1]
            return [f"--{'.'.join(inside)}", dump({keys[-1]: None if is_null else text}, flow=True)]
        return [whole, text]

    def _is_in_group(self, keys: tuple[str, ...]) -> bool:
        """Whether keys lead to a field of a dataclass that a class takes."""
        own = find_class(keys[0], self.classes.get(key_of(keys[:-2]))) if keys[0] in LAZY else None
        return own is not None and ".".join(keys[-2:]) in fields(own)

    def _value(self, keys: tuple[str, ...], kind: Any, value: str) -> str:
        value = class_path(value)
        if keys and keys[0] in ("model", "data") and re.fullmatch(r"[A-Za-z_][\w.]*", value):
            self.classes[key_of(keys)] = value  # if it is a class
        return as_cache(value, kind)

    def now(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
        """The keys that lead where this path led, and the type of that; UNKNOWN where a class has no such argument.

        `init_args` may be left out, as jsonargparse has it.
        """
        now: list[str] = []
        own: Any = None  # the class, or TypedDict, that the next key is an argument of
        kind: Any = None
        for key in path:
            if own is None and key not in ("class_path", "dict_kwargs") and path[0] in ("model", "data"):
                own = find_class(path[0], self.classes.get(key_of(now)))
                if own is not None and key == "init_args":
                    now.append(key)
                    continue
            if own is None or key == "init_args":
                now.append(key)
                kind = None
                continue
            known = fields(own)
            key = key if key in known else RENAMED.get(own.__name__, {}).get(key, key)
            groups = [name for name in known if name.split(".")[1:] == [key]]
            key = groups[0] if key not in known and len(groups) == 1 else key
            now += key.split(".")
            kind = known.get(key, UNKNOWN)
            own = next((one for one in (kind, *typing.get_args(kind)) if typing.is_typeddict(one)), None)
        return tuple(now), kind


def key_of(keys: Iterable[str]) -> str:
    """Keys joined by dots, without what is jsonargparse's own."""
    return ".".join(key for key in keys if key not in OWN)


def read(text: str) -> Any:
    """What a flag's value is as YAML; the text itself where it is none."""
    try:
        return load(text)
    except YAMLError:
        return text


def is_text(text: str, kind: Any) -> bool:
    """Whether the value of an argument of this type is text though YAML takes it for null, a list or a dict."""
    kinds = {kind, *typing.get_args(kind)} if kind in TEXT else set()
    if str not in kinds or (type(None) in kinds and text in ("null", "None", "~", "")):
        return False
    return not isinstance(read(text), str | int | float)


def as_cache(value: Any, kind: Any) -> Any:
    """The value of an argument of this type, which may be one that was true or false."""
    return CACHES.get(value, value) if isinstance(value, bool | str) and "'memory'" in str(kind) else value


def class_path(name: str) -> str:
    """Where a class of this project is now; any other text unchanged."""
    found = re.fullmatch(r"(?:datamodules|perceiver_lightning)\.(?:\w+\.)*(\w+)", name)
    if not found:
        return name
    for package in LAZY.values():
        if name.startswith(f"{package.__name__}.") and found[1] in package.__all__:
            return f"{package.__name__}.{found[1]}"
    try:
        getattr(import_module(name.rpartition(".")[0]), found[1])
    except (ImportError, AttributeError):
        return found[1] if found[1] in known_classes("logger") + known_classes("callbacks") else name
    return name
