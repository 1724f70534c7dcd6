"""Folders whose names say what the files in them are: splits and classes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.listing import folders_in, list_files
from datamodules.common.splits import Kind, Split, one_of_each, shortened, split_named
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import composed

Found = TypeVar("Found")
Layout = dict[str, dict[str, Path]]  # split, or "all" where there are none -> class -> its folder
OPTIONS = "train_dir, val_dir and test_dir"


class InFolders:
    """Files in folders: `<split>/<class>/*`, or `<class>/<split>/*`, or `<class>/*`, which is then split by seed.

    The splits are train, test and perhaps val, by any of their usual names (`Training`, `seg_test`, `dev` ...). Without
    a validation split, one is cut from train. The classes are the folders in train, sorted; the files may lie at any
    depth below. Hidden entries are left out, links are followed. What could be read in two ways is an error.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder where it is there.
        test_fraction: share that is cut off for test where the folder is not split.
        train_dir: the folder in root that has the classes of train, if its name does not say so; `.` if root has them.
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
        layout = find_layout(self.folder, self.kind, self.given)
        check_places(layout)
        return layout

    def _list(self, split: str) -> Split:
        layout, count = self.layout, self.num_classes
        classes = list(of_train(layout))
        where = f"{len(classes)}, as many as the folders of classes in {self.folder} ({shortened(classes)})"
        require(len(classes) == count, "num_classes", where, count)
        known = f"a folder for {split} ({split}_dir)"
        require(split in layout, str(self.folder), known, f"folders for {', '.join(layout)}")
        return list_classes(self.folder, split, layout, self.kind)


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
    folders = [folder for folder in folders_in(root) if folder not in chosen.values()]
    if chosen.get("train") == root / ".":
        classes = {"all" if len(chosen) == 1 else "train": classes_in(root, folders, kind)}
        return classes | {split: classes_in(chosen[split], None, kind) for split in chosen if split != "train"}

    named = {folder: split_named(folder.name) for folder in folders if split_named(folder.name)}
    others = [folder for folder in folders if folder not in named]
    if chosen or any(map(folders_in, named)):
        filled = [folder for folder in others if list_files(folder, kind.extensions, deep=False)[0]]
        lone = f"{shortened(list(named))}, and {kind.name} in {shortened(filled)}: say which they are by {OPTIONS}"
        is_sure = bool(chosen) or len(set(named.values())) > 1 or not filled
        require(is_sure, str(root), "folders that are classes, or folders that are splits", lone)
        by_name = [(folder.name, folder) for folder in named if named[folder] not in chosen]
        found = one_of_each(by_name, str(root), OPTIONS)
        return split_layout(root, found | chosen, others, kind)
    # Trains may be a class; what else is named as a split is one, without classes.
    is_class = not named or (bool(others) and set(named.values()) == {"train"})
    flat = f"{shortened(list(named))} without: name the files in a table, or say train_dir: . if these are classes"
    require(is_class, str(root), "splits with folders of classes", flat)
    inside = {folder: folders_in(folder) for folder in folders}
    in_classes = any(split_named(place.name) == "train" for places in inside.values() for place in places)
    if in_classes and len(folders) > 1:
        return layout_in_classes(root, inside)
    require_sure(root, folders)
    return {"all": classes_in(root, folders, kind)}


def split_layout(root: Path, splits: Mapping[str, Path], others: Sequence[Path], kind: Kind) -> Layout:
    """The layout `<split>/<class>/*`, with other folders beside it; errors as of `find_layout`."""
    have = shortened([*splits.values(), *others])
    require("train" in splits, str(root), "a folder for train", f"{have}: name it by train_dir")
    layout = {
        split: classes_in(folder, None, kind) if split == "train" or folders_in(folder) else {}
        for split, folder in splits.items()
    }
    for folder in others:
        require_sure(root, [splits["train"], folder])
    return layout


def layout_in_classes(root: Path, inside: Mapping[Path, Sequence[Path]]) -> Layout:
    """The layout `<class>/<split>/*`, as ModelNet has it; errors as of `find_layout`."""
    layout: Layout = {}
    for folder, places in inside.items():
        for split, place in one_of_each([(place.name, place) for place in places], str(folder), "removing one").items():
            layout.setdefault(split, {})[composed(folder.name)] = place
    for split, classes in layout.items():
        for folder in inside:
            known = composed(folder.name) in classes
            require(known, str(folder), f"a folder for {split}, as another class has it", "none")
    require_sure(root, list(layout.get("train", {}).values()))
    return layout


def check_places(layout: Layout) -> None:
    """Raise an InputError if a folder of one split is a folder of another, or lies in one."""
    split_of = {place.resolve(): split for split, classes in layout.items() for place in classes.values()}
    for split, classes in layout.items():
        for place in map(Path.resolve, classes.values()):
            for holder in (place, *place.parents):
                other = split_of.get(holder, split)
                require(other == split, str(place), "a folder of one split", f"one of {split} and of {other}")


def classes_in(folder: Path, folders: Sequence[Path] | None, kind: Kind) -> dict[str, Path]:
    """The classes in a folder: the name of each -> its folder, sorted by names in their composed form (NFC).

    Args:
        folder: that of train, or of another split.
        folders: those that may be classes; all in it if not given.
        kind: of the files.

    Raises:
        InputError: there are none; there is one alone, and folders in it; one holds a copy of others.
    """
    folders = folders_in(folder) if folders is None else folders
    require(len(folders) > 0, "root", f"one folder of {kind.name} per class in {folder}", "none")
    names = {composed(one.name) for one in folders}
    for one in folders:
        inside = [place.name for place in folders_in(one)]
        alone = f"{one.name} alone, with the folders {shortened(inside)}: is it the root?"
        require(len(folders) > 1 or not inside, str(folder), f"one folder of {kind.name} per class", alone)
        copies = [name for name in inside if composed(name) in names]
        require(len(copies) < 2, str(one), f"{kind.name} of one class", f"folders called {shortened(copies)}, too")
    require(len(names) == len(folders), str(folder), "classes of different names", shortened(folders))
    return dict(sorted((composed(one.name), one) for one in folders))


def require_sure(root: Path, folders: Sequence[Path]) -> None:
    """Raise an InputError if these folders all hold the same folders: each of them may be a split, then."""
    if len(folders) > 1:
        same = set.intersection(*({place.name for place in folders_in(folder)} for folder in folders))
        both = f"{shortened(folders)}, which all hold {shortened(sorted(same))}: say which they are by {OPTIONS}"
        require(len(same) < 2, str(root), "folders that are classes, or folders that are splits", both)


def list_classes(root: Path, split: str, layout: Layout, kind: Kind) -> Split:
    """The files of a split, named by their path from `root`.

    Raises:
        InputError: it has a class that train has not, or one without files of the kind.
    """
    labels_of = {name: label for label, name in enumerate(of_train(layout))}
    bare = "none; files without classes are for predict_dir"
    require(len(layout[split]) > 0, str(root), f"one folder of {kind.name} per class in {split}", bare)
    paths: list[str] = []
    labels: list[int] = []
    left_out: Counter[str] = Counter()
    for name, folder in layout[split].items():
        require(name in labels_of, str(folder), f"a class that train has ({shortened(labels_of)})", repr(name))
        found, more = list_files(folder, kind.extensions)
        endings = f" with another ending ({', '.join(more)})" if more else ""
        require(len(found) > 0, str(folder), f"{kind.name} ({', '.join(kind.extensions)})", f"none{endings}")
        paths += found
        labels += [labels_of[name]] * len(found)
        left_out += more
    left_out += beside(root, split, layout, kind)
    return Split(paths, [os.path.relpath(path, root) for path in paths], labels, str(root), kind, left_out=left_out)


def beside(root: Path, split: str, layout: Layout, kind: Kind) -> Counter[str]:
    """What lies beside the folders of a split's classes, and beside the splits, which is counted with train."""
    left_out: Counter[str] = Counter()
    used = {folder for classes in layout.values() for folder in classes.values()}
    used |= {folder.parent for folder in used}
    holders = {split: {folder.parent for folder in classes.values()} for split, classes in layout.items()}
    first = split in ("train", "all")
    own = holders[split] | {root} if first else holders[split] - of_train(holders) - {root}
    others = []
    for holder in own:
        for what, count in list_files(holder, (), deep=False)[1].items():
            left_out[f"{what} outside of the classes" if what in kind.extensions else what] += count
        others += [folder.name for folder in folders_in(holder) if folder not in used]
    left_out.update([f"folder {name}" for name in others] if len(others) < 4 else ["other folders"] * len(others))
    return left_out


def list_unlabelled(folder: Path, kind: Kind) -> Split:
    """All files of a kind in a folder, at any depth, sorted by their path from it, which is their name."""
    require(folder.is_dir(), "predict_dir", f"a folder of {kind.name}", f"no folder {folder}")
    found, left_out = list_files(folder, kind.extensions)
    require(len(found) > 0, "predict_dir", f"{kind.name} ({', '.join(kind.extensions)}) in {folder}", "none")
    paths = sorted(map(Path, found))
    return Split(paths, [str(path.relative_to(folder)) for path in paths], None, str(folder), kind, left_out=left_out)
