"""Folders whose names say what the files in them are: splits and classes."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.listing import FileId, file_id, find_files, folders_in, list_files
from datamodules.common.say import say_once
from datamodules.common.splits import Kind, Split, one_of_each, shortened, split_named
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import composed

log = logging.getLogger(__name__)
Found = TypeVar("Found")
Layout = dict[str, dict[str, Path]]  # split, or "all" where there are none -> class -> its folder
OPTIONS = "train_dir, val_dir and test_dir"
# What to do about a split that has no files in classes.
WITHOUT = {
    "val": "without its folder, validation is cut from train",
    "test": "files without classes are for predict_dir",
}


class InFolders:
    """Files in folders: `<split>/<class>/*`, or `<class>/<split>/*`, or `<class>/*`, which is then split by seed.

    The splits are train, test and perhaps val, by any of their usual names (`Training`, `seg_test`, `dev` ...). Without
    a validation split, one is cut from train. The classes are the folders in train, sorted; the files may lie at any
    depth below. Hidden entries are left out, links are followed. What could be read in two ways is an error, and so is
    one file, by links, in two classes or splits.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder where it is there.
        test_fraction: share that is cut off for test where the folder is not split.
        train_dir: the folder in root, or its whole path, that has the classes of train, if its name does not say so;
            `.` if root has them.
        val_dir: that of validation, if its name does not say so.
        test_dir: that of test, if its name does not say so.
        options: as all data of this modality have them.
    """

    kind: Kind  # of the modality, and so the next
    num_classes: int

    def __init__(
        self,
        root: str,
        num_classes: int | None = None,
        test_fraction: float = 0.1,
        train_dir: str | None = None,
        val_dir: str | None = None,
        test_dir: str | None = None,
        **options: Any,
    ) -> None:
        self.folder = located(root)
        self.test_fraction = test_fraction
        self.given = {"train": train_dir, "val": val_dir, "test": test_dir}
        found: list[str] = []
        try:
            if self.folder.is_dir() or num_classes is None:
                found = list(of_train(self.layout))
        except InputError:
            if num_classes is None:
                raise  # else it is said where splits are asked for: `predict` does not read the folder
        names = found if len(found) == (num_classes or len(found)) else []
        # The modality comes after this class.
        super().__init__(class_facts(num_classes or len(found), names or None), **options)  # type: ignore[call-arg]

    def find_all(self) -> Split | None:
        """All files, where the folder is not split."""
        return self._list("all") if "all" in self.layout else None

    def find_train(self) -> tuple[Split, Split | None]:
        """The files of train, and those of validation if they have a folder."""
        return self._list("train"), self._list("val") if "val" in self.layout else None

    def find_test(self) -> Split:
        """The files of test."""
        return self._list("test")

    @cached_property
    def layout(self) -> Layout:
        """Which folders hold which class of which split; looked for once."""
        return find_layout(self.folder, self.kind, self.given)

    @cached_property
    def listed(self) -> dict[str, Split]:
        """The files of all splits; listed once."""
        return list_classes(self.folder, self.layout, self.kind)

    def _list(self, split: str) -> Split:
        layout, count = self.layout, self.num_classes
        classes = list(of_train(layout))
        where = f"{len(classes)}, as many as the folders of classes in {self.folder} ({shortened(classes)})"
        require(len(classes) == count, "num_classes", where, count)
        known = f"a folder for {split} ({split}_dir)"
        require(split in layout, str(self.folder), known, f"folders for {', '.join(layout)}")
        found = self.listed[split]
        per_class = f"one folder of {self.kind.name} per class in {split}"
        require(len(found.items) > 0, str(self.folder), per_class, f"none; {WITHOUT.get(split)}")
        return found


def of_train(layout: Mapping[str, Found]) -> Found:
    """The classes of train, by which all splits are labelled."""
    return layout["train" if "train" in layout else "all"]


def find_layout(root: Path, kind: Kind, given: Mapping[str, str | None]) -> Layout:
    """Which folders hold which class of which split: see `InFolders`.

    Args:
        root: the folder.
        kind: of the files.
        given: the folder of each split in root, where it is named by hand.

    Raises:
        InputError: there are no folders of classes, or they could be read in two ways.
    """
    require(root.is_dir(), "root", f"a folder with one folder of {kind.name} per class", f"no folder {root}")
    chosen = {split: root / name for split, name in given.items() if name is not None}
    for split, folder in chosen.items():
        require(folder.is_dir(), f"{split}_dir", "a folder in root", f"no folder {folder}")
    taken = {folder.resolve() for folder in chosen.values()}
    equal = ", ".join(map(str, chosen.values()))
    require(len(taken) == len(chosen), str(root), f"different folders as {OPTIONS}", equal)
    folders = [folder for folder in folders_in(root) if folder.resolve() not in taken]
    named = {folder: own for folder in folders if (own := split_named(folder.name))}
    if "train" in chosen and root.resolve() == chosen["train"].resolve():
        names = {folder.name for folder in folders}
        for folder, split in named.items():
            is_class = len(chosen) == 1 and names.isdisjoint(place.name for place in folders_in(folder))
            which = f"{folder.name}: say {split}_dir: {folder.name}, or rename it if it is one"
            require(is_class or split in chosen, str(root), "nothing but classes, as train_dir says", which)
        train = train_classes(root, root, folders, kind)
        return {"all": train} if len(chosen) == 1 else split_layout(root, train, chosen, kind)

    others = [folder for folder in folders if folder not in named]
    if chosen or any(map(folders_in, named)):
        free = [(folder.name, folder) for folder in named if named[folder] not in chosen]
        splits = one_of_each(free, str(root), OPTIONS) | chosen
        have = shortened([*splits.values(), *others])
        require("train" in splits, str(root), "a folder for train", f"{have}: name it by train_dir")
        for folder in others if "train" not in chosen else []:
            require_sure(root, [splits["train"], folder])
        filled = [folder for folder in others if len(splits) == 1 and list_files(folder, kind.extensions)[0]]
        lone = f"{shortened(splits.values())}, and {kind.name} in {shortened(filled)}: say which they are by {OPTIONS}"
        require(bool(chosen) or not filled, str(root), "folders that are classes, or folders that are splits", lone)
        train = train_classes(root, splits["train"], folders_in(splits["train"]), kind)
        return split_layout(root, train, splits, kind)
    # Trains may be a class; what else is named as a split is one, without classes.
    is_class = not named or (bool(others) and set(named.values()) == {"train"})
    flat = f"{shortened(list(named))} without: name the files in a table, or say train_dir: . if these are classes"
    require(is_class, str(root), "splits with folders of classes", flat)
    inside = {folder: folders_in(folder) for folder in folders}
    in_classes = [folder for folder in folders if any(split_named(place.name) == "train" for place in inside[folder])]
    if in_classes and len(folders) > 1:
        root_or_class = f"none: is {shortened(in_classes)} the root? If all are classes, say train_dir: ."
        for folder in folders:
            require(folder in in_classes, str(folder), "a folder for train, as another class has it", root_or_class)
        return layout_in_classes(root, inside, kind)
    require_sure(root, folders)
    return {"all": train_classes(root, root, folders, kind)}


def split_layout(root: Path, train: dict[str, Path], splits: Mapping[str, Path], kind: Kind) -> Layout:
    """The layout `<split>/<class>/*`, where the classes of train are known; errors as of `find_layout`."""
    layout = {"train": train}
    for split, folder in splits.items():
        if split == "train":
            continue
        layout[split] = classes_in(folder, folders_in(folder), kind)
        for name, place in layout[split].items():
            inside = [one.name for one in folders_in(place) if name not in train and composed(one.name) in train]
            mend = ""
            if inside:
                mend = f", which holds {shortened(inside)}: say {split}_dir: {os.path.relpath(place, root)}"
            elif train.keys().isdisjoint(layout[split]):
                mend = f", as all in {folder.name}: if the folders in root are classes, say train_dir: ."
            require(name in train, str(place), f"a class that train has ({shortened(train)})", f"{name!r}{mend}")
    return layout


def layout_in_classes(root: Path, inside: Mapping[Path, Sequence[Path]], kind: Kind) -> Layout:
    """The layout `<class>/<split>/*`, as ModelNet has it; errors as of `find_layout`."""
    layout: Layout = {"train": {}}
    for name, folder in classes_in(root, inside, kind).items():
        places = [(place.name, place) for place in inside[folder]]
        for split, place in one_of_each(places, str(folder), "removing one").items():
            layout.setdefault(split, {})[name] = place
        require(name in layout["train"], str(folder), "a folder for train, as another class has it", "none")
    require_sure(root, list(layout["train"].values()))
    return layout


def train_classes(root: Path, folder: Path, folders: Sequence[Path], kind: Kind) -> dict[str, Path]:
    """The classes of train, of these folders in a folder; errors as of `find_layout`."""
    require(len(folders) > 0, "root", f"one folder of {kind.name} per class in {folder}", "none")
    inside = folders_in(folders[0])
    mend = "is it the root?" if folder == root else f"say train_dir: {os.path.relpath(folders[0], root)}"
    alone = f"{folders[0].name} alone, with the folders {shortened(inside)}: {mend}"
    require(len(folders) > 1 or not inside, str(folder), f"one folder of {kind.name} per class", alone)
    return classes_in(folder, folders, kind)


def classes_in(where: Path, folders: Iterable[Path], kind: Kind) -> dict[str, Path]:
    """The name of each class -> its folder, sorted by names in their composed form (NFC).

    Raises:
        InputError: two have the same name, or one holds a copy of others.
    """
    folders = list(folders)
    classes = dict(sorted((composed(one.name), one) for one in folders))
    require(len(classes) == len(folders), str(where), "classes of different names", shortened(folders))
    for one in folders:
        copies = [place.name for place in folders_in(one) if composed(place.name) in classes]
        require(len(copies) < 2, str(one), f"{kind.name} of one class", f"folders called {shortened(copies)}, too")
    return classes


def require_sure(root: Path, folders: Sequence[Path]) -> None:
    """Raise an InputError if these folders all hold the same folders: each of them may be a split, then."""
    if len(folders) > 1:
        same = set.intersection(*({place.name for place in folders_in(folder)} for folder in folders))
        both = f"{shortened(folders)}, which all hold {shortened(sorted(same))}: say which they are by {OPTIONS}"
        require(len(same) < 2, str(root), "folders that are classes, or folders that are splits", both)


def list_classes(root: Path, layout: Layout, kind: Kind) -> dict[str, Split]:
    """The files of each split, named by their path from `root`; what val or test lacks of a class is said.

    Raises:
        InputError: a class of train has no files, or one of val or test has others alone; a file is in two classes or
            two splits, by links.
    """
    listed = {folder: find_files(folder, kind.extensions) for classes in layout.values() for folder in classes.values()}
    times = Counter(file for found, _ in listed.values() for file in found.values())
    seen: dict[FileId, tuple[str, str, str]] = {}
    splits: dict[str, Split] = {}
    for split, classes in layout.items():
        paths: list[str] = []
        labels: list[int] = []
        left_out = beside(root, split, layout, kind)
        lacking = []
        for label, name in enumerate(of_train(layout)):
            found, more = listed[classes[name]] if name in classes else ({}, Counter())
            if not found:
                lacking.append(name)
                others = ", ".join(what for what in more if what != "hidden")
                may_lack = split in ("val", "test") and not others
                what = f"{kind.name} ({', '.join(kind.extensions)})"
                require(may_lack, str(classes.get(name)), what, f"none, only {others}" if others else "none")
            left_out += more
            for path, file in found.items():
                # A file system that does not know the numbers may list any.
                one = file if times[file] == 1 else file_id(path)
                first, *owner = seen.setdefault(one, (path, split, name))
                again = f"it {f'in {owner[0]} ' if owner[0] != split else ''}as {first}, too"
                require(owner == [split, name], path, "a file of one class and one split", again)
                if first == path:
                    paths.append(path)
                    labels.append(label)
                else:
                    left_out["linked twice"] += 1
        if lacking and paths:
            say_once(log, (root, split), f"{root}: no {kind.name} of {shortened(lacking)} in {split}")
        names = [os.path.relpath(path, root) for path in paths]
        splits[split] = Split(paths, names, labels, str(root), kind, left_out=left_out)
    return splits


def beside(root: Path, split: str, layout: Layout, kind: Kind) -> Counter[str]:
    """What lies beside the folders of a split's classes, and beside the splits, which is counted with train."""
    left_out: Counter[str] = Counter()
    folders = {folder for classes in layout.values() for folder in classes.values()}
    places = {place.resolve() for folder in folders for place in (folder, folder.parent)}
    used = places.union(*(place.parents for place in places))
    holders = {split: {folder.parent for folder in classes.values()} for split, classes in layout.items()}
    first = split in ("train", "all")
    own = holders[split] | {root} if first else holders[split] - of_train(holders) - {root}
    others = []
    for holder in own:
        for what, count in list_files(holder, (), deep=False)[1].items():
            left_out[f"{what} outside of the classes" if what in kind.extensions else what] += count
        others += [folder.name for folder in folders_in(holder) if folder.resolve() not in used]
    left_out.update([f"folder {name}" for name in others] if len(others) < 4 else ["other folders"] * len(others))
    return left_out


def list_unlabelled(folder: Path, kind: Kind) -> Split:
    """All files of a kind in a folder, at any depth, sorted by their path from it, which is their name."""
    require(folder.is_dir(), "predict_dir", f"a folder of {kind.name}", f"no folder {folder}")
    found, left_out = list_files(folder, kind.extensions)
    require(len(found) > 0, "predict_dir", f"{kind.name} ({', '.join(kind.extensions)}) in {folder}", "none")
    paths = sorted(map(Path, found))
    return Split(paths, [str(path.relative_to(folder)) for path in paths], None, str(folder), kind, left_out=left_out)
