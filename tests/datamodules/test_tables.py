"""Which lines of tables are of which split. The files are empty: none is read."""

import csv
from pathlib import Path

import pytest
from word_files import WordTable

from perceiver_lightning.errors import InputError


def write(folder: Path, folds: dict[str, int], name: str = "table.csv", delimiter: str = ",") -> Path:
    """A table with so many lines of each fold, of two labels in turn, and its files."""
    lines = [(f"{fold}/{i}.txt", "ab"[i % 2], fold) for fold, count in folds.items() for i in range(count)]
    for path, *_ in lines:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    with open(folder / name, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("path", "label", "fold"), *lines])
    return folder / name


def sizes(table: Path, **options) -> dict[str, int]:
    data = WordTable(str(table), **options)
    return {name: len(split.items) for name, split in (data.splits("fit") | data.splits("test")).items()}


@pytest.mark.parametrize(
    ("folds", "options", "expected"),
    [
        ({"train": 24, "val": 8, "test": 8}, {}, (24, 8, 8)),
        ({"Training": 24, "dev": 8, "Testing": 8}, {}, (24, 8, 8)),
        ({"train": 24, "valid": 8, "eval": 8}, {"test_fold": "eval"}, (24, 8, 8)),
        ({"train": 20, "test": 8}, {}, (18, 2, 8)),
        ({"train_clean": 10, "train_other": 10, "test": 8}, {}, (18, 2, 8)),
        ({"1": 10, "2": 10, "3": 8}, {"test_fold": 3}, (18, 2, 8)),
        ({"1": 10, "2": 10, "3": 8}, {"test_fold": 3, "val_fold": "2"}, (10, 10, 8)),
        ({"1": 10, "2": 10, "test": 8}, {"test_fold": "test"}, (18, 2, 8)),
        ({"a": 20, "val": 6, "b": 8}, {"test_fold": "b"}, (20, 6, 8)),
    ],
)
def test_folds_are_splits_by_their_names_or_as_they_are_given(tmp_path, folds, options, expected):
    assert sizes(write(tmp_path, folds), **options) == dict(zip(("train", "val", "test"), expected, strict=True))


@pytest.mark.parametrize(
    ("folds", "options", "sentence"),
    [
        (["val", "test", "exclude"], {}, r"test_fold: expected one of exclude, test, val, the folds in .*, found null"),
        (["1", "2"], {}, "test_fold: expected one of 1, 2, the folds in .*, found null"),
        (["train", "val", "dev", "test"], {}, "val_fold: expected one fold of .* for val, found val and dev"),
        (["train", "test", "eval"], {}, "test_fold: expected one fold of .* for test, found test and eval"),
        (["train", "val", "dev"], {"val_fold": "dev"}, "val_fold: expected one fold of .* for val, found val and dev"),
        (
            ["train", "test", "spare"],
            {"test_fold": "test"},
            "expected folds of train, val and test, found spare beside test, train",
        ),
        (["val", "test"], {}, "expected a fold for train, found test, val"),
        (["train", "test"], {"val_fold": 1}, "val_fold: expected one of test, train, the folds in .*, found 1"),
    ],
)
def test_folds_that_could_be_read_in_two_ways_are_an_error(tmp_path, folds, options, sentence):
    with pytest.raises(InputError, match=sentence):
        WordTable(str(write(tmp_path, dict.fromkeys(folds, 4))), **options)


def append(table: Path, *lines: str) -> str:
    table.write_text(table.read_text() + "\n".join(lines) + "\n")
    return str(table)


def test_a_file_is_in_one_split(tmp_path):
    table = write(tmp_path, {"train": 20, "test": 8})
    with pytest.raises(InputError, match=r"expected ./train//2.txt in one split, found it in train and test"):
        WordTable(append(table, "./train//2.txt,a,test"))
    table = write(tmp_path, {"train": 20, "val": 4, "test": 8})
    append(table, "train/2.txt,a,train")  # an example that counts twice
    assert sizes(table)["train"] == 21
    with pytest.raises(InputError, match=r"expected the same labels of train/2.txt each time, found .*'a'.* and .*'b'"):
        WordTable(append(table, "train/2.txt,b,train"))
    table = write(tmp_path, {"train": 20, "test": 8})
    with pytest.raises(
        InputError, match=r"expected train/2.txt once, as a part of train is cut off by chance, found it"
    ):
        WordTable(append(table, "train/2.txt,a,train"))
    with pytest.raises(InputError, match=r"expected train/2.txt once, as a part of all is cut off by chance, found it"):
        WordTable(str(table), fold_column=None)


def test_absolute_and_relative_paths_are_one_file(tmp_path):
    table = write(tmp_path, {"train": 20, "test": 8})
    with pytest.raises(InputError, match="in one split, found it in train and test"):
        WordTable(append(table, f"{tmp_path}/train/2.txt,a,test"))


def test_columns_of_one_name_are_named(tmp_path):
    (tmp_path / "table.csv").write_text("path,label,label\na.txt,a,b\n")
    with pytest.raises(InputError, match="expected columns of different names, found path, label, label"):
        WordTable(str(tmp_path / "table.csv"), fold_column=None)


def test_a_table_a_split(tmp_path):
    for split, count in {"train": 20, "Validation": 6, "test": 8}.items():
        write(tmp_path, {split: count}, f"{split}.csv")
    (tmp_path / "notes.csv").write_text("nothing")
    assert sizes(tmp_path) == {"train": 20, "val": 6, "test": 8}
    (tmp_path / "Validation.csv").unlink()
    assert sizes(tmp_path) == {"train": 18, "val": 2, "test": 8}
    (tmp_path / "train.csv").unlink()
    write(tmp_path, {"train": 20}, "train.tsv", delimiter="\t")
    assert sizes(tmp_path) == {"train": 18, "val": 2, "test": 8}
    (tmp_path / "test.csv").write_text("path\ntrain/0.txt\n")
    with pytest.raises(InputError, match=r"expected train/0.txt in one split, found it in t"):
        WordTable(str(tmp_path))
    (tmp_path / "test.csv").write_text("path\ntest/0.txt\n")
    data = WordTable(str(tmp_path))
    assert len(data.splits("fit")["train"].items) == 18
    with pytest.raises(InputError, match=r"expected the column label of test, found none"):
        data.splits("test")
    (tmp_path / "test.csv").write_text("path,label\ntest/0.txt,c\n")
    data = WordTable(str(tmp_path))
    with pytest.raises(InputError, match=r"test/0.txt: expected a label of a, b, found c"):
        data.splits("test")
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(InputError, match=f"table: expected train.csv in the folder {tmp_path}, found test"):
        WordTable(str(tmp_path))


def test_labels_are_compared_in_their_composed_form(tmp_path):
    table = write(tmp_path, {"train": 20, "test": 8})
    table.write_text(table.read_text().replace(",a,train", ",é,train").replace(",a,test", ",e\u0301,test"))
    assert WordTable(str(table)).class_names == ["b", "é"]
