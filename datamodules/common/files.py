"""What datamodules that read one file an example share: splits, sampling, caching, files that cannot be read."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from datamodules.base import STAGE_SPLITS, DataModule
from datamodules.common.cache import Arrays, cache_folder, cached
from datamodules.common.classes import require_classes
from datamodules.common.folders import list_unlabelled
from datamodules.common.progress import map_in_threads
from datamodules.common.splits import Kind, Split, cut
from perceiver_lightning.errors import InputError, require

log = logging.getLogger(__name__)

Cache = Literal["memory", "disk"]


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
            folder: of caches on disk; in memory if not given, or where the examples are not files of their own.

        Returns:
            The names of the files that were left out.
        """
        if self.prepared:
            return []
        kept: Sequence[int] = range(len(self))
        where = f"{self.split.kind.name} of {self.split.where}"
        if cache:
            are_files = all(isinstance(item, str | Path) for item in self.split.items)
            arrays = {}
            for name, settings in self.settings.items():
                title = f"Reading {name if len(self.settings) > 1 else ''} {where}".replace("  ", " ")
                place = folder if are_files else None
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


class Files(DataModule, ABC):
    """A datamodule of one file an example; a subclass says where its splits are from and what is done to a batch.

    The test split is looked at in stage `test` only.

    Args:
        modalities: as `DataModule` has them.
        facts: as `DataModule` has them.
        batch_size: examples in a batch, on each device.
        num_workers: processes that read ahead; 0 is right for cached examples that fit into memory, else about one per
            core.
        val_fraction: share of train that is cut off for validation where the data bring no validation split,
            the same share of each class.
        split_seed: the seed of that cut.
        balanced_sampling: in training, draw each class equally often. An epoch has as many examples as the split, but
            drawn with replacement: it repeats some and misses others. On several devices each draws from the whole
            split and takes its share of that, so two of them may get the same example in one epoch.
        cache: keep what was read of each file, before all that is done by chance: "memory", which forked workers share
            and each device's process has for itself; or "disk", memory-mapped, which all processes share and later runs
            find again; null reads each file each time. Examples that are not files of their own (of one array, of
            torchvision's sets) are kept in memory for "disk", too.
        cache_dir: the folder of caches on disk; `cache` in the folder of all data if not given.
        predict_dir: a folder of files without labels, at any depth, for `predict`.
        skip_broken: leave out files that cannot be read, after reading all once to find them, and log how many;
            otherwise the first one ends the run.

    Attributes:
        kind: of the files; a class has it.
        chosen: the splits that are to be read in the place of its own, where another says so; see `Paired`.
        test_fraction: of data that are not split, the share that is cut off for test.
        brought: those of val and test that are known not to be cut by its own share.
    """

    kind: Kind
    test_fraction: float
    train_set: FileSet | None
    val_set: FileSet | None
    test_set: FileSet | None
    predict_set: FileSet | None
    num_classes: int  # of data with classes, and so the next two
    class_names: list[str]
    multilabel: bool

    def __init__(
        self,
        modalities: dict[str, dict[str, Any]],
        facts: dict[str, Any],
        batch_size: int = 64,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        balanced_sampling: bool = False,
        cache: Cache | None = None,
        cache_dir: str | None = None,
        predict_dir: str | None = None,
        skip_broken: bool = False,
    ) -> None:
        require(0 < val_fraction < 1, "val_fraction", "a number between 0 and 1", val_fraction)
        require(cache in (None, "memory", "disk"), "cache", "memory, disk or null", cache)
        require_classes(facts, balanced_sampling=balanced_sampling)
        if facts.get("multilabel"):
            require(not balanced_sampling, "balanced_sampling", "false, as examples have several labels", "true")
        super().__init__(modalities, batch_size, num_workers, **facts)
        self.chosen: dict[str, Split] = {}
        self.brought: set[str] = set()
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.balanced_sampling = balanced_sampling
        self.cache = cache
        self.cache_dir = cache_folder(cache, cache_dir)
        self.predict_dir = predict_dir
        self.skip_broken = skip_broken

    def find_all(self) -> Split | None:
        """All files, not read yet, of data that are not split; None of others, of which the next two are asked."""
        return None

    @abstractmethod
    def find_train(self) -> tuple[Split, Split | None]:
        """The files of train and of validation, not read yet; None where validation is to be cut from train."""

    @abstractmethod
    def find_test(self) -> Split:
        """The files of test, not read yet."""

    @abstractmethod
    def make_set(self, split: Split, training: bool) -> FileSet:
        """The dataset that reads a split, with what is done to single examples by chance if `training`."""

    def make_test_set(self, split: Split) -> FileSet:
        """The dataset that reads a split in `test` and `predict`: as in validation, unless a subclass says how."""
        return self.make_set(split, training=False)

    @abstractmethod
    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device, augmentation if `training`: see `DataModule.finish`."""

    def setup(self, stage: str) -> None:
        """Find the files that the stage needs; read them here if they are to be cached or checked."""
        if any(getattr(self, f"{name}_set") is None for name in STAGE_SPLITS[stage]):
            for name, split in self._stage(stage).items():
                made = self.make_set(split, name == "train") if name in ("train", "val") else self.make_test_set(split)
                setattr(self, f"{name}_set", made)
        for name in STAGE_SPLITS[stage]:
            self._prepare(name, getattr(self, f"{name}_set"))

    def splits(self, stage: str) -> dict[str, Split]:
        """The files of each split that a stage needs, not read yet; what the data have no split for is cut by seed."""
        if stage == "predict":
            if self.predict_dir is None:
                raise InputError(f"predict_dir: expected a folder of {self.kind.name} to predict, found null")
            return {"predict": list_unlabelled(Path(self.predict_dir), self.kind)}
        train, val, test = None, None, None
        if (whole := self.find_all()) is not None:
            train, test = cut(whole, self.test_fraction, self.split_seed, "test_fraction")
        self.brought = {"test"} if whole is None else set()
        if stage == "test":
            return {"test": self.find_test() if test is None else test}
        if train is None:
            train, val = self.find_train()
        self.brought |= {"val"} if val is not None else set()
        if val is None:
            train, val = cut(train, self.val_fraction, self.split_seed, "val_fraction")
        return {"train": train, "val": val}

    def files(self, stage: str) -> dict[str, list[Split]]:
        """The files of each split that a stage needs, not read; in lists, as of others that have several sources."""
        return {name: [split] for name, split in self._stage(stage).items()}

    def _stage(self, stage: str) -> dict[str, Split]:
        """The splits of a stage: those that are chosen, or its own."""
        names = ("test",) if stage == "test" else ("train", "val")
        if stage == "predict" or not set(names) <= set(self.chosen):
            return self.splits(stage)
        return {name: self.chosen[name] for name in names}

    def left_out(self, stage: str) -> Counter[str]:
        """What lies beside the files of a stage and is not read: each kind, and how many there are."""
        sets: list[FileSet] = [getattr(self, f"{name}_set") for name in STAGE_SPLITS[stage]]
        return sum((Counter(files.split.left_out) for files in sets), Counter())

    def _prepare(self, name: str, files: FileSet) -> None:
        """Read the files of a split if they are to be cached or checked; what is predicted is read once anyway."""
        count = len(files)
        cache = self.cache is not None and name != "predict"
        broken = files.prepare(self.skip_broken, cache, self.cache_dir)
        if not broken:
            return
        log.warning(f"{name}: left out {len(broken)} of {count} {self.kind.name}, which cannot be read: {broken}")
        if name == "train" and "num_classes" in self.facts and 0 in (counts := self.class_counts()):
            expected = f"{self.kind.name} of {self.class_names[counts.index(0)]!r} in train that can be read"
            raise InputError(f"{files.split.where}: expected {expected}, found none")

    def class_counts(self) -> list[int]:
        """Examples per class of the train split; after `setup("fit")`."""
        return np.bincount(np.hstack(self._train_labels()).astype(int), minlength=self.num_classes).tolist()

    def train_dataloader(self) -> DataLoader:
        """Batches of `train_set`, shuffled or drawn with each class equally often."""
        if not self.balanced_sampling:
            return self.loader("train", training=True)
        labels = torch.tensor(self._train_labels())
        weights = 1 / labels.bincount()[labels]
        return self.loader("train", training=True, sampler=WeightedRandomSampler(weights.tolist(), len(labels)))

    def _train_labels(self) -> Sequence[Any]:
        assert self.train_set is not None and self.train_set.split.labels is not None, 'setup("fit") comes first'
        return self.train_set.split.labels
