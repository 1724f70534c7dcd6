"""Files below a folder, found in one way for all: what is read, and what is left out and why."""

import os
from collections import Counter
from pathlib import Path

from perceiver_lightning.errors import InputError

FileId = tuple[int, int]  # device and number

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
    names = sorted(entry.name for entry in _entries(folder) if _is_folder(entry) and not is_hidden(entry.name))
    return [folder / name for name in names]


def list_files(folder: Path, extensions: tuple[str, ...], deep: bool = True) -> tuple[list[str], Counter[str]]:
    """The paths of the files that `find_files` finds, and what was left out."""
    found, left_out = find_files(folder, extensions, deep)
    return list(found), left_out


def find_files(folder: Path, extensions: tuple[str, ...], deep: bool = True) -> tuple[dict[str, FileId], Counter[str]]:
    """The files with one of these endings, in any case, in the order of their folders and then of their names.

    Hidden entries are left out. Links are followed; a folder that two paths lead to is read by the first alone.

    Args:
        folder: where to look.
        extensions: in lower case, with the dot.
        deep: look at any depth, else in the folder itself.

    Returns:
        the paths, each with what tells whether two may be one file; and of what was left out, each kind with how many
        there are.

    Raises:
        InputError: a folder cannot be read.
    """
    found: list[tuple[str, str, FileId]] = []
    left_out: Counter[str] = Counter()
    seen: set[FileId] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        entries = _entries(place)
        device, _ = state = file_id(place)
        if state in seen:
            left_out["linked twice"] += 1
            continue
        seen.add(state)
        folders = []
        for entry in entries:
            ending = os.path.splitext(entry.name)[1].lower()
            if is_hidden(entry.name):
                left_out["hidden"] += 1
            elif _is_folder(entry):
                folders.append(entry.path)
            elif ending in extensions:
                # The listing itself tells the number of a file: a look at each would be slow over a network.
                file = file_id(entry.path) if entry.is_symlink() else (device, entry.inode())
                found.append((place, entry.name, file))
            else:
                left_out[ending or "without ending" if os.path.exists(entry.path) else "broken link"] += 1
        waiting += sorted(folders, reverse=True) if deep else []
    return {os.path.join(place, name): file for place, name, file in sorted(found)}, left_out


def file_id(path: str) -> FileId:
    """The device and the number of a file or folder, which all links to it share; of a broken link, its own."""
    state = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return state.st_dev, state.st_ino


def _entries(folder: str | Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"{error.filename}: expected a folder that can be read, found {error.strerror}") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
