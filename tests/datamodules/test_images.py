"""Digits and folders of images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import batch_of, write_images
from jsonargparse import ArgumentParser
from PIL import Image
from sklearn.datasets import load_digits

from datamodules import Digits, ImageFolder, TorchvisionImages
from datamodules.base import DataModule, check_batch
from datamodules.image.augment import ImageAugment
from perceiver_lightning.errors import InputError

DATA = Path(os.environ.get("PERCEIVER_DATA", "data")) / "images"
has_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no {DATA}: unpack the images there or name their folder's parent in PERCEIVER_DATA"
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three splits of two classes: cats are dark and dogs are bright."""
    for split, count in (("train", 10), ("validation", 4), ("test", 6)):
        write_images(tmp_path / split / "cat", count, 10)
        write_images(tmp_path / split / "dog", count, 200)
    return tmp_path


@pytest.fixture
def one_folder(tmp_path) -> Path:
    write_images(tmp_path / "cat", 40, 10)
    write_images(tmp_path / "dog", 20, 200)
    return tmp_path


def names_of(data: DataModule) -> dict[str, list[str]]:
    return {split: batch_of(data, split)["name"] for split in ("train", "val", "test")}


# ---------------------------------------------------------------- digits


def test_digits_are_split_once_and_for_all():
    names = names_of(Digits())
    assert [len(found) for found in names.values()] == [1293, 144, 360]
    assert len(set().union(*names.values())) == 1797
    assert names == names_of(Digits())
    other = names_of(Digits(split_seed=1, val_fraction=0.2))
    assert other["test"] == names["test"]
    assert other["val"] != names["val"]


def test_digits_have_the_same_share_of_each_class_everywhere():
    whole = np.bincount(load_digits().target) / 1797
    for split in ("train", "val", "test"):
        labels = batch_of(Digits(), split)["labels"]
        assert np.abs(labels.bincount().numpy() - whole * len(labels)).max() <= 1


def test_digits_are_the_scans():
    data, digits = Digits(), load_digits()
    batch = data.finish(batch_of(data, "test"), training=False)
    rows = [int(name.split()[1]) for name in batch["name"]]
    assert batch["labels"].tolist() == digits.target[rows].tolist()
    expected = torch.tensor(digits.images[rows] / 8 - 1).float()[..., None]  # 0 to 16 become -1 to 1
    torch.testing.assert_close(batch["inputs"]["image"]["content"], expected, atol=1.001 / 255, rtol=0)  # half a byte
    check_batch(batch, data.modalities)


def test_digits_are_kept_in_memory_unless_told_otherwise():
    kept, read = Digits(), Digits(cache=None)
    batches = [batch_of(data, "train")["inputs"]["image"]["content"] for data in (kept, read)]
    assert kept.train_set.images is not None and read.train_set.images is None
    assert torch.equal(*batches)


def test_counts_per_class():
    data = Digits()
    labels = batch_of(data, "train")["labels"]
    assert data.class_counts() == labels.bincount().tolist()


# ---------------------------------------------------------------- folders


def test_a_folder_of_splits(folder):
    data = ImageFolder(str(folder), size=[4, 5])
    assert (data.num_classes, data.class_names) == (2, ["cat", "dog"])
    assert data.modalities == {"image": {"channels": 3, "resolution": [4, 5]}}
    for split, count in (("train", 10), ("val", 4), ("test", 6)):
        batch = batch_of(data, split)
        assert batch["inputs"]["image"]["content"].shape == (2 * count, 4, 5, 3)
        assert batch["labels"].tolist() == [0] * count + [1] * count
        assert batch["inputs"]["image"]["content"][:, 0, 0, 0].tolist() == [10] * count + [200] * count
        assert batch["name"][0] == os.path.join({"val": "validation"}.get(split, split), "cat", "0.png")


@pytest.mark.parametrize("name", ["val", "valid"])
def test_other_names_of_the_validation_folder(folder, name):
    (folder / "validation").rename(folder / name)
    assert len(batch_of(ImageFolder(str(folder), size=4), "val")["labels"]) == 8


def test_validation_is_cut_from_train_where_there_is_no_folder(folder):
    shutil.rmtree(folder / "validation")
    names = names_of(ImageFolder(str(folder), size=4, val_fraction=0.2))
    assert [len(found) for found in names.values()] == [16, 4, 12]
    assert not set(names["train"]) & set(names["val"])
    assert all(name.startswith("train") for name in names["val"])


def test_one_folder_is_split_by_seed(one_folder):
    data = ImageFolder(str(one_folder), size=4, test_fraction=0.1, val_fraction=1 / 9)
    names = names_of(data)
    assert [len(found) for found in names.values()] == [48, 6, 6]
    assert len(set().union(*names.values())) == 60
    assert [batch_of(data, split)["labels"].bincount().tolist() for split in names] == [[32, 16], [4, 2], [4, 2]]
    assert names == names_of(ImageFolder(str(one_folder), size=4, test_fraction=0.1, val_fraction=1 / 9))
    other = names_of(ImageFolder(str(one_folder), size=4, test_fraction=0.1, val_fraction=1 / 9, split_seed=1))
    assert other["test"] != names["test"]


def test_fit_does_not_touch_the_test_split(folder):
    shutil.rmtree(folder / "test")
    data = ImageFolder(str(folder), size=4, cache="memory")
    data.setup("fit")
    assert data.test_set is None
    with pytest.raises(InputError, match=f"{folder}: expected a folder for test .*, found folders for train, val"):
        data.setup("test")


def test_sizes_that_vary_are_padded_and_masked(tmp_path):
    write_images(tmp_path / "train" / "cat", 6, 51, size=None)
    write_images(tmp_path / "train" / "dog", 6, 51, size=None)
    data = ImageFolder(
        str(tmp_path), size=None, resolution=[7, 9], val_fraction=0.5, augment=ImageAugment(horizontal_flip=True)
    )
    batch = data.finish(batch_of(data, "train"), training=True)
    image = batch["inputs"]["image"]
    check_batch(batch, data.modalities)
    sizes = {(int(mask.any(1).sum()), int(mask.any(0).sum())) for mask in image["mask"]}
    assert len(sizes) > 1 and sizes <= {(5, 9), (6, 8), (7, 9), (5, 8), (6, 9), (7, 8)}
    torch.testing.assert_close(image["content"][image["mask"]].unique(), torch.tensor([51 / 255 * 2 - 1]))
    assert image["content"][~image["mask"]].eq(0).all()
    rows = int(image["mask"][0].any(1).sum())
    assert torch.equal(image["positions"][0][0, :rows], torch.linspace(-1, 1, rows))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_images_of_any_mode_get_the_channels_asked_for(tmp_path, mode):
    for name in ("cat", "dog"):
        write_images(tmp_path / "train" / name, 2, 255)
        Image.open(tmp_path / "train" / name / "0.png").convert(mode).save(tmp_path / "train" / name / "0.png")
    for channels in (1, 3):
        content = batch_of(ImageFolder(str(tmp_path), size=4, channels=channels, val_fraction=0.5), "train")["inputs"]
        assert content["image"]["content"].shape == (2, 4, 4, channels)
        assert content["image"]["content"].eq(255).all()


def grey_of(folder: Path, **options) -> torch.Tensor:
    """The single photo `folder/0.png` or `.jpg` as grey bytes."""
    data = ImageFolder(str(folder), num_classes=2, size=None, resolution=[4, 4], channels=1, predict_dir=str(folder))
    return batch_of(data, "predict")["inputs"]["image"]["content"][0, ..., 0]


def test_16_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 256, 30000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "0.png")
    assert grey_of(tmp_path).tolist() == [[0, 1, 117, 255]]


def test_an_image_without_a_known_range_is_named(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "0.tif")
    with pytest.raises(InputError, match=r"0.tif: .*expected 8 or 16 bits a channel, found 32, mode F"):
        grey_of(tmp_path)


def test_a_photo_is_turned_as_its_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "0.png", exif=exif)
    assert grey_of(tmp_path).tolist() == [[0], [255]]


def test_what_is_transparent_is_white(tmp_path):
    Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)).save(tmp_path / "0.png")
    assert grey_of(tmp_path).tolist() == [[255, 9]]


def test_names_of_splits_may_have_capitals(folder):
    for split in ("train", "validation", "test"):
        (folder / split).rename(folder / split.capitalize())
    data = ImageFolder(str(folder), size=4)
    assert data.class_names == ["cat", "dog"]
    assert [len(found) for found in names_of(data).values()] == [20, 8, 12]


def test_a_palette_with_transparency_does_not_warn(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 4)
        palette = Image.open(tmp_path / name / "0.png").convert("P")
        palette.save(tmp_path / name / "0.png", transparency=bytes(range(256)))
    ImageFolder(str(tmp_path), size=4, cache="memory", test_fraction=0.25, val_fraction=0.4).setup("fit")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=f"root: expected a folder .*, found no folder {tmp_path / 'nowhere'}$"):
        ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=f"root: expected one folder of images per class in {tmp_path}, found none"):
        ImageFolder(str(tmp_path))
    write_images(tmp_path / "test" / "cat", 1)
    with pytest.raises(InputError, match=f"{tmp_path}: expected a folder for train, found test: name it by train_dir"):
        ImageFolder(str(tmp_path))


def test_the_number_of_classes_stands_in_for_a_missing_folder(folder, tmp_path):
    data = ImageFolder(str(tmp_path / "nowhere"), num_classes=3, size=4)
    assert (data.num_classes, data.class_names) == (3, ["0", "1", "2"])
    with pytest.raises(InputError, match=f"found no folder {tmp_path / 'nowhere'}"):
        data.setup("fit")
    assert ImageFolder(str(folder), num_classes=2).class_names == ["cat", "dog"]
    other = ImageFolder(str(folder), num_classes=3, predict_dir=str(folder))
    other.setup("predict")  # which does not ask for classes
    for stage in ("fit", "test"):
        sentence = rf"num_classes: expected 2, as many as .* classes in {folder} \(cat, dog\), found 3"
        with pytest.raises(InputError, match=sentence):
            other.setup(stage)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_class_is_named(folder, split):
    shutil.rmtree(folder / split / "dog")
    (folder / split / "dog").mkdir()
    (folder / split / "dog" / "notes.txt").write_text("no image")
    data = ImageFolder(str(folder), size=4)
    with pytest.raises(InputError, match=f"{folder / split / 'dog'}: expected images .*, found none"):
        data.setup("test" if split == "test" else "fit")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_class_that_train_lacks_is_named(folder, split):
    write_images(folder / split / "bird", 1)
    with pytest.raises(InputError, match=rf"{folder / split / 'bird'}: expected a class that train has \(cat, dog\)"):
        ImageFolder(str(folder), size=4)


def test_classes_too_small_to_cut_are_named(tmp_path):
    write_images(tmp_path / "cat", 10)
    write_images(tmp_path / "dog", 1)
    with pytest.raises(
        InputError, match=f"test_fraction: expected to cut 0.1 of the 11 images of {tmp_path} with every"
    ):
        ImageFolder(str(tmp_path), size=4).setup("fit")


def broken(folder: Path, *places: str) -> ImageFolder:
    for place in places:
        whole = (folder / place).read_bytes()
        (folder / place).write_bytes(whole[: len(whole) // 2])
    return ImageFolder(str(folder), size=4, num_workers=0)


@pytest.mark.parametrize("cache", ["memory", None])
@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_a_broken_image_is_named(folder, cache, content):
    path = folder / "train" / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:50] if content is None else content)
    data = ImageFolder(str(folder), size=4, cache=cache)
    with pytest.raises(InputError, match=f"{path}: expected an image, found a file that cannot be read"):
        list(batch_of(data, "train"))


def test_a_broken_image_is_named_by_a_worker_too(folder):
    data = broken(folder, "train/dog/3.png")
    data.num_workers = 1
    with pytest.raises(InputError) as caught:
        batch_of(data, "train")
    last = str(caught.value).strip().splitlines()[-1]  # torch puts the worker's traceback before it
    assert f"InputError: {folder}/train/dog/3.png: expected an image, found a file that cannot be read" in last


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", None])
def test_broken_images_are_left_out_and_counted_when_asked(folder, cache, caplog):
    broken(folder, "train/dog/3.png", "train/cat/0.png", "test/cat/1.png")
    data = ImageFolder(str(folder), size=4, cache=cache, skip_broken=True)
    batch = batch_of(data, "train")
    assert data.class_counts() == batch["labels"].bincount().tolist() == [9, 9]
    assert batch["inputs"]["image"]["content"][:, 0, 0, 0].tolist() == [10] * 9 + [200] * 9
    assert caplog.messages == [
        "train: left out 2 of 20 images, which cannot be read: ['train/cat/0.png', 'train/dog/3.png']"
    ]
    assert len(batch_of(data, "test")["name"]) == 11
    assert "test: left out 1 of 12 images" in caplog.messages[-1]


def test_a_class_with_broken_images_only_is_named(folder):
    broken(folder, *(f"train/dog/{i}.png" for i in range(10)))
    with pytest.raises(InputError, match=f"{folder}: expected images of 'dog' in train that can be read, found none"):
        ImageFolder(str(folder), size=4, skip_broken=True).setup("fit")


# ---------------------------------------------------------------- predict


def test_any_folder_is_predicted_with_names_and_without_labels(folder, tmp_path):
    write_images(tmp_path / "new" / "b", 2)
    write_images(tmp_path / "new" / "a" / "deep", 1)
    (tmp_path / "new" / "notes.txt").write_text("no image")
    data = ImageFolder(
        str(folder), size=4, predict_dir=str(tmp_path / "new"), augment=ImageAugment(horizontal_flip=True)
    )
    batch = batch_of(data, "predict")
    assert batch["name"] == ["a/deep/0.png", "b/0.png", "b/1.png"]
    assert set(batch) == {"inputs", "name"}


@pytest.mark.parametrize("missing", [True, False])
def test_a_folder_without_anything_to_predict_is_named(tmp_path, missing):
    where = tmp_path / "new"
    if not missing:
        where.mkdir()
    with pytest.raises(InputError, match=f"predict_dir: expected .*{where}"):
        Digits(predict_dir=str(where)).setup("predict")
    with pytest.raises(InputError, match="predict_dir: expected a folder of images to predict, found null"):
        Digits().setup("predict")


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize(
    "class_path, init_args, kind",
    [
        ("Digits", {"batch_size": 8, "size": [8, 8], "mean": [0.5], "permute_pixels": 3}, Digits),
        (
            "TorchvisionImages",
            {"dataset": "SVHN", "augment": {"rand_augment": [2, 9], "cutmix": 1.0}},
            TorchvisionImages,
        ),
        (
            "ImageFolder",
            {"root": "nowhere", "num_classes": 2, "size": 16, "augment": {"random_resized_crop": [0.1, 1]}},
            ImageFolder,
        ),
    ],
)
def test_all_are_made_from_a_config(class_path, init_args, kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    config = parser.parse_object({"data": {"class_path": class_path, "init_args": init_args}})
    data = parser.instantiate(config).data
    assert type(data) is kind
    with pytest.raises(Exception, match="batchsize"):
        parser.parse_object({"data": {"class_path": class_path, "init_args": {**init_args, "batchsize": 8}}})


# ---------------------------------------------------------------- real data


@has_data
def test_real_clothing_photos():
    data = ImageFolder(str(DATA / "clothing-small-128"), size=None, resolution=[171, 171], batch_size=8)
    assert data.class_names[0] == "dress" and data.num_classes == 10
    data.setup("fit")
    data.setup("test")
    assert [len(split) for split in (data.train_set, data.val_set, data.test_set)] == [3068, 341, 372]
    assert (min(data.class_counts()), max(data.class_counts())) == (112, 795)
    torch.manual_seed(0)
    batch = data.finish(next(iter(data.train_dataloader())), training=True)
    check_batch(batch, data.modalities)
    mask = batch["inputs"]["image"]["mask"]
    assert mask.shape[1:] == batch["inputs"]["image"]["content"].shape[1:3]
    assert not mask.all() and mask[:, :128, :128].all()  # the shorter side of all has 128 pixels


@has_data
def test_real_cifar10():
    data = ImageFolder(
        str(DATA / "cifar10"), size=32, batch_size=256, augment=ImageAugment(random_crop=4, horizontal_flip=True)
    )
    data.setup("fit")
    assert (data.class_counts(), len(data.val_set)) == ([4500] * 10, 5000)
    assert not set(data.train_set.split.names) & set(data.val_set.split.names)
    batch = data.finish(next(iter(data.train_dataloader())), training=True)
    check_batch(batch, data.modalities)
    assert batch["inputs"]["image"]["content"].shape == (256, 32, 32, 3)
    # Photographs: neighbouring pixels are alike, and -1 to 1 is used.
    content = batch["inputs"]["image"]["content"]
    assert (content[:, 1:] - content[:, :-1]).abs().mean() < 0.5 * content.std()
    assert 0.3 < content.std() < 0.8
