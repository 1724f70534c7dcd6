"""What was decoded once, kept: arrays of varying length in one flat array, in memory or memory-mapped from disk."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from datamodules.base import located
from datamodules.common.progress import map_in_threads
from perceiver_lightning.errors import InputError

log = logging.getLogger(__name__)

FORMAT = 2  # a new one makes all older caches unknown: of this form, or of what readers read otherwise before


class Arrays(Sequence[np.ndarray]):
    """Arrays (I, *tail) that differ in I alone, each a view of one flat array: reading one copies nothing.

    Attributes:
        flat: all of them, one behind the other.
        offsets: where each begins in `flat`, and the end of the last.
        broken: the rows of the items that could not be read, whose arrays are empty -> the sentence that says why.
        folder: where they are mapped from, if they are on disk: another process then maps them again.
    """

    def __init__(
        self, flat: np.ndarray, offsets: np.ndarray, broken: dict[int, str], folder: Path | None = None
    ) -> None:
        self.flat, self.offsets, self.broken, self.folder = flat, offsets, broken, folder

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: Any) -> Any:
        """The array of a row."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def __reduce__(self) -> Any:
        # A mapping pickles as all its bytes: a worker that does not share this memory would get a copy of the set.
        if self.folder is not None:
            return _open, (self.folder,)
        return Arrays, (self.flat, self.offsets, self.broken)


def cache_folder(cache: str | None, cache_dir: str | None) -> Path | None:
    """The folder of caches on disk; None where nothing is kept there.

    Args:
        cache: "disk", "memory", or None.
        cache_dir: the folder; `cache` in the folder of all data if not given.
    """
    if cache != "disk":
        return None
    return Path(cache_dir) if cache_dir else located(None) / "cache"


def cached(
    paths: Sequence[str | Path | np.ndarray],
    read: Callable[[int], np.ndarray],
    settings: dict[str, Any],
    title: str,
    skip_broken: bool = False,
    folder: Path | None = None,
) -> Arrays:
    """What `read` makes of each file, by its row, from the cache, or read now in threads under a progress bar.

    On disk it is found again by the settings and by the files' paths, sizes and times of change, or by the arrays'
    contents. It is written under another name and moved to its own when whole, by one process at a time, while others
    that want the same wait for it: one that dies or is stopped leaves nothing that is taken for a cache.

    Args:
        paths: the files, or arrays in memory; without a `folder`, any items.
        read: of a row, an array (I, *tail) with the dtype and tail of all others; InputError for a broken file.
        settings: what else the arrays depend on: values for JSON.
        title: of the progress bar.
        skip_broken: go on after a broken file, whose row is then in `Arrays.broken`.
        folder: the folder of the caches on disk; None keeps the arrays in memory.

    Raises:
        InputError: the first broken file, unless they are skipped; the folder cannot be written.
    """
    if folder is None:
        return _in_memory(len(paths), read, title, skip_broken)
    try:
        arrays = _on_disk(paths, read, settings, title, skip_broken, folder)
    except OSError as error:
        raise InputError(f"cache_dir: expected a folder with room to write in, found {folder} ({error})") from error
    if arrays.broken and not skip_broken:
        raise InputError(next(iter(arrays.broken.values())))
    return arrays


def _in_memory(count: int, read: Callable[[int], np.ndarray], title: str, skip_broken: bool) -> Arrays:
    found = list(_read_all(count, read, title, skip_broken))
    good = [array for array in found if not isinstance(array, str)]
    broken = {row: array for row, array in enumerate(found) if isinstance(array, str)}
    flat = np.concatenate(good) if good else np.empty(0, np.uint8)
    return Arrays(
        flat, np.cumsum([0, *(0 if row in broken else len(array) for row, array in enumerate(found))]), broken
    )


def _on_disk(
    paths: Sequence[str | Path | np.ndarray],
    read: Callable[[int], np.ndarray],
    settings: dict[str, Any],
    title: str,
    skip_broken: bool,
    folder: Path,
) -> Arrays:
    key = hashlib.sha256(json.dumps([FORMAT, settings, [_state(path) for path in paths]]).encode()).hexdigest()[:20]
    whole, part = folder / key, folder / f"{key}.part"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock"):
        if whole.is_dir():
            try:
                arrays = _open(whole)
                if len(arrays) != len(paths):
                    raise ValueError(f"{len(arrays)} arrays for {len(paths)} files")
                return arrays
            except (ValueError, KeyError, EOFError, OSError) as error:  # JSON's own error is a ValueError
                log.warning(f"{whole}: expected a cache, found a damaged one ({error}); it is made again")
                shutil.rmtree(whole)
        shutil.rmtree(part, ignore_errors=True)  # of one that died
        part.mkdir()
        try:
            _write(part, _read_all(len(paths), read, title, skip_broken), settings)
            part.rename(whole)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return _open(whole)


def _write(folder: Path, arrays: Any, settings: dict[str, Any]) -> None:
    lengths: list[int] = []
    broken: dict[int, str] = {}
    form: tuple[np.dtype, tuple[int, ...]] | None = None
    with open(folder / "flat.bin", "wb") as file:
        for row, array in enumerate(arrays):
            if isinstance(array, str):
                broken[row] = array
                lengths.append(0)
                continue
            form = form or (array.dtype, array.shape[1:])
            if (array.dtype, array.shape[1:]) != form:
                raise ValueError(f"row {row}: expected dtype and tail {form}, found {array.dtype} {array.shape[1:]}")
            np.ascontiguousarray(array).tofile(file)
            lengths.append(len(array))
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths]))
    dtype, tail = form or (np.dtype(np.uint8), ())
    about = {"dtype": dtype.str, "tail": tail, "broken": broken, "settings": settings}
    (folder / "about.json").write_text(json.dumps(about))


def _open(folder: Path) -> Arrays:
    about = json.loads((folder / "about.json").read_text())
    offsets = np.load(folder / "offsets.npy")
    shape = (int(offsets[-1]), *about["tail"])
    dtype = np.dtype(about["dtype"])
    # An empty file cannot be mapped.
    flat = np.memmap(folder / "flat.bin", dtype, "r", shape=shape) if all(shape) else np.empty(shape, dtype)
    return Arrays(flat, offsets, {int(row): why for row, why in about["broken"].items()}, folder)


def _read_all(count: int, read: Callable[[int], np.ndarray], title: str, skip_broken: bool) -> Any:
    """The array of each file; where it is broken and is to be skipped, the sentence that says why."""

    def one(row: int) -> np.ndarray | str:
        try:
            return read(row)
        except InputError as error:
            if not skip_broken:
                raise
            return str(error)

    return map_in_threads(one, range(count), title)


def _state(item: str | Path | np.ndarray) -> list[Any]:
    """What tells a file from a later one of its name; nothing of one that is absent, of which `read` shall speak.

    Of an array its contents.
    """
    if isinstance(item, np.ndarray):
        content = hashlib.blake2b(np.ascontiguousarray(item).tobytes(), digest_size=16).hexdigest()
        return [content, item.dtype.str, list(item.shape)]
    try:
        stat = os.stat(item)
    except OSError:
        return [os.path.abspath(item)]
    return [os.path.abspath(item), stat.st_size, stat.st_mtime_ns]
