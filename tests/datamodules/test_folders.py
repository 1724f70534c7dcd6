"""Which folders are splits and which are classes, and what of a folder is data. The files are empty: none is read."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_files import WORDS, WordFolder

from datamodules.common import folders
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
        (["bus/red", "train/steam", "tram/old"], "found train, and words in bus, tram: say which .* by train_dir"),
        (["bus/red", "train/old", "test tube/x"], "a class that train has .old., found 'x', .* say train_dir: ."),
        (
            ["bus/red", "rail/train", "rail/tram"],
            "bus: expected a folder for train, as another .*none: is rail the root. If",
        ),
        (["a/train", "a/test", "b/test"], "b: expected a folder for train, as another class has it, found none"),
        (["pics/train/a", "pics/test/a", "notes"], "notes: expected a folder for train, .* is pics the root"),
        (["train/pics/a", "train/pics/b", "test/a"], "train: expected one folder .*: say train_dir: train/pics$"),
        (
            ["train/a", "train/b", "test/pics/a", "test/pics/b"],
            "test/pics: .* which holds a, b: say test_dir: test/pics$",
        ),
        (["train/a", "train/b", "test/a", "test/c"], "test/c: expected a class that train has .a, b., found 'c'$"),
        (["train/a", "train/b", "val/a", "val/c"], "val/c: expected a class that train has .a, b., found 'c'$"),
        (["train/a", "train/b", "test/a", "raw/a", "raw/b"], "found train, raw, which all hold a, b: say which"),
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


@pytest.mark.parametrize("form", ["{root}/held", "../pets/held", "./held/", "held/../held", "link"])
def test_folders_of_splits_may_be_written_in_any_form(tmp_path, form):
    root = make(tmp_path / "pets", "cat", "dog", "held/cat", "held/dog")
    (root / ".hidden").mkdir()
    (tmp_path / "link").symlink_to(root / "held")
    test_dir = f"{tmp_path}/link" if form == "link" else form.format(root=root)
    assert sizes(root, train_dir=".", test_dir=test_dir) == PET_SPLITS
    assert sizes(root, train_dir=str(root), test_dir=test_dir) == PET_SPLITS
    make(tmp_path, "pets/seen/cat", "pets/seen/dog")
    assert sizes(root, train_dir="../pets/seen", test_dir=test_dir) == PET_SPLITS


def test_with_train_dir_other_folders_are_left_out_and_said(tmp_path):
    make(tmp_path, *(f"{folder}/{name}" for folder in ("train", "val", "test", "raw") for name in ("cat", "dog")))
    for options in ({"train_dir": "train", "val_dir": "val", "test_dir": "test"}, {"train_dir": "train"}):
        assert sizes(tmp_path, **options) == (["cat", "dog"], {"train": 20, "val": 20, "test": 20})
        assert WordFolder(str(tmp_path), **options).find_train()[0].left_out == {"folder raw": 1}
    make(tmp_path / "deep", "train/pics/cat", "train/pics/dog", "test/pics/cat", "more/cat")
    data = WordFolder(str(tmp_path / "deep"), train_dir="train/pics", test_dir="test/pics")
    assert data.find_train()[0].left_out == {"folder more": 1}


@pytest.mark.parametrize("folders", [["val/cat", "val/dog"], ["val/cat"], ["val"]])
def test_a_split_is_no_class_of_the_root_beside_other_splits(tmp_path, folders):
    make(tmp_path, "cat", "dog", "train", "held/cat", "held/dog", *folders)
    sentence = f"{tmp_path}: expected nothing but classes, as train_dir says, found val: say val_dir: val"
    with pytest.raises(InputError, match=sentence):
        WordFolder(str(tmp_path), train_dir=".", test_dir="held")
    if folders != ["val"]:
        with pytest.raises(InputError, match=sentence):
            WordFolder(str(tmp_path), train_dir=".")
        options = {"train_dir": ".", "test_dir": "held", "val_dir": "val"}
        found = {"train": 30, "val": 10 * len(folders), "test": 20}
        assert sizes(tmp_path, **options) == (["cat", "dog", "train"], found)


def test_no_folder_is_of_two_splits(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "train/dog/deep/cat")
    for test_dir in ("train", f"{tmp_path}/train", "train/dog/.."):
        with pytest.raises(InputError, match=f"{tmp_path}: expected different folders as train_dir, val_dir and"):
            WordFolder(str(tmp_path), train_dir="train", test_dir=test_dir)
    sentence = "deep/cat/0.txt: expected a file of one class and one split, found it in train as .*/deep/cat/0.txt, too"
    with pytest.raises(InputError, match=sentence):
        sizes(tmp_path, train_dir="train", test_dir="train/dog/deep")


LINKS = {
    "a loop": (["a", "b"], "a/loop", "..", "b/0.txt", "a/loop/b/0.txt"),
    "a class as another": (["a", "b"], "c", "a", "c/0.txt", "a/0.txt"),
    "a test as train": (["train/a", "test/a"], "train/b", "../test/a", "test/a/0.txt", "train/b/0.txt"),
    "test in train": (
        ["train/a", "train/b", "test/a"],
        "train/a/more",
        "../../test/a",
        "test/a/0.txt",
        "train/a/more/0",
    ),
    "val as test": (["train/a", "train/b", "val/a"], "test", "val", "a/0.txt", "a/0.txt"),
    "a file of two classes": (["a", "b"], "b/x.txt", "../a/3.txt", "b/x.txt", "a/3.txt"),
    "a file of two splits": (
        ["train/a", "train/b", "test/a"],
        "test/a/x.txt",
        "../../train/b/3.txt",
        "test/a/x",
        "b/3",
    ),
    "splits in classes": (["a/train", "b/train", "a/test"], "b/test", "../a/train", "b/test/0.txt", "a/train/0.txt"),
    "a folder deep in two classes": (["a", "b/x", "c"], "c/deep", "../b/x", "c/deep/0.txt", "b/x/0.txt"),
}


@pytest.mark.parametrize(("folders", "link", "target", "again", "first"), LINKS.values(), ids=LINKS)
def test_one_file_in_two_classes_or_splits_is_an_error(tmp_path, folders, link, target, again, first):
    root = make(tmp_path, *folders)
    (root / link).symlink_to(target)
    for stage in ("fit", "test"):
        with pytest.raises(
            InputError, match=f"{again}.*: expected a file of one class and one split, .* {root}/.*{first}"
        ):
            WordFolder(str(root)).splits(stage)


def test_hard_links_are_links(tmp_path):
    make(tmp_path, "train/a", "train/b", "test/a")
    os.link(tmp_path / "train/b/3.txt", tmp_path / "train/b/x.txt")
    data = WordFolder(str(tmp_path))
    assert data.find_train()[0].left_out == {"linked twice": 1}
    assert len(data.find_train()[0].items) == 20
    os.link(tmp_path / "train/b/3.txt", tmp_path / "test/a/x.txt")
    with pytest.raises(InputError, match="expected a file of one class and one split, found it in train as"):
        sizes(tmp_path)


def test_files_without_numbers_in_their_listing_are_told_apart(tmp_path, monkeypatch):
    """Some file systems list the same number for all files."""
    make(tmp_path, "a", "b")
    (tmp_path / "a" / "x.txt").symlink_to("3.txt")
    find = folders.find_files
    dull = lambda *given: ({path: (0, 0) for path in find(*given)[0]}, find(*given)[1])  # noqa: E731
    monkeypatch.setattr(folders, "find_files", dull)
    data = WordFolder(str(tmp_path))
    assert (len(data.find_all().items), data.find_all().left_out) == (20, {"linked twice": 1})


@pytest.mark.parametrize("empty", [["val"], ["val/cat", "val/dog"], ["val/cat/deep"]])
def test_an_empty_validation_says_what_to_do(tmp_path, empty):
    make(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    make(tmp_path, *empty, count=0)
    sentence = "expected one folder of words per class in val, found none; without its folder, validation is cut from"
    data = WordFolder(str(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path}: {sentence} train"):
        data.splits("fit")
    assert len(data.splits("test")["test"].items) == 20


def test_a_class_that_a_split_lacks_is_said(tmp_path, caplog):
    make(tmp_path, "train/cat", "train/dog", "train/eel", "test/eel", "val/cat", "val/dog", "val/eel")
    make(tmp_path, "test/dog", count=0)
    (tmp_path / "test" / "dog" / ".gitkeep").touch()
    assert sizes(tmp_path) == (["cat", "dog", "eel"], {"train": 30, "val": 30, "test": 10})
    assert set(WordFolder(str(tmp_path)).find_test().labels) == {2}
    assert caplog.messages == [f"{tmp_path}: no words of cat, dog in test"]
    (tmp_path / "test" / "dog" / "0.doc").touch()
    with pytest.raises(InputError, match=r"test/dog: expected words \(.txt, .text\), found none, only .doc"):
        sizes(tmp_path)


def test_splits_may_lie_in_classes(tmp_path, caplog):
    make(tmp_path, "cat/Train", "dog/Train", "cat/test", "dog/test")
    assert sizes(tmp_path) == PET_SPLITS
    make(tmp_path, "eel/train", count=20)
    assert sizes(tmp_path) == (["cat", "dog", "eel"], {"train": 36, "val": 4, "test": 20})
    assert caplog.messages == [f"{tmp_path}: no words of eel in test"]


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
    (tmp_path / "root" / "dog" / "4 again.txt").symlink_to("4.txt")
    root = tmp_path / "root"
    assert sizes(root) == (["cat", "dog"], {"train": 16, "val": 2, "test": 2})
    assert WordFolder(str(root)).find_all().left_out == {"linked twice": 2}
    (root / "dog" / "4 again.txt").unlink()
    (root / "dog" / "more").symlink_to(tmp_path / "store")
    assert sorted(list_unlabelled(root, WORDS).names) == sorted(
        [f"{place}/{i}.txt" for place in ("cat", "dog") for i in range(10)]
    )
    (root / "gone").symlink_to("itself")
    (root / "itself").symlink_to("itself")
    assert list_files(root, (".txt",))[1] == {"linked twice": 2, "broken link": 2}


def test_splits_of_links_are_not_left_out(tmp_path):
    make(tmp_path, "store/1/cat", "store/2/dog", "store/3/cat", "root/train", "root/test", "root/more", count=0)
    for link, target in (("train/cat", "1/cat"), ("train/dog", "2/dog"), ("test/cat", "3/cat")):
        make(tmp_path / "store" / target, "deep")
        (tmp_path / "root" / link).symlink_to(tmp_path / "store" / target)
    assert sizes(tmp_path / "root") == (["cat", "dog"], {"train": 18, "val": 2, "test": 10})
    assert WordFolder(str(tmp_path / "root")).find_train()[0].left_out == {"folder more": 1}


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
