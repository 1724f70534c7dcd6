"""Another class in the place of a config's: `--data VideoFolder` over a recipe that names GRID.

What has the same meaning is taken over, what the new class cannot take is named in one line on stderr; of data what is
kept, too, as a crop or a mean may be right for the old set alone. jsonargparse alone keeps equal names, and drops the
others without a word. So it does for classes inside of others, loggers and callbacks: there its debug log is told.
"""

import ast
import contextlib
import logging
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace

from perceiver_lightning.cli.classes import arguments, fields, find_class, parser_of

Path = tuple[str, ...]
LOADING = ("batch_size", "num_workers")  # what data are does not depend on them


def carry_all(key: str, configs: Mapping[str, dict[str, Any]], named: str) -> Iterator[str]:
    """Have configs, in their order, say of `key`, model or data, what the class `named` takes.

    Args:
        configs: those that another class may be named in, or that add to it; they are changed in place.

    Yields:
        the line on what is kept and what is dropped, if anything is.
    """
    new, old = find_class(key, named), None
    kept: dict[str, list[str]] = {}
    dropped: dict[str, list[str]] = {}
    for config in configs.values():
        part = config.get(key)
        old = find_class(key, class_of(part)) or old
        if new is None or old in (None, new) or not part:
            continue
        given = part.get("init_args") if isinstance(part, dict) else None
        taken, left = carry(given or {}, old, new)
        config[key] = {"class_path": named, "init_args": taken}
        dropped.setdefault(old.__name__, []).extend(left)
        kept.setdefault(old.__name__, []).extend(named_options(taken, new) if key == "data" else [])
    for name, left in dropped.items():
        parts = [
            f"keeps {', '.join(dict.fromkeys(kept[name]))}" if kept[name] else "",
            f"drops what it cannot take: {', '.join(left)}" if left else "",
        ]
        if any(parts):
            yield f"{key}: {new.__name__} in the place of {name} {'; '.join(filter(None, parts))}"


def forgotten(key: str, remembered: Any, named: str) -> Iterator[str]:
    """The line on what a checkpoint's class was given, none of which another class takes over."""
    old = find_class(key, class_of(remembered))
    given = remembered.get("init_args") or {} if isinstance(remembered, dict) else {}
    if old is not None and (left := named_options(given, old)):
        new = named.rpartition(".")[2]
        yield f"{key}: {new} takes over nothing of the checkpoint's {old.__name__}, as {', '.join(left)}"


def named_options(given: Mapping[str, Any], cls: type) -> list[str]:
    """The names of what a class is given, but for what loads and for what says no more than its defaults."""
    own = {name: value for name, value in given.items() if name not in LOADING}
    return [".".join(path) for path, value in leaves(own, cls) if not is_default(cls, path, value)]


def class_of(given: Any) -> str | None:
    """The name of the class in what a config says of the model or the data."""
    return given.get("class_path") if isinstance(given, dict) else given if isinstance(given, str) else None


def carry(given: Mapping[str, Any], old: type, new: type) -> tuple[dict[str, Any], list[str]]:
    """The arguments `given` to a class as another class takes them, and a phrase for each that it cannot take.

    The same meaning have: the same name, if its value is one that the new class takes; the options of one modality, in
    a group of their own where a class has several (`video.patch`) and without the group where it has one (`patch`).
    """
    taken: dict[str, Any] = {}
    left, some = [], set()  # what is not taken; the first names of what is
    for path, value in leaves(given, old):
        place = next((place for place in places(path, old, new) if takes(new, place, value)), None)
        if place is not None:
            put(taken, place, value)
            some.add(path[0])
        elif path[0] not in LOADING and not is_default(old, path, value):
            left.append(path)
    return taken, list(dict.fromkeys(".".join(path) if path[0] in some else path[0] for path in left))


def leaves(given: Mapping[str, Any], holder: Any, before: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each argument by the names that lead to it; those in groups of a class one by one."""
    known = fields(holder)
    for name, value in given.items():
        path, group = (*before, name), options_of(known.get(name))
        if isinstance(value, dict) and group is not None:
            yield from leaves(value, group, path)
        elif isinstance(value, dict) and any(key.startswith(f"{name}.") for key in known):
            yield from (((*path, field), one) for field, one in value.items())
        else:
            yield path, value


def places(path: Path, old: type, new: type) -> Iterator[Path]:
    """Where the argument of one class may stand in another, the likeliest first."""
    yield path
    own = options_of(fields(old).get(path[0]))
    if own is not None and has_all(new, own):
        yield path[1:]
    for name, kind in fields(new).items():
        group = options_of(kind)
        if group is not None and has_all(old, group) and path[0] in fields(group):
            yield (name, *path)


def options_of(kind: Any) -> Any:
    """The declared keys that an argument of this type has, a TypedDict; None if it is of another type."""
    return next((one for one in (kind, *typing.get_args(kind)) if typing.is_typeddict(one)), None)


def has_all(cls: type, group: Any) -> bool:
    """Whether a class takes each key of a TypedDict, with the same type."""
    own: dict[str, Any] = {}
    for one in reversed(cls.__mro__):
        with contextlib.suppress(NameError):
            own |= typing.get_type_hints(vars(one).get("__init__", object))
    return all(own.get(name) == kind for name, kind in typing.get_type_hints(group).items())


def takes(cls: type, path: Path, value: Any) -> bool:
    """Whether a class has an argument there which may be this."""
    nested: dict[str, Any] = {}
    put(nested, path, value)
    if ".".join(path) in arguments(cls):
        found = Namespace({".".join(path): value})
    elif options_of(fields(cls).get(path[0])) is not None:
        found = Namespace(nested)
    else:
        return False
    try:
        parser_of(cls).validate(found, skip_required=True)
    except (TypeError, KeyError, ValueError):
        return False
    return True


def put(into: dict[str, Any], path: Path, value: Any) -> None:
    """Set a value in nested dicts."""
    for name in path[:-1]:
        into = into.setdefault(name, {})
    into[path[-1]] = value


def is_default(cls: type, path: Path, value: Any) -> bool:
    """Whether an argument says what the class would have without it."""
    if ".".join(path) in arguments(cls):
        default = arguments(cls)[".".join(path)].default
        return value == (list(default) if isinstance(default, tuple) else default)
    return False


class Discarded(logging.Handler):
    """Reads in jsonargparse's debug log what it drops where a class takes the place of another.

    Args:
        lines: where a line for each is added.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Add the line, once."""
        form = r"Due to class_path change from '(.*?)' to '(.*?)', discarding init_args: (\{.*\})\."
        if (found := re.fullmatch(form, str(record.msg), re.DOTALL)) is None:
            return
        given: Any = ast.parse(found[3], mode="eval").body
        left = [key.value for key, value in zip(given.keys, given.values, strict=True) if ast.unparse(value) != "None"]
        old, new = (name.rpartition(".")[2] for name in (found[1], found[2]))
        line = f"{new} in the place of {old} drops what it cannot take: {', '.join(left)}"
        if left and line not in self.lines:
            self.lines.append(line)


def log_for(lines: list[str]) -> logging.Logger:
    """The log for a parser, of which `Discarded` adds lines to these."""
    log = logging.getLogger(__name__)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.handlers = [Discarded(lines)]
    return log
