"""Files below a folder, found in one way for all: what is read, and what is left out and why."""

import os
from collections import Counter
from pathlib import Path
from typing import NoReturn

from perceiver_lightning.errors import InputError

# What systems and tools leave in folders of data, beside entries whose name begins with a dot.
SYSTEM_ENTRIES = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)


def is_hidden(name: str) -> bool:
    """Whether an entry is hidden, or one of the system's own, and so no data."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM_ENTRIES


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are data, sorted by their names; links to folders are folders."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        _unreadable(error)
    return [folder / name for name in names]


def list_files(folder: Path, extensions: tuple[str, ...], deep: bool = True) -> tuple[list[str], Counter[str]]:
    """The files with one of these endings, in any case, in the order of their folders and then of their names.

    Hidden entries are left out. Links are followed; a folder that two paths lead to is read by the first alone.

    Args:
        folder: where to look.
        extensions: in lower case, with the dot.
        deep: look at any depth, else in the folder itself.

    Returns:
        the paths; and of what was left out, each kind with how many there are.

    Raises:
        InputError: a folder cannot be read.
    """
    found: list[tuple[str, list[str]]] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        state = os.stat(path)
        if (state.st_dev, state.st_ino) in seen:
            left_out["linked twice"] += 1
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        hidden = [name for name in (*folders, *names) if is_hidden(name)]
        left_out["hidden"] += len(hidden)
        folders[:] = sorted(name for name in folders if not is_hidden(name)) if deep else []
        endings = {name: os.path.splitext(name)[1].lower() for name in names if not is_hidden(name)}
        others = [name for name, ending in endings.items() if ending not in extensions]
        left_out.update(_kind(os.path.join(path, name), endings[name]) for name in others)
        found.append((path, sorted(name for name, ending in endings.items() if ending in extensions)))
    return [os.path.join(path, name) for path, names in sorted(found) for name in names], +left_out


def _kind(path: str, ending: str) -> str:
    """What a file that is left out is called."""
    return "broken link" if not os.path.exists(path) else ending or "without ending"


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: expected a folder that can be read, found {error.strerror}") from error
