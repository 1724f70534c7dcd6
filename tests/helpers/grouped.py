"""Datamodules made of flat settings, as a person would say them: for tests with tables of settings."""

import inspect
from dataclasses import fields, is_dataclass, replace
from typing import Any

from datamodules.audio.base import Audio
from datamodules.audio_visual.base import AudioVisual
from datamodules.base import DataModule
from datamodules.video.base import Video


def arguments_of(kind: type[DataModule]) -> dict[str, Any]:
    """Each argument of a datamodule, those that it hands on to its bases among them -> its default."""
    found: dict[str, Any] = {}
    for one in kind.__mro__:
        if issubclass(one, DataModule) and "__init__" in vars(one):
            for name, argument in inspect.signature(one.__init__).parameters.items():
                if name != "self" and argument.kind is not argument.VAR_KEYWORD:
                    found.setdefault(name, argument.default)
    return found


def groups_of(kind: type[DataModule]) -> dict[str, Any]:
    """Those arguments that are groups -> their default instance."""
    return {name: default for name, default in arguments_of(kind).items() if is_dataclass(default)}


def grouped(kind: type[DataModule], **settings: Any) -> dict[str, Any]:
    """The arguments of a datamodule of which those in a group are put there; so for each part of `AudioVisual`."""
    if issubclass(kind, AudioVisual):
        parts = {"video": Video, "audio": Audio}
        settings |= {name: grouped(part, **settings[name]) for name, part in parts.items() if name in settings}
    own = arguments_of(kind)
    place = {field.name: name for name, group in groups_of(kind).items() for field in fields(group)}
    arguments = {key: value for key, value in settings.items() if key in own or key not in place}
    inner: dict[str, dict[str, Any]] = {}
    for key in settings.keys() - arguments.keys():
        inner.setdefault(place[key], {})[key] = settings[key]
    return arguments | {name: replace(own[name], **values) for name, values in inner.items()}


def made(kind: type[DataModule], *args: Any, **settings: Any) -> Any:
    """A datamodule made of flat settings."""
    return kind(*args, **grouped(kind, **settings))
