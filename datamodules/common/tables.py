"""Files listed by a CSV: a line for each, with its path, its label or labels, its fold."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.base import located
from datamodules.common.splits import Kind, Split, cut
from perceiver_lightning.errors import InputError, require


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV by its columns' names.

    Raises:
        InputError: it is absent or no text, lacks a column, has no line, or a line with another number of columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            lines, found = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file, found one that cannot be read ({error})") from error
    require(set(columns) <= set(found), str(path), f"the columns {', '.join(columns)}", ", ".join(found) or "none")
    require(len(lines) > 0, str(path), "a line for each file", "none")
    for number, line in enumerate(lines, 2):
        more = line.get(None, [])  # what is beyond the named columns
        count = sum(line[name] is not None for name in found) + len(more)
        require(count == len(found), f"{path}, line {number}", f"{len(found)} columns, as the first line has", count)
    return lines


def check_present(paths: Sequence[str], table: Path, skip_absent: bool = False) -> None:
    """Raise an InputError if files that a table names are absent, unless that is to be skipped when they are read."""
    absent = [] if skip_absent else [path for path in paths if not os.path.isfile(path)]
    if absent:
        raise InputError(
            f"{table}: expected the files it names, found {len(absent)} of {len(paths)} absent, as {absent[0]}"
        )


class Table:
    """A CSV of paths, labels and folds, and the splits that it makes.

    A file is of the test split where its fold is `test_fold`, of validation where it is `val_fold`, else of train:
    folds may be `train`, `val`, `test`, or numbers. The classes are all labels of the table, sorted.

    Args:
        table: the CSV file, from here or below the folder of all data, whose first line names its columns.
        kind: of the files.
        path_column: the column of paths, from the folder of the CSV, or absolute.
        label_column: the column of labels.
        label_separator: what stands between the labels of a file that may have several (or none); None for one label.
        fold_column: the column of folds; None where there is none and test is cut by seed.
        test_fold: the fold that is the test; None where there is none.
        val_fold: the fold that is the validation; None leaves it to be cut from train.
        test_fraction: share that is cut off for test where there are no folds.
        num_classes: number of classes, if the CSV may be absent; checked against it where it is there.

    Attributes:
        class_names: all labels, sorted; None if the CSV is absent.
        num_classes: how many there are, or, if the CSV is absent, how many are said to be.
    """

    def __init__(
        self,
        table: str,
        kind: Kind,
        path_column: str,
        label_column: str,
        label_separator: str | None,
        fold_column: str | None,
        test_fold: str | int | None,
        val_fold: str | int | None,
        test_fraction: float,
        num_classes: int | None,
    ) -> None:
        self.path = Path(table) if Path(table).is_file() else located(None) / table
        self.kind = kind
        self.path_column, self.label_column, self.fold_column = path_column, label_column, fold_column
        require(label_separator != "", "label_separator", "null, or what stands between labels", "nothing")
        self.separator = label_separator
        self.test_fold, self.val_fold = (None if fold is None else str(fold) for fold in (test_fold, val_fold))
        differ = val_fold is None or self.val_fold != self.test_fold
        require(differ, "val_fold", f"another fold than {test_fold}, test_fold", val_fold)
        self.test_fraction = test_fraction
        self.class_names: list[str] | None = None
        self.num_classes = num_classes or 0
        if self.path.is_file() or num_classes is None:
            self.class_names = sorted({name for line in self._lines() for name in self._labels(line)})
            self.num_classes = len(self.class_names)
            counts = (None, self.num_classes)
            require(num_classes in counts, "num_classes", f"{self.num_classes}, the labels in {self.path}", num_classes)

    def find_train(self, seed: int, skip_absent: bool) -> tuple[Split, Split | None]:
        """The folds that are neither test nor validation, and the validation fold if there is one.

        Raises:
            InputError: a fold is empty; a file is absent, unless that is to be skipped when it is read.
        """
        if self.fold_column is None:
            return self._cut_test(seed, skip_absent)[0], None
        train = self._split(lambda fold: fold not in (self.test_fold, self.val_fold), "train", skip_absent)
        if self.val_fold is None:
            return train, None
        return train, self._split(lambda fold: fold == self.val_fold, "val_fold", skip_absent)

    def find_test(self, seed: int, skip_absent: bool) -> Split:
        """The test fold; errors as of `find_train`."""
        if self.fold_column is None:
            return self._cut_test(seed, skip_absent)[1]
        return self._split(lambda fold: fold == self.test_fold, "test_fold", skip_absent)

    def _cut_test(self, seed: int, skip_absent: bool) -> tuple[Split, Split]:
        whole = self._split(lambda fold: True, "train", skip_absent)
        return cut(whole, self.test_fraction, seed, "test_fraction")

    def _split(self, wanted: Callable[[str], bool], key: str, skip_absent: bool) -> Split:
        """The files of the folds that are wanted, not read yet; `key` is named if there are none."""
        lines = self._lines()
        chosen = [line for line in lines if self.fold_column is None or wanted(line[self.fold_column].strip())]
        if self.fold_column is not None:
            folds = sorted({line[self.fold_column].strip() for line in lines})
            # Looked for in each split: with a test fold of another name, training would take what is meant for test.
            for name, fold in (("test_fold", self.test_fold), ("val_fold", self.val_fold)):
                where = f"one of {', '.join(folds)}, the folds in {self.path}"
                require(fold is None or fold in folds, name, where, fold)
            require(len(chosen) > 0, key, f"{self.kind.name} of it in {self.path}", f"the folds {', '.join(folds)}")
        names = [line[self.path_column] for line in chosen]
        paths = [str(self.path.parent / name) for name in names]
        check_present(paths, self.path, skip_absent)
        classes = {name: label for label, name in enumerate(self.class_names or [])}
        several = [tuple(classes[name] for name in self._labels(line)) for line in chosen]
        if self.separator is None:
            return Split(paths, names, [label for (label,) in several], str(self.path), self.kind)
        no_shares = [0] * len(paths)  # to keep in a cut
        where = str(self.path)
        return Split(paths, names, several, where, self.kind, strata=no_shares, several=self.num_classes)

    def _lines(self) -> list[dict[str, str]]:
        columns = [self.path_column, self.label_column, self.fold_column]
        return read_csv(self.path, [column for column in columns if column is not None])

    def _labels(self, line: dict[str, str]) -> list[str]:
        text = line[self.label_column]
        if self.separator is not None:
            return [name.strip() for name in text.split(self.separator) if name.strip()]
        require(text.strip() != "", f"{self.path}, {line[self.path_column]}", "a label", "none")
        return [text.strip()]
