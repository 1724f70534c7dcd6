"""Files listed by a CSV: a line for each, with its path, its label or labels, its fold."""

import csv
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.splits import Kind, Split, files_of_splits, shortened, split_named
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import ERRORS, composed


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV, or of a TSV by its ending, by its columns' names.

    Raises:
        InputError: it is absent or no text, lacks a column, has no line, or a line with another number of columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors=ERRORS) as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, skipinitialspace=True, delimiter=delimiter)
            found = list(reader.fieldnames or [])
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file, found one that cannot be read ({error})") from error
    require(set(columns) <= set(found), str(path), f"the columns {', '.join(columns)}", ", ".join(found) or "none")
    require(len(set(found)) == len(found), str(path), "columns of different names", ", ".join(found))
    require(len(lines) > 0, str(path), "a line for each file", "none")
    for number, line in lines:
        more = line.get(None, [])  # what is beyond the named columns
        count = sum(line[name] is not None for name in found) + len(more)
        require(count == len(found), f"{path}, line {number}", f"{len(found)} columns, as the first line has", count)
    return [line for _, line in lines]


def check_present(paths: Sequence[str], table: Path, skip_absent: bool = False) -> None:
    """Raise an InputError if files that a table names are absent, unless that is to be skipped when they are read."""
    absent = [] if skip_absent else [path for path in paths if not os.path.isfile(path)]
    if absent:
        raise InputError(
            f"{table}: expected the files it names, found {len(absent)} of {len(paths)} absent, as {absent[0]}"
        )


class Line(NamedTuple):
    """A line of a table: the file as it stands there and its path, its labels if it has that column, its fold."""

    name: str
    path: str
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
                lines = lines_of_folds(lines["all"], self.folds, self.table)
        check_apart(lines, self.table)
        return lines

    def _read(self, path: Path, labelled: bool) -> list[Line]:
        fold_column = None if self.table.is_dir() else self.fold_column
        wanted = [self.path_column, self.label_column if labelled else None, fold_column]
        found = []
        for line in read_csv(path, [column for column in wanted if column is not None]):
            name, text = line[self.path_column], line.get(self.label_column)
            labels = None if text is None else self._labels(text, f"{path}, {name}")
            fold = "" if fold_column is None else line[fold_column].strip()
            found.append(Line(name, os.path.abspath(path.parent / name), labels, fold))
        return found

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


def lines_of_folds(lines: Sequence[Line], given: Mapping[str, str | int | None], table: Path) -> dict[str, list[Line]]:
    """The lines of each split, by their folds.

    A fold is of the split that is `given` for it, else of that which its name means. Where no name means train, all
    others are train.

    Raises:
        InputError: a fold that is given is not there; what a fold is remains unsure; there is none of train.
    """
    folds = sorted({line.fold for line in lines})
    there = f"one of {', '.join(folds)}, the folds in {table}"
    split_of = {str(fold): split for split, fold in given.items() if fold is not None}
    for fold, split in split_of.items():
        require(fold in folds, f"{split}_fold", there, fold)
    for fold in folds:
        named = split_of.get(fold) or split_named(fold)
        if named in ("test", "val"):
            others = [other for other, split in split_of.items() if split == named and other != fold]
            require(not others, f"{named}_fold", f"one fold of {table} for {named}", f"{fold} and {', '.join(others)}")
        if named is not None:
            split_of[fold] = named
    rest = [fold for fold in folds if fold not in split_of]
    require(not rest or any(fold is not None for fold in given.values()), "test_fold", there, "null")
    unsure = f"{', '.join(rest)} beside {', '.join(split_of)}"
    require(not rest or "train" not in split_of.values(), str(table), "folds of train, val and test", unsure)
    split_of |= dict.fromkeys(rest, "train")
    require("train" in split_of.values(), str(table), "a fold for train", ", ".join(folds))
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(split_of[line.fold], []).append(line)
    return found


def check_apart(lines: Mapping[str, Sequence[Line]], table: Path) -> None:
    """Raise an InputError if a file is in two splits, twice in one that is to be cut, or has other labels each time."""
    seen: dict[str, tuple[str, Line]] = {}
    for split, own in lines.items():
        is_cut = split == "all" or (split == "train" and "val" not in lines)
        for line in own:
            before, first = seen.setdefault(line.path, (split, line))
            if first is line:
                continue
            require(before == split, str(table), f"{line.name} in one split", f"it in {before} and {split}")
            require(not is_cut, str(table), f"{line.name} once, as a part of {split} is cut off by chance", "it twice")
            require(
                line.labels == first.labels,
                str(table),
                f"the same labels of {line.name} each time",
                f"{first.labels} and {line.labels}",
            )
