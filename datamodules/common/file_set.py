"""A dataset that reads one file an example: kept or not, broken ones named or left out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datamodules.common.cache import Arrays, cached
from datamodules.common.progress import map_in_threads
from datamodules.common.splits import Split
from perceiver_lightning.errors import InputError


class FileSet(Dataset, ABC):
    """Reads the files of a split as examples; a subclass says how (`read`), and what an example is (`__getitem__`).

    Args:
        split: the files.
        settings: name of each array that is read of a file -> what it depends on but for the file, values for JSON,
            which tell caches on disk apart.

    Attributes:
        arrays: by the same names, what was read, if it is cached.
        rows: of each example, its row in these.
    """

    def __init__(self, split: Split, settings: dict[str, dict[str, Any]]) -> None:
        self.split = split
        self.settings = settings
        self.arrays: dict[str, Arrays] = {}
        self.rows: Sequence[int] = range(len(split.items))
        self.prepared = False

    def __len__(self) -> int:
        return len(self.split.items)

    @abstractmethod
    def __getitem__(self, row: int) -> dict[str, Any]:
        """One example, as `datamodules.common.collate.collate` takes it."""

    @abstractmethod
    def read(self, name: str, row: int) -> np.ndarray:
        """Read an array (I, *tail) of one file, without chance; InputError if it cannot be read.

        It has no row where a file lacks it (a video without sound). A file that lacks all of them is broken.
        """

    def content(self, row: int) -> dict[str, np.ndarray]:
        """All arrays of one file, by their names, from the cache if there is one. Not to be written on."""
        if self.arrays:
            return {name: arrays[self.rows[row]] for name, arrays in self.arrays.items()}
        content = {name: self.read(name, row) for name in self.settings}
        if not any(map(len, content.values())):
            raise self._nothing(row)
        return content

    def example(self, row: int, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a row with its name and its target."""
        example = {"inputs": inputs, "name": self.split.names[row]}
        return example if self.split.labels is None else {**example, self.split.target: self.split.target_of(row)}

    def prepare(self, skip_broken: bool, cache: bool, folder: Path | None = None) -> list[str]:
        """Read all files once, where that is asked for; the second call does nothing.

        Args:
            skip_broken: leave out the files that cannot be read.
            cache: keep what was read.
            folder: of caches on disk; in memory if not given, or where the examples are neither files nor arrays.

        Returns:
            The names of the files that were left out.
        """
        if self.prepared:
            return []
        kept: Sequence[int] = range(len(self))
        where = f"{self.split.kind.name} of {self.split.where}"
        if cache:
            are_known = all(isinstance(item, str | Path | np.ndarray) for item in self.split.items)
            arrays = {}
            for name, settings in self.settings.items():
                title = f"Reading {name if len(self.settings) > 1 else ''} {where}".replace("  ", " ")
                place = folder if are_known else None
                arrays[name] = cached(self.split.items, partial(self.read, name), settings, title, skip_broken, place)
            kept = self._sound(arrays, skip_broken)
            self.arrays = arrays
        elif skip_broken:
            sound = list(map_in_threads(self._is_sound, kept, f"Looking for broken {where}"))
            kept = [row for row in kept if sound[row]]
        elif len(self):
            with suppress(InputError):  # workers do not say what is odd of files: see `datamodules.common.say`
                self.content(0)
        left_out = sorted(set(range(len(self))) - set(kept))
        broken = [self.split.names[row] for row in left_out]
        self.split, self.rows, self.prepared = self.split.take(kept), kept, True
        return broken

    def _sound(self, arrays: dict[str, Arrays], skip_broken: bool) -> list[int]:
        """The rows of the files of which all arrays could be read, and one at least has something."""
        kept = []
        for row in range(len(self)):
            if any(row in one.broken for one in arrays.values()):
                continue
            if any(len(one[row]) for one in arrays.values()):
                kept.append(row)
            elif not skip_broken:
                raise self._nothing(row)
        return kept

    def _is_sound(self, row: int) -> bool:
        try:
            self.content(row)
        except InputError:
            return False
        return True

    def _nothing(self, row: int) -> InputError:
        return InputError(f"{self.split.items[row]}: expected {' or '.join(self.settings)}, found a file without")
