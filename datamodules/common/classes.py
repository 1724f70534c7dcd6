"""The facts of data sets that have classes."""

import logging
from typing import Any

from datamodules.base import is_int
from datamodules.common.say import say_once
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import composed

log = logging.getLogger(__name__)


def class_facts(num_classes: int, class_names: list[str] | None = None, multilabel: bool = False) -> dict[str, Any]:
    """`num_classes`, `class_names` and `multilabel`, checked: what tasks of classification ask for.

    Two classes may have one name, as the two cranes of ImageNet; one line says so.

    Args:
        num_classes: number of classes.
        class_names: their names; "0", "1", ... if not given.
        multilabel: whether an example may have several classes (or none).

    Raises:
        InputError: one of them is not of this form.
    """
    require(is_int(num_classes, 1), "num_classes", "an integer of at least 1", num_classes)
    class_names = [str(k) for k in range(num_classes)] if class_names is None else class_names
    are_strings = isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)
    require(are_strings, "class_names", "a list of strings", class_names)
    require(len(class_names) == num_classes, "class_names", f"{num_classes} names (num_classes)", len(class_names))
    class_names = distinct(class_names)
    if twice := next((name for name in class_names if class_names.count(name) > 1), None):
        which = ", ".join(str(label) for label, name in enumerate(class_names) if name == twice)
        say_once(log, ("classes of one name", twice), f"class_names: the classes {which} are all called {twice!r}")
    require(isinstance(multilabel, bool), "multilabel", "true or false", multilabel)
    return {"num_classes": num_classes, "class_names": class_names, "multilabel": multilabel}


def distinct(class_names: list[str]) -> list[str]:
    """Names of classes in the form NFC, in which all of them are compared: see `perceiver_lightning.names`.

    Raises:
        InputError: two of them are the same in this form.
    """
    names = [composed(name) for name in class_names]
    if len(set(names)) < len(set(class_names)):
        twice = next(name for name in names if len({other for other in class_names if composed(other) == name}) > 1)
        raise InputError(f"class_names: expected one Unicode form of each name, found two of {twice!r}")
    return names


def require_classes(facts: dict[str, Any], **options: Any) -> None:
    """Raise an InputError that names the first of these options that is given though there are no classes."""
    for key, value in options.items():
        off = "false" if isinstance(value, bool) else 0
        require(not value or "num_classes" in facts, key, f"{off}, as examples have no classes", value)
