"""What is shared by datamodules of one file an example; what images and sound do with it is in their tests."""

import threading
import time

import numpy as np
import pytest
from image_files import batch_of

from datamodules.common.classes import class_facts
from datamodules.common.file_set import FileSet
from datamodules.common.files import Files
from datamodules.common.progress import map_in_threads
from datamodules.common.splits import Kind, Split
from perceiver_lightning.errors import InputError

NUMBERS = Kind("numbers", (".txt",), float)


class NumberSet(FileSet):
    def read(self, name: str, row: int) -> np.ndarray:
        try:
            return np.array([[self.split.kind.open(self.split.items[row])]], np.float32)
        except ValueError as error:
            raise InputError(f"{self.split.items[row]}: expected a number") from error

    def __getitem__(self, row: int) -> dict:
        return self.example(row, {"number": {"content": self.content(row)["number"]}})


class Numbers(Files):
    """The signs of numbers: `items[i]` is of class i % 2, and validation is cut from train."""

    kind = NUMBERS

    def __init__(self, items: list[str], multilabel: bool = False, **options):
        facts = class_facts(2, ["even", "odd"], multilabel)
        super().__init__({"number": {"channels": 1, "resolution": [1]}}, facts, **options)
        self.items = items

    def find_train(self):
        return Split(self.items, self.items, [i % 2 for i in range(len(self.items))], "here", NUMBERS), None

    def find_test(self):
        return Split(self.items[:2], self.items[:2], [0, 1], "here", NUMBERS)

    def make_set(self, split: Split, training: bool) -> NumberSet:
        return NumberSet(split, {"number": {}})

    def finish(self, batch, training):
        return batch


def test_all_results_in_order_from_several_threads():
    threads = set()

    def square(i: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(map_in_threads(square, range(50), "Squaring")) == [i * i for i in range(50)]
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("cache", ["memory", None])
def test_validation_is_cut_and_broken_files_are_left_out(cache, caplog):
    items = [str(i) for i in range(20)]
    whole = Numbers(items, val_fraction=0.2, cache=cache)
    train, val = (batch_of(whole, split) for split in ("train", "val"))
    assert sorted([*train["name"], *val["name"]], key=int) == items and len(val["name"]) == 4
    assert train["inputs"]["number"]["content"].flatten().tolist() == [float(name) for name in train["name"]]
    assert train["labels"].tolist() == [int(name) % 2 for name in train["name"]]
    assert bool(whole.train_set.arrays) == bool(cache)

    worse = Numbers(["x" if name == train["name"][3] else name for name in items], val_fraction=0.2, cache=cache)
    with pytest.raises(InputError, match=r"^x: expected a number$"):
        batch_of(worse, "train")
    left = Numbers(worse.items, val_fraction=0.2, cache=cache, skip_broken=True)
    assert batch_of(left, "train")["name"] == [name for name in train["name"] if name != train["name"][3]]
    assert caplog.messages == ["train: left out 1 of 16 numbers, which cannot be read: ['x']"]


def test_balanced_sampling_and_what_it_cannot_be_with():
    data = Numbers([str(i) for i in range(20)], balanced_sampling=True, batch_size=16)
    data.setup("fit")
    assert data.class_counts() == [9, 9]
    assert len(next(iter(data.train_dataloader()))["labels"]) == 16
    with pytest.raises(InputError, match="balanced_sampling: expected false, as examples have several labels"):
        Numbers(["1"], balanced_sampling=True, multilabel=True)
    with pytest.raises(InputError, match="predict_dir: expected a folder of numbers to predict, found null"):
        data.setup("predict")
