"""torchvision's sets by name, on tiny files in their true formats."""

import pickle

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from grouped import made
from image_files import write_mnist
from PIL import Image

from datamodules import TorchvisionImages
from datamodules.image.torchvision_sets import SETS, load, splits_of
from perceiver_lightning.errors import InputError


def write_images(folder, count: int, size: int = 6, suffix: str = "png"):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((size, size, 3), i, np.uint8)).save(folder / f"{i}.{suffix}")


def write_cifar10(root, monkeypatch):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in ("data_batch_1", "test_batch"):
        batch = {"data": np.tile(np.arange(20, dtype=np.uint8)[:, None], 3072), "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    cifar = torchvision.datasets.CIFAR10  # their checksums are those of the full files: None asks for existence
    monkeypatch.setattr(cifar, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", None]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": None})


def write_svhn(root, monkeypatch):
    files = {}
    for name in ("train", "test"):
        pixels = np.tile(np.arange(20, dtype=np.uint8), (32, 32, 3, 1))
        scipy.io.savemat(root / f"{name}.mat", {"X": pixels, "y": (np.arange(20) % 10 + 1)[:, None]})  # 10 means 0
        files[name] = ["", f"{name}.mat", None]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", files)


def batches(data, split: str) -> dict:
    data.setup({"train": "fit", "val": "fit"}.get(split, split))
    data.batch_size = 1000
    return next(iter(getattr(data, f"{split}_dataloader")()))


def check_splits(data, train: int, val: int, test: int, modality: dict):
    assert data.modalities == {"image": modality}
    for split, count in (("train", train), ("val", val), ("test", test)):
        batch = batches(data, split)
        assert batch["inputs"]["image"]["content"].shape == (count, *modality["resolution"], modality["channels"])
        assert len(batch["name"]) == count
        # In these files the value of the pixels is the number of the image, and the label follows from it.
        numbers = batch["inputs"]["image"]["content"][:, 0, 0, 0].long()
        assert torch.equal(batch["labels"], numbers % 10)


def test_sets_with_train(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    data = TorchvisionImages("MNIST", str(tmp_path), val_fraction=0.25)
    check_splits(data, 30, 10, 20, {"channels": 1, "resolution": [28, 28]})
    assert not set(batches(data, "train")["name"]) & set(batches(data, "val")["name"])
    write_cifar10(tmp_path, monkeypatch)
    data = TorchvisionImages("CIFAR10", str(tmp_path), val_fraction=0.5, size=16)
    check_splits(data, 10, 10, 20, {"channels": 3, "resolution": [16, 16]})
    assert data.class_names[:2] == ["airplane", "automobile"]


def test_sets_with_split(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    data = TorchvisionImages("SVHN", str(tmp_path), val_fraction=0.5)
    batch = batches(data, "test")
    assert batch["inputs"]["image"]["content"].shape == (20, 32, 32, 3)
    assert batch["labels"].tolist() == [(i + 1) % 10 for i in range(20)]
    assert len(batches(data, "train")["labels"]) == len(batches(data, "val")["labels"]) == 10


def test_torchvisions_own_validation_split_is_used(tmp_path):
    for split, count in (("train", 4), ("valid", 3), ("test", 2)):
        for name in ("negative", "positive"):
            write_images(tmp_path / "rendered-sst2" / split / name, count)
    data = TorchvisionImages("RenderedSST2", str(tmp_path), size=6)
    assert [len(batches(data, split)["labels"]) for split in ("train", "val", "test")] == [8, 6, 4]


def test_a_set_without_public_test_labels_is_tested_on_its_validation_split(tmp_path):
    for split, count in (("train", 4), ("val", 3)):
        for wnid in torchvision.datasets.Imagenette._WNID_TO_CLASS:
            write_images(tmp_path / "imagenette2" / split / wnid, count, suffix="JPEG")
    data = TorchvisionImages("Imagenette", str(tmp_path), size=6, val_fraction=0.25)
    assert [len(batches(data, split)["labels"]) for split in ("train", "val", "test")] == [30, 10, 30]


def test_a_set_without_splits_is_cut_by_seed(tmp_path):
    for k in range(10):
        write_images(tmp_path / "eurosat" / "2750" / f"class{k}", 10, size=64)
    data = TorchvisionImages("EuroSAT", str(tmp_path), test_fraction=0.2, val_fraction=0.25, split_seed=5)
    names = {split: set(batches(data, split)["name"]) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in names.items()} == {"train": 60, "val": 20, "test": 20}
    assert len(set.union(*names.values())) == 100
    assert batches(data, "test")["labels"].bincount().tolist() == [2] * 10


def test_grey_sets_in_colour(tmp_path):
    write_mnist(tmp_path)
    data = TorchvisionImages("MNIST", str(tmp_path), channels=3, val_fraction=0.25)
    content = batches(data, "test")["inputs"]["image"]["content"]
    assert content.shape[-1] == 3 and torch.equal(content[..., 0], content[..., 2])


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_the_table_knows_its_splits_and_says_when_files_are_missing(name, tmp_path):
    for split, arguments in splits_of(name, {}).items():
        # Other errors than this (an unknown split, an unknown argument) would not be InputErrors.
        with pytest.raises(InputError, match=rf"root: expected the files of torchvision's {name} in {tmp_path}"):
            load(name, str(tmp_path), split, arguments)


def test_facts_need_no_files():
    data = TorchvisionImages("ImageNet", "nowhere", size=224)
    assert (data.num_classes, data.modalities["image"]["resolution"]) == (1000, [224, 224])
    data = TorchvisionImages(
        "EMNIST", "nowhere", num_classes=27, size=28, channels=1, dataset_args={"split": "letters"}
    )
    assert data.own_splits == {"train": {"train": True}, "test": {"train": False}}


def test_nothing_is_fetched_unless_asked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: asked.append(self.train))
    TorchvisionImages("MNIST", str(tmp_path)).prepare_data()
    assert asked == []
    write_mnist(tmp_path)
    TorchvisionImages("MNIST", str(tmp_path), download=True).prepare_data()
    assert asked == [True, False]


def test_a_set_that_torchvision_cannot_fetch_says_so(tmp_path):
    with pytest.raises(InputError, match="download: expected an argument of torchvision's ImageNet, which has none"):
        TorchvisionImages("ImageNet", str(tmp_path), size=224, download=True).prepare_data()


@pytest.mark.parametrize("arguments", [{}, {"split": "leters"}])
def test_torchvision_s_own_word_on_its_arguments_is_passed_on(arguments, tmp_path):
    data = TorchvisionImages("EMNIST", str(tmp_path), num_classes=47, size=28, channels=1, dataset_args=arguments)
    with pytest.raises(InputError, match=r"dataset_args: expected arguments of torchvision's EMNIST, found: .*split"):
        data.setup("fit")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dataset": "MNISt"}, "dataset: expected a class of torchvision.datasets, as .*MNIST.*, found MNISt"),
        ({"dataset": "EMNIST"}, "num_classes: expected the number of classes of EMNIST"),
        ({"dataset": "MNIST", "num_classes": 9}, "num_classes: expected 10, as MNIST has, found 9"),
        ({"dataset": "Flowers102"}, r"resolution: expected \[height, width\], as size is null"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        made(TorchvisionImages, **arguments)


def test_labels_beyond_num_classes_are_named(tmp_path):
    write_mnist(tmp_path, classes=12)
    with pytest.raises(InputError, match=r"num_classes: expected more than 11, the greatest label of MNIST in .* 10"):
        TorchvisionImages("MNIST", str(tmp_path)).setup("fit")
