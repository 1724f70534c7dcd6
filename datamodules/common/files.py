"""What datamodules that read one file an example share: splits, sampling, caching, files that cannot be read."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from datamodules.base import STAGE_SPLITS, DataModule
from datamodules.common.cache import cache_folder
from datamodules.common.classes import require_classes
from datamodules.common.collate import collate
from datamodules.common.file_set import FileSet
from datamodules.common.folders import list_unlabelled
from datamodules.common.progress import map_in_threads
from datamodules.common.scale import Scale, measure, recorded
from datamodules.common.splits import Kind, Split, cut, shortened
from perceiver_lightning.errors import InputError, require

log = logging.getLogger(__name__)

Cache = Literal["memory", "disk"]
FEW = 3  # examples of a class in validation that are worth a line
MEASURED = 1000  # examples of train, of which mean and deviation are computed


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
            find again; null reads each file each time. Examples of torchvision's sets are kept in memory for "disk",
            too.
        cache_dir: the folder of caches on disk; `cache` in the folder of all data if not given.
        predict_dir: a folder of files without labels, at any depth, for `predict`.
        skip_broken: leave out files that cannot be read, after reading all once to find them, and log how many;
            otherwise the first one ends the run.

    Attributes:
        kind: of the files; a class has it.
        scales: modality -> what is taken out of its content; of those that are the train split's, `setup` measures it.
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
        self.scales: dict[str, Scale] = {}
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
        if stage == "fit":
            self._measure([scale for scale in self.scales.values() if scale.of_train and not scale.mean])

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

    def notes(self, stage: str) -> list[str]:
        """That validation has too few examples of a class to say much of it."""
        labels = None if stage != "fit" or self.val_set is None else self.val_set.split.labels
        if labels is None or "num_classes" not in self.facts:
            return []
        counts = np.bincount(np.hstack(labels).astype(int), minlength=self.num_classes)
        few = [
            f"{count} of {name!r}" for name, count in zip(self.class_names, counts.tolist(), strict=True) if count < FEW
        ]
        more = "; a greater val_fraction takes more" if "val" not in self.brought else ""
        return [f"val has {shortened(few)}: it says little of {'it' if len(few) == 1 else 'them'}{more}"] if few else []

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

    def plain_train(self) -> FileSet:
        """Train without what is done by chance, after `setup("fit")`; what that has read is not read again."""
        assert self.train_set is not None, 'setup("fit") comes first'
        plain = self.make_set(self.train_set.split, training=False)
        if plain.settings == self.train_set.settings:
            plain.arrays, plain.rows = self.train_set.arrays, self.train_set.rows
        return plain

    def _measure(self, scales: Sequence[Scale]) -> None:
        """Settle scales by the train split, without augmentation: by examples of it, drawn by seed."""
        if not scales or self.train_set is None:
            return
        rows = torch.randperm(len(self.train_set), generator=torch.Generator().manual_seed(0))[:MEASURED].tolist()
        plain = self.plain_train()

        def sums(row: int) -> dict[Scale, np.ndarray]:
            with recorded() as found:
                self.finish(collate([plain[row]]), training=False)
            return found

        measure(scales, list(map_in_threads(sums, rows, f"Measuring {self.kind.name} of {plain.split.where}")))

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep: the train split's mean and deviation of each modality for which they are asked."""
        known = {name: scale for name, scale in self.scales.items() if scale.of_train and scale.mean}
        return {"scales": {name: [scale.mean, scale.std] for name, scale in known.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from a checkpoint, in the place of those measured here."""
        for name, (mean, std) in state_dict.get("scales", {}).items():
            if name in self.scales and self.scales[name].of_train:
                self.scales[name].mean, self.scales[name].std = mean, std

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
