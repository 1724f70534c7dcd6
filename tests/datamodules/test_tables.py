"""Which lines of tables are of which split. The files are empty: none is read."""

import codecs
import csv
import os
import unicodedata
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


# ---------------------------------------------------------------- what is said of folds and labels


@pytest.mark.parametrize(
    ("folds", "options", "sentence"),
    [
        (
            ["1", "2", "3", ""],
            {"test_fold": 3},
            "expected a fold in each line, found '' in 4 of 16: fill in the column fold",
        ),
        (["1", "2", "nan"], {"test_fold": 2}, "found nan in 4 of 12: .*, or give this fold as test_fold or val_fold"),
        (["train", "test", ""], {}, "expected a fold in each line, found '' in 4 of 12"),
        (["test", ""], {}, "test_fold: expected one of '', test, the folds in .*, found null"),
        (["train", "test", "spare"], {}, "found spare beside test, train: say by test_fold or val_fold what it is"),
        (
            ["train", "test", "a", "b"],
            {"test_fold": "a"},
            "test_fold: expected one fold of .* for test, found test and a",
        ),
        (["train", "test", "b"], {"val_fold": "b"}, None),
        (["train", "test", ""], {"val_fold": ""}, None),
        (["test", ""], {"test_fold": "test"}, None),  # no other fold could be train
    ],
)
def test_blank_and_further_folds_are_named(tmp_path, folds, options, sentence):
    (tmp_path / "files").mkdir()
    lines = [(f"files/{fold}{i}.txt", "ab"[i % 2], fold) for fold in folds for i in range(4)]
    for path, *_ in lines:
        (tmp_path / path).touch()
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold"), *lines])
    if sentence is None:
        WordTable(str(tmp_path / "table.csv"), **options)
        return
    with pytest.raises(InputError, match=sentence):
        WordTable(str(tmp_path / "table.csv"), **options)


@pytest.fixture
def said(caplog, monkeypatch):
    """What is logged, as in a process that has said nothing yet."""
    monkeypatch.setattr("datamodules.common.say._said", set())
    return caplog


def test_labels_that_are_no_value_and_classes_that_train_lacks_are_told(tmp_path, said):
    table = write(tmp_path, {"train": 20, "val": 4, "test": 8})
    WordTable(str(table))
    assert not said.messages
    table.write_text(
        table.read_text().replace("test/0.txt,a", "test/0.txt,c").replace("train/2.txt,a", "train/2.txt,NaN")
    )
    assert WordTable(str(table)).class_names == ["NaN", "a", "b", "c"]
    assert said.messages == [
        f"{table}: 1 lines have the label 'NaN', which is read as a class",
        f"{table}: train has no example of c, which test has",
    ]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("form, other", [("NFC", "NFD"), ("NFD", "NFC")])
def test_files_are_found_in_either_unicode_form(tmp_path, form, other):
    name = "épée/çé 1.txt"
    path = tmp_path / unicodedata.normalize(form, name)
    path.parent.mkdir()
    path.touch()
    table = write(tmp_path, {"train": 20, "test": 8})
    append(table, unicodedata.normalize(other, name) + ",a,train")
    split = WordTable(str(table)).splits("fit")["train"]
    assert str(path) in split.items
    append(table, unicodedata.normalize(form, name) + ",a,test")
    with pytest.raises(InputError, match="in one split, found it in train and test"):
        WordTable(str(table))


@pytest.mark.parametrize("written", ["a b.txt ", " a b.txt", '"  a b.txt\t"', "train /a b.txt", "a b.txt\u00a0"])
def test_files_are_found_whatever_blanks_are_around_their_names(tmp_path, written):
    table = write(tmp_path, {"train": 20, "test": 8})
    path = tmp_path / "train" / "a b.txt" if "/" in written else tmp_path / "a b.txt"
    path.touch()
    append(table, written + ",a,train")
    assert str(path) in WordTable(str(table)).splits("fit")["train"].items
    path.rename(path.with_name(" " + path.name))  # it is the file that has blanks
    assert str(path.with_name(" " + path.name)) in WordTable(str(table)).splits("fit")["train"].items


def test_of_two_forms_the_written_one_counts(tmp_path):
    table = write(tmp_path, {"train": 20, "test": 8})
    (tmp_path / "a.txt").touch()
    (tmp_path / "a.txt ").touch()
    append(table, "a.txt ,a,train", "a.txt,b,train")
    items = WordTable(str(table), val_fraction=0.1).lines["train"]
    assert [line.path for line in items[-2:]] == [str(tmp_path / "a.txt "), str(tmp_path / "a.txt")]
    append(table, '" a.txt\t",a,train')
    with pytest.raises(
        InputError, match=r"' ?a.txt\\t': expected one file of that name, found 2 that differ from it in"
    ):
        WordTable(str(table))
    table.write_text("path,label,fold\n ,a,train\n")
    with pytest.raises(InputError, match=r"table.csv: expected a path in each line \(path\), found a line without"):
        WordTable(str(table))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_one_file_are_one_file(tmp_path, link):
    table = write(tmp_path, {"train": 20, "test": 8})
    link(tmp_path / "train" / "2.txt", tmp_path / "linked.txt")
    with pytest.raises(InputError, match=r"expected linked.txt in one split, found it in train and test .as train/2"):
        WordTable(append(table, "linked.txt,a,test"))
    table = write(tmp_path, {"train": 20, "test": 8})
    (tmp_path / "folder").symlink_to("train")
    with pytest.raises(InputError, match=r"expected folder/3.txt in one split"):
        WordTable(append(table, "folder/3.txt,b,test"))


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    "encoding, mark",
    [
        *(("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE), ("utf-32-le", codecs.BOM_UTF32_LE)),
        *(("utf-8", codecs.BOM_UTF8), ("utf-8", b"")),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("head", ["path,label,fold", "path ,label, fold ", "\n \n,,\nPath, label ,fold"])
def test_tables_as_spreadsheets_save_them(tmp_path, encoding, mark, delimiter, head):
    table = write(tmp_path, {"train": 20, "val": 4, "test": 8})
    text = table.read_text().replace("path,label,fold", head.replace("Path", "path")).replace(",a,", ",é,") + ",,\n"
    table.write_bytes(mark + text.replace(",", delimiter).replace("\n", "\r\n").encode(encoding))
    assert sizes(table) == {"train": 20, "val": 4, "test": 8}
    assert WordTable(str(table)).class_names == ["b", "é"]


def test_a_table_with_zeros_is_refused(tmp_path):
    table = write(tmp_path, {"train": 20, "test": 8})
    table.write_bytes(table.read_text().encode("utf-16-le"))
    with pytest.raises(
        InputError, match=f"^{table}: expected text of UTF-8, or of UTF-16 with a byte-order mark, found z"
    ):
        WordTable(str(table))
    table.write_bytes(codecs.BOM_UTF16_LE + b"a")
    with pytest.raises(InputError, match=f"^{table}: expected "):
        WordTable(str(table))


def test_a_column_of_folds_that_is_not_used_is_told(tmp_path, said):
    table = write(tmp_path, {"train": 20, "test": 20})
    assert sizes(table, fold_column=None) != {"train": 18, "val": 2, "test": 20}
    line = f"{table}: the column fold is not used; with fold_column: fold it would say the splits"
    assert [record.getMessage() for record in said.records].count(line) == 1
    said.clear()
    sizes(table)
    assert line not in said.text
