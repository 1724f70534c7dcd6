"""What datamodules that read one file an example share: splits, sampling, caching, files that cannot be read."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from datamodules.base import DataModule, require
from datamodules.common.progress import for_all
from datamodules.common.splits import Kind, Split, cut, unlabelled_folder
from perceiver_lightning.errors import InputError

log = logging.getLogger(__name__)


class FileSet(Dataset, ABC):
    """Reads the files of a split as examples; a subclass says how (`read`), and what an example is (`__getitem__`)."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.cached: Sequence[Tensor] | Tensor | None = None
        self.prepared = False

    def __len__(self) -> int:
        return len(self.split.items)

    @abstractmethod
    def __getitem__(self, row: int) -> dict[str, Any]:
        """One example, as `datamodules.common.collate.collate` takes it."""

    @abstractmethod
    def read(self, row: int) -> Tensor:
        """Read one file, without chance; InputError if it cannot be read."""

    def content(self, row: int) -> Tensor:
        """What `read` gives, from memory if it is there."""
        return self.read(row) if self.cached is None else self.cached[row]

    def example(self, row: int, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a row with its name and its label."""
        example = {"inputs": inputs, "name": self.split.names[row]}
        return example if self.split.labels is None else {**example, "labels": self.split.labels[row]}

    def prepare(self, skip_broken: bool, cache: bool) -> list[str]:
        """Read all files once, where that is asked for; the second call does nothing.

        Args:
            skip_broken: leave out the files that cannot be read.
            cache: keep what was read in memory: as one tensor if all have one shape.

        Returns:
            The names of the files that were left out.
        """
        if self.prepared:
            return []
        broken = []
        rows, where = range(len(self)), f"{self.split.kind.name} of {self.split.where}"
        if skip_broken:
            sound = list(for_all(self._is_sound, rows, f"Looking for broken {where}"))
            broken = [name for name, good in zip(self.split.names, sound, strict=True) if not good]
            self.split = self.split.take([row for row, good in enumerate(sound) if good])
        if cache:
            contents = list(for_all(self.read, range(len(self)), f"Reading {where}"))
            self.cached = torch.stack(contents) if len({content.shape for content in contents}) == 1 else contents
        self.prepared = True
        return broken

    def _is_sound(self, row: int) -> bool:
        try:
            self.read(row)
        except InputError:
            return False
        return True


class Files(DataModule, ABC):
    """A datamodule of one file an example; a subclass says where its splits are from and what is done to a batch.

    The test split is looked at in stage `test` only.

    Args:
        kind: of the files.
        modalities: as `DataModule` has them, and so the next five.
        num_classes: see there.
        class_names: see there.
        multilabel: see there.
        batch_size: see there.
        num_workers: see there.
        val_fraction: share of train that is cut off for validation where the data bring no validation split,
            the same share of each class.
        split_seed: the seed of that cut.
        balanced_sampling: in training, draw each class equally often. An epoch has as many examples as the split, but
            drawn with replacement: it repeats some and misses others. On several devices each draws from the whole
            split and takes its share of that, so two of them may get the same example in one epoch.
        cache: whether to keep what was read in memory.
        predict_dir: a folder of files without labels, at any depth, for `predict`.
        skip_broken: leave out files that cannot be read, after reading all once to find them, and log how many;
            otherwise the first one ends the run.
    """

    train_set: FileSet | None
    val_set: FileSet | None
    test_set: FileSet | None
    predict_set: FileSet | None

    def __init__(
        self,
        kind: Kind,
        modalities: dict[str, dict[str, Any]],
        num_classes: int,
        class_names: list[str] | None = None,
        multilabel: bool = False,
        batch_size: int = 64,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        balanced_sampling: bool = False,
        cache: bool = False,
        predict_dir: str | None = None,
        skip_broken: bool = False,
    ) -> None:
        require(0 < val_fraction < 1, "val_fraction", "a number between 0 and 1", val_fraction)
        if multilabel:
            require(not balanced_sampling, "balanced_sampling", "false, as examples have several labels", "true")
        super().__init__(modalities, num_classes, class_names, multilabel, batch_size, num_workers)
        self.kind = kind
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.balanced_sampling = balanced_sampling
        self.cache = cache
        self.predict_dir = predict_dir
        self.skip_broken = skip_broken

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
        if stage in ("fit", "validate") and self.val_set is None:
            train, val = self.find_train()
            if val is None:
                train, val = cut(train, self.val_fraction, self.split_seed, "val_fraction")
            self.train_set = self.make_set(train, training=True)
            self.val_set = self.make_set(val, training=False)
        if stage == "test" and self.test_set is None:
            self.test_set = self.make_test_set(self.find_test())
        if stage == "predict" and self.predict_set is None:
            if self.predict_dir is None:
                raise InputError(f"predict_dir: expected a folder of {self.kind.name} to predict, found null")
            self.predict_set = self.make_test_set(unlabelled_folder(Path(self.predict_dir), self.kind))

        sets = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}
        for name in sets[stage]:
            files: FileSet = getattr(self, f"{name}_set")
            count = len(files)
            broken = files.prepare(skip_broken=self.skip_broken, cache=self.cache and name != "predict")
            if broken:
                log.warning(
                    f"{name}: left out {len(broken)} of {count} {self.kind.name}, which cannot be read: {broken}"
                )
                if name == "train" and 0 in (counts := self.class_counts()):
                    empty = self.class_names[counts.index(0)]
                    expected = f"{self.kind.name} of {empty!r} in train that can be read"
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
