"""Files of several datamodules brought into the same splits by their keys. The files are empty: none is read."""

from pathlib import Path

import pytest
from word_files import WordFolder

from datamodules.multimodal.keys import split_by_key
from perceiver_lightning.errors import InputError


def make(root: Path, folder: str, numbers) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for i in numbers:
        (root / folder / f"{i}.txt").touch()
    return root


def keys(*roots: Path, key_of=None, **options) -> list[dict[str, list[int]]]:
    """The numbers of the files of each split, of each datamodule."""
    data = {name: WordFolder(str(root), **options) for name, root in zip("abc", roots, strict=False)}
    found = split_by_key(data, key_of or (lambda name, text: Path(text).stem))
    return [
        {split: sorted(int(Path(text).stem) for text in one.names) for split, one in splits.items()}
        for splits in found.values()
    ]


def flat(root: Path, numbers) -> Path:
    for name in ("cat", "dog"):
        make(root, name, [i for i in numbers if i % 2 == (name == "dog")])
    return root


def in_splits(root: Path, **splits) -> Path:
    for split, numbers in splits.items():
        flat(root / split, numbers)
    return root


def apart(splits: dict[str, list[int]]) -> bool:
    return sum(map(len, splits.values())) == len(set().union(*splits.values()))


def test_what_is_not_split_is_cut_once(tmp_path, caplog):
    one, other = keys(flat(tmp_path / "a", range(100)), flat(tmp_path / "b", range(9, 100)))
    assert one == other and apart(one)
    assert {split: len(found) for split, found in one.items()} == {"train": 72, "val": 9, "test": 10}
    assert caplog.messages == ["left out 9 examples of 'a', which have no counterpart"]


def test_what_is_split_decides_for_what_is_not(tmp_path, caplog):
    split = in_splits(tmp_path / "a", train=range(60), val=range(60, 70), test=range(70, 80))
    one, other = keys(split, flat(tmp_path / "b", range(80)))
    assert one == other == {"train": [*range(60)], "val": [*range(60, 70)], "test": [*range(70, 80)]}
    one, other = keys(in_splits(tmp_path / "c", train=range(70), test=range(70, 80)), flat(tmp_path / "b", range(80)))
    assert one == other and apart(one) and one["test"] == [*range(70, 80)] and len(one["val"]) == 7
    assert not caplog.messages


def test_a_key_in_val_of_one_is_not_in_train_of_another(tmp_path, caplog):
    first = in_splits(tmp_path / "a", train=range(40), val=range(40, 50))
    one, other = keys(first, in_splits(tmp_path / "b", train=range(50)))
    assert one == other == {"train": [*range(40)], "val": [*range(40, 50)]}
    one, other = keys(first, in_splits(tmp_path / "c", train=[*range(36), *range(44, 50)], val=range(36, 44)))
    assert one == other == {"train": [*range(36)], "val": [*range(40, 44)]}
    assert caplog.messages == [f"left out 10 examples of {name!r}, which have no counterpart" for name in "ab"]


def test_equal_keys_in_splits_of_all_are_paired_in_each(tmp_path):
    roots = [in_splits(tmp_path / name, train=range(40), test=range(40)) for name in "ab"]
    one, other = keys(*roots)
    assert one == other and one["test"] == [*range(40)] and len(one["val"]) == 4 and len(one["train"]) == 36


def test_a_key_in_two_splits_beside_one_that_is_not_split_is_an_error(tmp_path):
    split = in_splits(tmp_path / "a", train=range(40), test=range(39, 50))
    sentence = "key: expected one split for '39', as one of a, b is not split, found it in test, train, val"
    with pytest.raises(InputError, match=sentence):
        keys(split, flat(tmp_path / "b", range(50)))


def test_groups_of_the_first_stay_together(tmp_path, monkeypatch):
    find = WordFolder.find_all

    def in_tens(self):
        whole = find(self)
        return (
            None
            if whole is None
            else type(whole)(**{**vars(whole), "groups": [int(Path(n).stem) // 10 for n in whole.names]})
        )

    monkeypatch.setattr(WordFolder, "find_all", in_tens)
    one, other = keys(flat(tmp_path / "a", range(200)), flat(tmp_path / "b", range(200)))
    groups = [{i // 10 for i in found} for found in one.values()]
    assert one == other and not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_a_class_that_has_no_pair_is_named(tmp_path, caplog):
    whole = flat(tmp_path / "a", range(40))
    other = make(make(tmp_path / "b", "cat", range(40, 80, 2)), "dog", range(1, 40, 2))
    sentence = "key: expected pairs of class 'cat' in train, found none; its first key is '0' in 'a' and '40' in 'b'"
    with pytest.raises(InputError, match=sentence):
        keys(whole, other)
    with pytest.raises(InputError, match=sentence):
        keys(in_splits(tmp_path / "c", train=range(40), test=range(60, 70)), other)
    caplog.clear()
    make(make(tmp_path / "d" / "train", "cat", range(0, 40, 2)), "dog", range(1, 40, 2))
    make(make(tmp_path / "d" / "test", "cat", range(50, 60, 2)), "dog", range(41, 60, 2))
    found, _ = keys(in_splits(tmp_path / "e", train=range(40), test=range(40, 50)), tmp_path / "d")
    assert found["test"] == [41, 43, 45, 47, 49]
    assert "test: no pair of class 'cat'; its first key is '40' in 'a' and '50' in 'b'" in caplog.messages
