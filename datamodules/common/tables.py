"""Files listed by a CSV: a line for each, with its path, its label or labels, its fold."""

import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.listing import file_id
from datamodules.common.say import say_once
from datamodules.common.splits import Kind, Split, files_of_splits, shortened, split_named
from datamodules.common.text import read_csv, written_forms
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import composed

log = logging.getLogger(__name__)

MISSING = frozenset({"", "nan", "<na>", "n/a", "#n/a"})  # what programs write where a cell has no value
FOLD_COLUMNS = frozenset({"fold", "split", "subset", "partition"})  # usual names
MISSING_FOLDS = MISSING | {"none", "null"}


def check_present(paths: Sequence[str], table: Path, skip_absent: bool = False) -> None:
    """Raise an InputError if files that a table names are absent, unless that is to be skipped when they are read."""
    absent = [] if skip_absent else [path for path in paths if not os.path.isfile(path)]
    if absent:
        raise InputError(
            f"{table}: expected the files it names, found {len(absent)} of {len(paths)} absent, as {absent[0]}"
        )


class Line(NamedTuple):
    """A line of a table: the file as it is written there, its path, what tells it from others, its labels, its fold.

    Labels are None where there is no column of them.
    """

    name: str
    path: str
    file: Hashable
    labels: tuple[str, ...] | None
    fold: str


class InTables:
    """Files by a CSV with a line for each: its path, its label or labels, its fold; or by a CSV a split.

    Folds are named as splits are (train, val, test, or `dev`, `Testing` ...): `test_fold` and `val_fold` say which fold
    is which where names do not, as of numbers; then all others are train. The classes are all labels, sorted; those of
    train.csv where there are several tables.

    Args:
        table: the CSV file, whose first line names its columns; or a folder with `train.csv`, `test.csv` and perhaps
            `val.csv`. From here or below the folder of all data.
        path_column: the column of paths, from the folder of the CSV, or absolute.
        label_column: the column of labels.
        label_separator: what stands between the labels of a file that may have several (or none): "," in AudioSet's
            tables, quoted as CSV has it; null for one label a file.
        fold_column: the column of folds; null where there is none and test is cut by seed.
        test_fold: the fold that is the test; null finds it by its name.
        val_fold: the fold that is the validation; null finds it by its name, or cuts `val_fraction` from train.
        test_fraction: share that is cut off for test where there are no folds.
        num_classes: number of classes, if the CSV may be absent; checked against it where it is there.
        options: as all data of this modality have them.
    """

    kind: Kind  # of the modality, and so what follows
    num_classes: int
    class_names: list[str]
    skip_broken: bool

    def __init__(
        self,
        table: str,
        path_column: str = "path",
        label_column: str = "label",
        label_separator: str | None = None,
        fold_column: str | None = "fold",
        test_fold: str | int | None = None,
        val_fold: str | int | None = None,
        test_fraction: float = 0.1,
        num_classes: int | None = None,
        **options: Any,
    ) -> None:
        require(label_separator != "", "label_separator", "null, or what stands between labels", "nothing")
        differ = val_fold is None or str(val_fold) != str(test_fold)
        require(differ, "val_fold", f"another fold than {test_fold}, test_fold", val_fold)
        self.table = Path(table) if Path(table).exists() else located(None) / table
        self.path_column, self.label_column, self.fold_column = path_column, label_column, fold_column
        self.separator = label_separator
        self.folds = {"test": test_fold, "val": val_fold}
        self.test_fraction = test_fraction
        names: list[str] | None = None
        if self.table.exists() or num_classes is None:
            lines = self.lines
            known = lines["train"] if self.table.is_dir() else [line for split in lines.values() for line in split]
            names = sorted({name for line in known for name in line.labels or ()})
            where = f"{len(names)}, the labels in {self.table}"
            require(num_classes in (None, len(names)), "num_classes", where, num_classes)
        # The modality comes after this class.
        facts = class_facts(num_classes or len(names or []), names, label_separator is not None)
        super().__init__(facts, **options)  # type: ignore[call-arg]

    def find_all(self) -> Split | None:
        """All files, where the table has no folds."""
        return self._split("all") if self.fold_column is None and not self.table.is_dir() else None

    def find_train(self) -> tuple[Split, Split | None]:
        """The files of train, and those of validation if there is a fold of them.

        Raises:
            InputError: there is no such fold; a file is absent, unless that is to be skipped when it is read.
        """
        return self._split("train"), self._split("val") if "val" in self.lines else None

    def find_test(self) -> Split:
        """The files of test; errors as of `find_train`."""
        return self._split("test")

    @cached_property
    def lines(self) -> dict[str, list[Line]]:
        """The lines of each split, or of "all"; no file is in two of them. Read once."""
        if self.table.is_dir():
            tables = files_of_splits(self.table, (".csv", ".tsv"))
            require("train" in tables, "table", f"train.csv in the folder {self.table}", shortened(tables) or "none")
            lines = {split: self._read(path, split == "train") for split, path in tables.items()}
        else:
            require(self.table.is_file(), "table", "a CSV file, or a folder of them", f"none at {self.table}")
            lines = {"all": self._read(self.table, True)}
            if self.fold_column is not None:
                lines = lines_of_folds(lines["all"], self.folds, self.table, self.fold_column)
        check_apart(lines, self.table)
        say_labels(lines, self.table)
        return lines

    def _read(self, path: Path, labelled: bool) -> list[Line]:
        fold_column = None if self.table.is_dir() else self.fold_column
        wanted = [self.path_column, self.label_column if labelled else None, fold_column]
        lines = []
        listed: dict[str, dict[str, list[str]]] = {}
        rows = read_csv(path, [column for column in wanted if column is not None])
        if not self.table.is_dir() and fold_column is None:
            for column in (column for column in rows[0] if column.lower() in FOLD_COLUMNS):
                unused = f"{path}: the column {column} is not used; with fold_column: {column} it would say the splits"
                say_once(log, ("folds", path, column), unused)
        for line in rows:
            name, text = line[self.path_column], line.get(self.label_column)
            require(name.strip() != "", str(path), f"a path in each line ({self.path_column})", "a line without")
            whole = os.path.abspath(path.parent / name)
            found = written_forms(whole, listed)
            several = f"{len(found)} that differ from it in blanks or their Unicode form"
            require(len(found) < 2, f"{path}, {name!r}", "one file of that name", several)
            if found != [whole]:
                name = name.strip()
            whole = found[0] if found else os.path.abspath(path.parent / name)
            labels = None if text is None else self._labels(text, f"{path}, {name}")
            fold = "" if fold_column is None else line[fold_column].strip()
            lines.append(Line(name, whole, file_id(whole) if os.path.lexists(whole) else whole, labels, fold))
        return lines

    def _labels(self, text: str, where: str) -> tuple[str, ...]:
        """The labels of a line, in their composed form (NFC)."""
        text = composed(text.strip())
        if self.separator is not None:
            return tuple(name.strip() for name in text.split(self.separator) if name.strip())
        require(text != "", where, "a label", "none")
        return (text,)

    def _split(self, split: str) -> Split:
        """The files of a split, not read yet."""
        lines = self.lines
        found = f"those of {', '.join(sorted(lines))}"
        require(split in lines, f"{split}_fold", f"{self.kind.name} of {split} in {self.table}", found)
        paths, names = [line.path for line in lines[split]], [line.name for line in lines[split]]
        check_present(paths, self.table, self.skip_broken)
        classes = {name: label for label, name in enumerate(self.class_names)}
        several = []
        for line in lines[split]:
            require(line.labels is not None, str(self.table), f"the column {self.label_column} of {split}", "none")
            for name in line.labels or ():
                require(name in classes, f"{self.table}, {line.name}", f"a label of {shortened(classes)}", name)
            several.append(tuple(classes[name] for name in line.labels or ()))
        where = str(self.table)
        if self.separator is None:
            return Split(paths, names, [label for (label,) in several], where, self.kind)
        no_shares = [0] * len(paths)  # to keep in a cut
        return Split(paths, names, several, where, self.kind, strata=no_shares, several=self.num_classes)


def lines_of_folds(
    lines: Sequence[Line], given: Mapping[str, str | int | None], table: Path, column: str
) -> dict[str, list[Line]]:
    """The lines of each split, by their folds.

    A fold is of the split that is `given` for it, else of that which its name means. Where no name means train, all
    others are train.

    Args:
        lines: of the table.
        given: the folds of test and of val, where they are known.
        table: for messages, and so the next.
        column: of folds.

    Raises:
        InputError: a fold that is given is not there; what a fold is remains unsure; there is none of train.
    """
    counts = Counter(line.fold for line in lines)
    folds = sorted(counts)
    there = f"one of {_shown(folds)}, the folds in {table}"
    split_of = {str(fold): split for split, fold in given.items() if fold is not None}
    for fold, split in split_of.items():
        require(fold in folds, f"{split}_fold", there, _shown([fold]))
    for fold in folds:
        named = split_of.get(fold) or split_named(fold)
        if named in ("test", "val"):
            others = [other for other, split in split_of.items() if split == named and other != fold]
            both = f"{_shown([fold])} and {_shown(others)}"
            require(not others, f"{named}_fold", f"one fold of {table} for {named}", both)
        if named is not None:
            split_of[fold] = named
    rest = [fold for fold in folds if fold not in split_of]
    has_train = "train" in split_of.values()
    missing = [fold for fold in rest if fold.lower() in MISSING_FOLDS]
    if missing and (has_train or len(rest) > len(missing)):
        found = f"{_shown(missing)} in {sum(counts[fold] for fold in missing)} of {len(lines)}"
        mend = f"fill in the column {column}, remove these lines, or give this fold as test_fold or val_fold"
        raise InputError(f"{table}: expected a fold in each line, found {found}: {mend}")
    unsure = f"{_shown(rest)} beside {_shown(split_of)}: say by test_fold or val_fold what it is, or remove its lines"
    require(not rest or not has_train, str(table), "folds of train, val and test", unsure)
    require(not rest or any(fold is not None for fold in given.values()), "test_fold", there, "null")
    split_of |= dict.fromkeys(rest, "train")
    require("train" in split_of.values(), str(table), "a fold for train", _shown(folds))
    found_lines: dict[str, list[Line]] = {}
    for line in lines:
        found_lines.setdefault(split_of[line.fold], []).append(line)
    return found_lines


def _shown(folds: Iterable[str]) -> str:
    """Folds in a message, where a blank one is seen."""
    return ", ".join(fold or "''" for fold in folds)


def say_labels(lines: Mapping[str, Sequence[Line]], table: Path) -> None:
    """Say what is odd of labels: one that is no value, and classes that train lacks."""
    labels = {split: Counter(name for line in own for name in line.labels or ()) for split, own in lines.items()}
    for name, count in sum(labels.values(), Counter[str]()).items():
        if name.lower() in MISSING:
            line = f"{table}: {count} lines have the label {name!r}, which is read as a class"
            say_once(log, ("label", table, name), line)
    known: Mapping[str, int] = labels.get("all", labels.get("train", {}))
    for split, own in labels.items():
        if lacking := sorted(set(own) - set(known)):
            line = f"{table}: train has no example of {shortened(lacking)}, which {split} has"
            say_once(log, ("classes", table, split), line)


def check_apart(lines: Mapping[str, Sequence[Line]], table: Path) -> None:
    """Raise an InputError if a file is in two splits, twice in one that is to be cut, or has other labels each time."""
    seen: dict[Hashable, tuple[str, Line]] = {}
    for split, own in lines.items():
        is_cut = split == "all" or (split == "train" and "val" not in lines)
        for line in own:
            before, first = seen.setdefault(line.file, (split, line))
            if first is line:
                continue
            other_name = "" if line.name == first.name else f" (as {first.name})"
            both = f"it in {before} and {split}{other_name}"
            require(before == split, str(table), f"{line.name} in one split", both)
            require(not is_cut, str(table), f"{line.name} once, as a part of {split} is cut off by chance", "it twice")
            require(
                line.labels == first.labels,
                str(table),
                f"the same labels of {line.name} each time",
                f"{first.labels} and {line.labels}",
            )
