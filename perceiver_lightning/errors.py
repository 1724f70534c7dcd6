"""The one error that is shown without its traceback, and the one form of its sentence."""

from typing import Any


class InputError(ValueError):
    """Something a person gave is wrong: a file, a folder, a config key, a checkpoint.

    Raised where the file or key is known, with one sentence that names it and says what was expected and what was
    found. The command line prints that sentence and exits with status 2; every other exception is a bug and keeps
    its traceback.
    """


def require(condition: bool, where: str, expected: str, found: Any) -> None:
    """Raise an InputError in the one form that all have here, unless `condition` holds."""
    if not condition:
        raise InputError(f"{where}: expected {expected}, found {found}")
