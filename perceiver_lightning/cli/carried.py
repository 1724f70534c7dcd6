"""Another class in the place of a config's: `--data VideoFolder` over a recipe that names GRID.

What has the same meaning is taken over, what the new class cannot take is named in one line on stderr. jsonargparse
alone keeps equal names, and drops the others without a word.
"""

import contextlib
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
        the line on what is dropped, if anything is.
    """
    new, old = find_class(key, named), None
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
    for name, left in dropped.items():
        if left:
            yield f"{key}: {new.__name__} in the place of {name} drops what it cannot take: {', '.join(left)}"


def forgotten(key: str, remembered: Any, named: str) -> Iterator[str]:
    """The line on what a checkpoint's class was given, none of which another class takes over."""
    old = find_class(key, class_of(remembered))
    given = remembered.get("init_args") or {} if isinstance(remembered, dict) else {}
    if old is not None:
        given = {name: value for name, value in given.items() if name not in LOADING}
        left = [".".join(path) for path, value in leaves(given, old) if not is_default(old, path, value)]
        if left:
            new = named.rpartition(".")[2]
            yield f"{key}: {new} takes over nothing of the checkpoint's {old.__name__}, as {', '.join(left)}"


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
