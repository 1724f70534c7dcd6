"""Which folders are splits and which are classes, and what of a folder is data. The files are empty: none is read."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_files import WORDS, WordFolder

from datamodules.common.folders import list_unlabelled
from datamodules.common.listing import list_files
from datamodules.common.splits import split_named
from perceiver_lightning.errors import InputError


def make(root: Path, *folders: str, count: int = 10) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for i in range(count):
            (root / folder / f"{i}.txt").touch()
    return root


def sizes(root: Path, **options) -> tuple[list[str], dict[str, int]]:
    """The classes, and how many files each split has."""
    data = WordFolder(str(root), **options)
    return data.class_names, {
        name: len(split.items) for name, split in (data.splits("fit") | data.splits("test")).items()
    }


PET_SPLITS = (["cat", "dog"], {"train": 18, "val": 2, "test": 20})


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("seg_train", "seg_test"),
        ("train2017", "test2017"),
        ("pets-training-set", "pets-test-set"),
        ("TrainImages", "TestImages"),
        ("trainset", "testset"),
        ("trn", "tst"),
        ("train data", "eval data"),
        ("1. train", "2. test"),
    ],
)
def test_names_of_splits_are_known_in_many_forms(tmp_path, train, test):
    root = make(tmp_path, *(f"{split}/{name}" for split in (train, test) for name in ("cat", "dog")))
    assert sizes(root) == PET_SPLITS
    make(tmp_path, "VALID/cat", "VALID/dog", count=3)
    assert sizes(root) == (["cat", "dog"], {"train": 20, "val": 6, "test": 20})


@given(st.sampled_from(["train", "val", "test"]), st.booleans(), st.text("abxyz_- 19", max_size=6))
def test_a_word_of_a_split_among_others_is_its_name(split, capital, beside):
    word = split.upper() if capital else split
    assert split_named(f"{beside}_{word}") == split_named(f"{word}_{beside}") == split_named(f"{word}2017") == split
    assert split_named(beside) is None
    assert split_named(f"train_{word}") == ("train" if split == "train" else None)


@pytest.mark.parametrize("name", ["cat", "trainer", "rain", "contest", "value", "device", "tested", "valley", "latest"])
def test_other_words_are_not(name):
    assert split_named(name) is None


def test_names_of_splits_beside_other_folders_are_classes_where_they_hold_files(tmp_path):
    root = make(tmp_path, "train", "bus", "tram")
    assert sizes(root) == (["bus", "train", "tram"], {"train": 24, "val": 3, "test": 3})


def test_files_of_splits_without_classes_are_no_classes(tmp_path):
    make(tmp_path, "train", "test")
    with pytest.raises(InputError, match="expected splits with folders of classes, found test, train without"):
        WordFolder(str(tmp_path))
    make(tmp_path / "pets", "cat", "dog", "test")
    with pytest.raises(InputError, match="expected splits with folders of classes, found test without"):
        WordFolder(str(tmp_path / "pets"))
    assert sizes(tmp_path / "pets", train_dir=".")[0] == ["cat", "dog", "test"]


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (["seen/a", "seen/b", "unseen/a", "unseen/b"], "found seen, unseen, which all hold a, b: say which"),
        (["train/a", "train/b", "more/a", "more/b"], "found train, more, which all hold a, b: say which"),
        (["train/a", "train/b", "val/a", "val/b", "valid/a"], "expected one name for val, found val and valid"),
        (["train/a", "train/b", "dev/a", "dev/b", "val/b"], "expected one name for val, found dev and val"),
        (["Train/a", "train/b"], "expected one name for train, found Train and train"),
        (["val/a", "val/b", "test/a"], "expected a folder for train, found test, val: name it by train_dir"),
        (["pets/a", "pets/b"], "expected one folder of words per class, found pets alone, with the folders a, b"),
        (["pets/train/a", "pets/train/b", "pets/test/a"], "found pets alone, with the folders test, train"),
        (["a", "b", "pets/a", "pets/b"], "pets: expected words of one class, found folders called a, b, too"),
        (["train/train/a", "train/train/b"], "train: expected one folder .*, found train alone, with the folders a, b"),
        (["a/train/x", "a/train/y", "b/train/x", "b/train/y"], "found train, train, which all hold x, y"),
        (["bus", "train_station/in", "train_station/out"], "found train_station, and words in bus: say which"),
        (["a/train", "b/train", "b/test"], "a: expected a folder for test, as another class has it, found none"),
    ],
)
def test_what_could_be_read_in_two_ways_is_an_error(tmp_path, folders, sentence):
    make(tmp_path, *folders)
    with pytest.raises(InputError, match=sentence):
        WordFolder(str(tmp_path))


def test_folders_of_splits_may_be_named_by_hand(tmp_path):
    make(tmp_path, "seen/cat", "seen/dog", "unseen/cat", "unseen/dog")
    assert sizes(tmp_path, train_dir="seen", test_dir="unseen") == PET_SPLITS
    assert sizes(tmp_path, train_dir=".")[0] == ["seen", "unseen"]
    make(tmp_path / "intel", "seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/dog")
    options = {"train_dir": "seg_train/seg_train", "test_dir": "seg_test/seg_test"}
    assert sizes(tmp_path / "intel", **options) == (["cat", "dog"], {"train": 18, "val": 2, "test": 10})
    make(tmp_path / "mixed", "cat", "dog", "held/cat")
    assert sizes(tmp_path / "mixed", train_dir=".", test_dir="held") == (PET_SPLITS[0], {**PET_SPLITS[1], "test": 10})
    with pytest.raises(InputError, match=f"val_dir: expected a folder in root, found no folder {tmp_path}/none"):
        WordFolder(str(tmp_path), train_dir="seen", val_dir="none")


def test_no_folder_is_of_two_splits(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "train/dog/deep/held")
    for options, place in (
        ({"train_dir": "train", "test_dir": "train"}, "train/cat"),
        ({"train_dir": "train", "test_dir": "train/dog/deep"}, "train/dog/deep/held"),
    ):
        with pytest.raises(InputError, match=f"{tmp_path}/{place}: expected a folder of one split, found one of"):
            WordFolder(str(tmp_path), **options)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(InputError, match="train/cat: expected a folder of one split"):
        WordFolder(str(tmp_path))


def test_splits_may_lie_in_classes(tmp_path):
    make(tmp_path, "cat/Train", "dog/Train", "cat/test", "dog/test")
    assert sizes(tmp_path) == PET_SPLITS


def test_a_test_without_classes_does_no_harm_to_training(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "test")
    data = WordFolder(str(tmp_path))
    assert len(data.splits("fit")["train"].items) == 18
    with pytest.raises(InputError, match="expected one folder of words per class in test, found none; files without"):
        data.splits("test")


HIDDEN = [".ipynb_checkpoints/0-checkpoint.txt", "._0.txt", ".Trash/1.txt", "@eaDir/0.txt", "__MACOSX/x/0.txt",
          "Thumbs.db", ".git/deep/0.txt", "$RECYCLE.BIN/0.txt", "~$0.txt"]  # fmt: skip


@pytest.mark.parametrize("entry", HIDDEN)
def test_hidden_entries_are_no_data_at_any_depth(tmp_path, entry):
    make(tmp_path, "cat", "dog")
    for folder in (tmp_path, tmp_path / "cat", tmp_path / "dog" / "more"):
        (folder / entry).parent.mkdir(parents=True, exist_ok=True)
        (folder / entry).touch()
    assert sizes(tmp_path) == (["cat", "dog"], {"train": 16, "val": 2, "test": 2})
    data = WordFolder(str(tmp_path))
    assert data.find_all().left_out == {"hidden": 3}
    assert len(list_unlabelled(tmp_path, WORDS).items) == 20


def test_what_is_left_out_is_counted(tmp_path):
    make(tmp_path, "train/cat", "train/dog")
    (tmp_path / "labels").mkdir()
    for name in (
        "train/cat/a.TEXT",
        "train/cat/b.md",
        "train/dog/c",
        "train/lost.txt",
        "train/notes.md",
        "more.md",
        "labels/a.md",
    ):
        (tmp_path / name).touch()
    data = WordFolder(str(tmp_path))
    found = {".md": 3, "without ending": 1, ".txt outside of the classes": 1, "folder labels": 1}
    assert data.find_train()[0].left_out == found
    assert [len(split.items) for split in data.splits("fit").values()] == [18, 3]
    assert data.splits("fit")["val"].left_out == {}


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    make(tmp_path, "store/cat", "root/dog")
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "store" / "cat")
    (tmp_path / "root" / "dog" / "again").symlink_to(tmp_path / "root" / "dog")
    (tmp_path / "root" / "dog" / "more").symlink_to(tmp_path / "store")
    root = tmp_path / "root"
    assert sizes(root) == (["cat", "dog"], {"train": 24, "val": 3, "test": 3})
    assert sorted(list_unlabelled(root, WORDS).names) == sorted(
        [f"{place}/{i}.txt" for place in ("cat", "dog") for i in range(10)]
    )
    (root / "gone").symlink_to(tmp_path / "gone")
    assert list_files(root, (".txt",))[1] == {"linked twice": 2, "broken link": 1}


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "cat", "dog")
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match="dog: expected a folder that can be read, found Permission denied"):
        list_files(tmp_path, (".txt",))


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(tmp_path, f"train/{composed}", "train/thé", f"test/{decomposed}", "test/thé")
    assert sizes(tmp_path) == ([composed, "thé"], PET_SPLITS[1])
    make(tmp_path, f"train/{decomposed}")
    with pytest.raises(InputError, match="train: expected classes of different names"):
        WordFolder(str(tmp_path))
