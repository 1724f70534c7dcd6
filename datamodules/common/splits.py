"""Files listed, labelled and cut into splits before any is read."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from torchvision.datasets.folder import make_dataset

from datamodules.base import located
from perceiver_lightning.errors import InputError, require

# What folders of splits may be called, and which split each is.
SPLIT_OF_FOLDER = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


class Kind(NamedTuple):
    """What files hold: its plural name for messages, the extensions of such files, and what opens one item."""

    name: str
    extensions: tuple[str, ...]
    open: Callable[[Any], Any]


@dataclass(frozen=True)
class Split:
    """The examples of one split, not read yet.

    Attributes:
        items: what `kind.open` takes, one per example.
        names: of the examples, for predictions.
        labels: their targets, or None to predict: classes from 0, a tuple of classes for several labels, or a tensor of
            numbers.
        where: the folder or set they are from, for messages.
        kind: what they are, and what opens them.
        strata: what a cut keeps the shares of; the labels if not given.
        groups: what a cut keeps together (several clips of one recording), one name per example.
        middles: of recordings: the second about which a clip is cut, one per example; any if not given.
        target: the key of its labels in an example.
        several: where labels are tuples of classes: how many classes there are. They become (several,) zeros and ones.
    """

    items: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[Any] | None
    where: str
    kind: Kind
    strata: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None
    middles: Sequence[float] | None = None
    target: str = "labels"
    several: int | None = None

    def target_of(self, row: int) -> Any:
        """The target of an example, as a batch has it: an int, or a tensor."""
        assert self.labels is not None
        if self.several is None:
            return self.labels[row]
        target = torch.zeros(self.several)
        target[list(self.labels[row])] = 1
        return target

    def take(self, rows: Sequence[int]) -> "Split":
        """Some of the examples, in the order given."""

        def some(column: Sequence[Any] | None) -> Any:
            return None if column is None else [column[row] for row in rows]

        return replace(
            self,
            items=some(self.items),
            names=some(self.names),
            labels=some(self.labels),
            strata=some(self.strata),
            groups=some(self.groups),
            middles=some(self.middles),
        )


def select(split: Split, rows: Sequence[int], key: str) -> Split:
    """Some examples of a split; InputError that names `key` if there are none."""
    require(len(rows) > 0, key, f"{split.kind.name} of it in {split.where}", "none")
    return split.take(rows)


def cut(split: Split, fraction: float, seed: int, key: str) -> tuple[Split, Split]:
    """Cut a part off, drawn by `seed` with the same share of each stratum: the rest, and the part.

    Where the split has groups, each is whole in one of the two, and shares are as near as that allows.

    Raises:
        InputError: a class is too small, or the part would have fewer examples than there are classes.
    """
    rows, strata = np.arange(len(split.items)), split.labels if split.strata is None else split.strata
    try:
        if split.groups is None:
            rest, part = train_test_split(rows, test_size=fraction, random_state=seed, stratify=strata)
        else:
            folds = StratifiedGroupKFold(max(2, round(1 / fraction)), shuffle=True, random_state=seed)
            rest, part = next(folds.split(rows, strata, split.groups))
    except ValueError as error:
        raise InputError(
            f"{key}: expected to cut {fraction} of the {len(rows)} {split.kind.name} of {split.where} with every class "
            f"in both parts, found that impossible ({error})"
        ) from error
    return split.take(sorted(rest.tolist())), split.take(sorted(part.tolist()))


def class_folders(folder: Path, kind: Kind) -> list[str]:
    """The names of the folders in a folder, sorted: its classes. Hidden ones are left out."""
    if not folder.is_dir():
        raise InputError(f"root: expected a folder with one folder of {kind.name} per class, found no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        taken = (
            " (a folder called train, val or test is taken for a split)"
            if folder.name.lower() in SPLIT_OF_FOLDER
            else ""
        )
        raise InputError(f"root: expected one folder of {kind.name} per class in {folder}, found none{taken}")
    return names


def labelled_folder(folder: Path, root: Path, classes: list[str], kind: Kind) -> Split:
    """The files in `folder/<class>/`, at any depth, named by their path from `root`.

    Raises:
        InputError: the folder is missing, has a class that is not among `classes` (those of train), or one without
            files of the kind.
    """
    present = class_folders(folder, kind)
    for name in present:
        if name not in classes:
            raise InputError(f"{folder / name}: expected a class that train has ({', '.join(classes)}), found {name!r}")
    labels_of = {name: label for label, name in enumerate(classes)}
    files = make_dataset(str(folder), labels_of, extensions=kind.extensions, allow_empty=True)
    found = {label for _, label in files}
    for name in present:
        if labels_of[name] not in found:
            raise InputError(f"{folder / name}: expected {kind.name} ({', '.join(kind.extensions)}), found none")
    paths = [path for path, _ in files]
    names = [os.path.relpath(path, root) for path in paths]
    return Split(paths, names, [label for _, label in files], str(root), kind)


def unlabelled_folder(folder: Path, kind: Kind) -> Split:
    """All files of a kind in a folder, at any depth, sorted by their path from it, which is their name."""
    if not folder.is_dir():
        raise InputError(f"predict_dir: expected a folder of {kind.name}, found no folder {folder}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kind.extensions and path.is_file())
    if not paths:
        raise InputError(f"predict_dir: expected {kind.name} ({', '.join(kind.extensions)}) in {folder}, found none")
    return Split(paths, [str(path.relative_to(folder)) for path in paths], None, str(folder), kind)


class ClassFolder:
    """A folder `<split>/<class>/*`, or `<class>/*`, which is then split by seed.

    The splits are called `train`, `val` (or `validation`, `valid`) and `test`, in capitals or not; the classes are the
    folders in train, sorted; the files may lie at any depth below.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        kind: of the files.
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder, where it is there, when the splits are asked for.
        test_fraction: share that is cut off for test where the folder is not split.
    """

    def __init__(self, root: str, kind: Kind, num_classes: int | None, test_fraction: float) -> None:
        self.folder = located(root)
        self.kind = kind
        self.test_fraction = test_fraction
        found = class_folders(self._train_folder(), kind) if self.folder.is_dir() or num_classes is None else None
        # Checked where splits are asked for: to predict, a folder that has changed since the training does no harm.
        self.found = found
        self.num_classes = num_classes or len(found or [])
        self.class_names = found if found is not None and len(found) == self.num_classes else None

    def _check(self) -> None:
        if self.found is not None and len(self.found) != self.num_classes:
            raise InputError(
                f"num_classes: expected {len(self.found)}, the number of classes in {self._train_folder()}, "
                f"found {self.num_classes}"
            )

    def find_train(self, seed: int) -> tuple[Split, Split | None]:
        """The train folder, and the validation folder if there is one."""
        self._check()
        if not self._folders_of_splits():
            return self._cut_test(seed)[0], None
        val = self._folders_of_splits().get("val")
        return self._list(self._train_folder()), self._list(val) if val else None

    def find_test(self, seed: int) -> Split:
        """The test folder."""
        self._check()
        if not (splits := self._folders_of_splits()):
            return self._cut_test(seed)[1]
        return self._list(splits.get("test", self.folder / "test"))

    def _folders_of_splits(self) -> dict[str, Path]:
        entries = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        named = [(SPLIT_OF_FOLDER.get(entry.name.lower()), entry) for entry in entries if entry.is_dir()]
        return {split: entry for split, entry in named if split is not None}

    def _train_folder(self) -> Path:
        splits = self._folders_of_splits()
        return splits.get("train", self.folder / "train") if splits else self.folder

    def _cut_test(self, seed: int) -> tuple[Split, Split]:
        return cut(self._list(self.folder), self.test_fraction, seed, "test_fraction")

    def _list(self, folder: Path) -> Split:
        return labelled_folder(folder, self.folder, class_folders(self._train_folder(), self.kind), self.kind)
