"""What all image data share: cache, batches, sampling, options."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from grouped import made
from hypothesis import given
from hypothesis import strategies as st
from image_files import batch_of, write_images
from PIL import Image
from pytorch_lightning import LightningModule, Trainer

from datamodules import Digits, ImageFolder
from datamodules.base import check_batch
from datamodules.image.augment import ImageAugment
from datamodules.image.reading import pack, unpack
from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks.classification import ClassificationTask


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.booleans())
def test_a_packed_image_is_the_image(height, width, channels, read_only):
    image = torch.randint(256, (channels, height, width), dtype=torch.uint8).permute(1, 2, 0)
    packed = pack(image)
    assert packed.dtype == np.uint8 and packed.shape == (8 + image.numel(),)
    packed.flags.writeable = not read_only
    assert torch.equal(unpack(packed, channels), image)


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("options", [{"size": 4}, {"size": None, "resolution": [7, 9]}], ids=["one size", "own sizes"])
def test_images_of_any_size_are_cached(tmp_path, cache, options):
    folder, where = tmp_path / "images", {"cache": cache, "cache_dir": str(tmp_path / "cache")}
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for row in range(6):
            pixels = rng.integers(0, 256, (5 + row % 3, 9 - row % 2, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{row}.png")
    path = folder / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    common = {**options, "val_fraction": 0.4, "skip_broken": True}
    expected = batch_of(ImageFolder(str(folder), **common), "train")
    kept = ImageFolder(str(folder), **common, **where)
    found = batch_of(kept, "train")
    assert found["name"] == expected["name"] and len(found["name"] + batch_of(kept, "val")["name"]) == 11
    for key, value in expected["inputs"]["image"].items():
        same = found["inputs"]["image"][key]
        assert all(map(torch.equal, same, value)) if isinstance(value, list) else torch.equal(same, value)
    assert (tmp_path / "cache").is_dir() == (cache == "disk")
    travelled = pickle.loads(pickle.dumps(kept.train_set))  # to a worker
    assert torch.equal(travelled.image(1), kept.train_set.image(1))


def test_images_of_an_array_are_kept_on_disk_too(tmp_path):
    for _ in range(2):
        data = Digits(cache="disk", cache_dir=str(tmp_path / "cache"))
        data.setup("fit")
        assert len(data.train_set) == 1293 and data.train_set.image(0).shape == (8, 8, 1)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2  # train and validation, once


def test_the_cache_changes_nothing_and_needs_no_files(tmp_path):
    folder = tmp_path / "images"
    for name, value in (("cat", 10), ("dog", 200)):
        write_images(folder / "train" / name, 10, value)
    without, cached = ImageFolder(str(folder), size=4), ImageFolder(str(folder), size=4, cache="memory")
    expected = batch_of(without, "train")
    cached.setup("fit")
    shutil.rmtree(folder)
    batch = batch_of(cached, "train")
    assert torch.equal(batch["inputs"]["image"]["content"], expected["inputs"]["image"]["content"])
    assert isinstance(cached.train_set.images, torch.Tensor)


def test_random_resized_crops_are_cut_from_whole_images(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "train" / name, 8)
    data = ImageFolder(
        str(tmp_path), size=4, cache="memory", val_fraction=0.25, augment=ImageAugment(random_resized_crop=[0.5, 1.0])
    )
    content = batch_of(data, "train")["inputs"]["image"]["content"]
    assert content.shape == (12, 4, 4, 3)
    assert data.train_set.images.shape == (12, 6, 8, 3)
    assert data.val_set.images.shape == (4, 4, 4, 3)


def test_permuted_pixels_keep_their_positions_in_every_split():
    ordinary, permuted = Digits(), Digits(permute_pixels=7)
    axis = torch.linspace(-1, 1, 8)
    for split in ("train", "val", "test"):
        grid = ordinary.finish(batch_of(ordinary, split), False)["inputs"]["image"]["content"]
        batch = permuted.finish(batch_of(permuted, split), False)
        image = batch["inputs"]["image"]
        check_batch(batch, permuted.modalities)
        assert image["content"].shape == (len(grid), 64, 1)
        assert not torch.equal(image["content"], grid.flatten(1, 2))
        for place, (y, x) in enumerate(image["positions"]):
            row, column = (axis == y).nonzero().item(), (axis == x).nonzero().item()
            assert torch.equal(image["content"][:, place], grid[:, row, column])


def test_permuted_pixels_are_priced_as_the_coordinates_that_they_are():
    ordinary, permuted = Digits(), Digits(permute_pixels=7)
    assert (ordinary.elements, permuted.elements) == ({}, {"image": 64})


def test_balanced_sampling_draws_each_class_equally_often(tmp_path):
    write_images(tmp_path / "train" / "cat", 90, 10)
    write_images(tmp_path / "train" / "dog", 10, 200)
    torch.manual_seed(0)
    data = ImageFolder(str(tmp_path), size=4, balanced_sampling=True, batch_size=8, cache="memory")
    data.setup("fit")
    assert data.class_counts() == [81, 9]
    drawn = torch.cat([batch["labels"] for _ in range(10) for batch in data.train_dataloader()])
    assert len(drawn) == 10 * (90 // 8) * 8
    assert 0.45 < drawn.float().mean() < 0.55
    assert batch_of(data, "val")["labels"].bincount().tolist() == [9, 1]


class Recorder(LightningModule):
    """Keeps the batches of each stage; learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: dict[str, list[dict]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch, _):
        self.batches["train"].append(batch)
        return self.weight * 1.0

    def validation_step(self, batch, _):
        self.batches["val"].append(batch)

    def test_step(self, batch, _):
        self.batches["test"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_only_training_is_augmented():
    data = Digits(
        batch_size=1293,
        split_seed=3,
        augment=ImageAugment(random_crop=2, horizontal_flip=True, mixup=0.5, rand_augment=[2, 9]),
    )
    model = Recorder()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, enable_model_summary=False, **options)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    ordinary = Digits(split_seed=3)
    for split, is_same in (("val", True), ("test", True), ("train", False)):
        (batch,) = model.batches[split]
        expected = ordinary.finish(batch_of(ordinary, split), False)
        content = batch["inputs"]["image"]["content"]
        assert content.shape == expected["inputs"]["image"]["content"].shape
        if is_same:
            assert torch.equal(content, expected["inputs"]["image"]["content"])
            assert torch.equal(batch["labels"], expected["labels"])
        else:
            assert batch["labels"].shape == (1293, 10)


def test_mixing_is_over_from_the_epoch_that_is_said():
    data = Digits(batch_size=1293, split_seed=3, augment=ImageAugment(cutmix=1.0, mixup_off_epoch=2))
    model = Recorder()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(max_epochs=4, enable_model_summary=False, limit_val_batches=0, **options).fit(model, data)
    assert [batch["labels"].ndim for batch in model.batches["train"]] == [2, 2, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("permute_pixels", [None, 5])
def test_ten_crops_of_an_image_are_evaluated_as_one(permute_pixels):
    """In `test`, as by hand; validation, which chooses, takes a tenth of the time."""
    options = {"num_latents": 4, "latent_width": 8, "cross_attends": [1], "self_heads": 2, "bands": 2}
    data = Digits(ten_crop=0.8, batch_size=100, permute_pixels=permute_pixels)
    task = ClassificationTask(data.modalities, 10, data.class_names, **options)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet)
    (found,) = trainer.test(task, data, verbose=False)
    assert trainer.num_test_batches == [4]

    grids = Digits(size=10)  # larger by a quarter
    batch = grids.finish(batch_of(grids, "test"), False)
    content = batch["inputs"]["image"]["content"]
    corners = [content[:, y : y + 8, x : x + 8] for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    with torch.no_grad():
        all_ten = [
            task.predictions(task({"image": {"content": view}})) for one in corners for view in (one, one.flip(2))
        ]
    right = (sum(all_ten).argmax(1) == batch["labels"]).float().mean()
    assert found["test/accuracy"] == pytest.approx(float(right), abs=1e-6)
    assert int(task.confusion_matrix.sum()) == len(content) == 360

    recorded = Recorder()
    trainer = Trainer(**quiet)
    trainer.validate(recorded, data, verbose=False)
    assert (
        sum(len(batch["labels"]) for batch in recorded.batches["val"]) == 144
        and "example" not in recorded.batches["val"][0]
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"channels": 2}, "channels: expected 1 or 3, found 2"),
        ({"size": [8]}, r"size: expected an int or \[height, width\], found \[8\]"),
        ({"size": 0}, r"\['resolution'\]: expected .* at least 1 per axis, found \[0, 0\]"),
        ({"size": None}, r"resolution: expected \[height, width\], as size is null, found None"),
        ({"resolution": [8, 8]}, r"resolution: expected null, as size is given, found \[8, 8\]"),
        ({"size": None, "resolution": [8, 8], "mixup": 0.2}, r"size: expected \[height, width\], as .* mixup"),
        ({"size": None, "resolution": [8, 8], "permute_pixels": 0}, r"size: expected .* permute_pixels is given"),
        ({"val_fraction": 0.0}, "val_fraction: expected a number between 0 and 1, found 0.0"),
        ({"centre_crop": 1.5}, "centre_crop: expected null, or a number above 0 and up to 1, found 1.5"),
        ({"random_resized_crop": [0.9, 0.1]}, r"random_resized_crop: expected \[least, greatest\].*found \[0.9, 0.1\]"),
        ({"rand_augment": [2]}, r"rand_augment: expected \[operations, magnitude from 0 to 30\], found \[2\]"),
        ({"mixup_off_epoch": 3}, "mixup_off_epoch: expected null, as neither mixup nor cutmix is given, found 3"),
        ({"mixup": 1.0, "mixup_off_epoch": -1}, "mixup_off_epoch: expected null, or an epoch of at least 0, found -1"),
        ({"size": None, "resolution": [8, 8], "ten_crop": 0.8}, r"size: expected .* ten_crop .* found null"),
        ({"ten_crop": 1.2}, "ten_crop: expected null, or a number above 0 and up to 1, found 1.2"),
        ({"mixup": -1.0}, "mixup: expected a number of at least 0, found -1.0"),
        ({"mean": [0.5, 0.5]}, r"mean: expected one number, or 1 \(channels\), found \[0.5, 0.5\]"),
        ({"std": 0.0}, r"std: expected one number above 0, or 1 \(channels\), found \[0.0\]"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, found 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        made(Digits, **options)
