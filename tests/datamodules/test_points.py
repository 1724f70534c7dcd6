"""ModelNet, folders of meshes or points, arrays of clouds."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from grouped import made
from image_files import batch_of
from jsonargparse import ArgumentParser
from point_clouds import write_arrays, write_boxes, write_off

from datamodules import ModelNet, PointArrays, PointFolder, PointTargets
from datamodules.base import DataModule, check_batch
from datamodules.points.dataset import Sampling
from datamodules.points.modelnet import MODELNET10, MODELNET40
from perceiver_lightning.errors import InputError

DATA = Path(os.environ.get("PERCEIVER_DATA", "data")) / "pointcloud"
has_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no {DATA}: unpack the clouds there or name their folder's parent in PERCEIVER_DATA"
)


def names_of(data: DataModule) -> dict[str, list[str]]:
    return {split: batch_of(data, split)["name"] for split in ("train", "val", "test")}


def ball_of(points: np.ndarray) -> torch.Tensor:
    """Clouds (N, M, 3) centred and scaled into the unit ball."""
    centred = points - points.mean(1, keepdims=True)
    return torch.from_numpy(centred / np.linalg.norm(centred, axis=-1).max(1)[:, None, None])


# ---------------------------------------------------------------- folders


@pytest.fixture(params=["split/class", "class/split", "class"])
def layout(request, tmp_path):
    """Boxes, flat and tall, in each of the layouts, and the number of each split."""
    for name, sides in (("flat", (2, 2, 0.1)), ("tall", (0.1, 0.1, 2))):
        if request.param == "class":
            write_boxes(tmp_path / name / "deep", 20, sides)
        for split, count in (("train", 10), ("test", 4)) if request.param != "class" else ():
            write_boxes(
                tmp_path / (f"{split}/{name}" if request.param == "split/class" else f"{name}/{split}"), count, sides
            )
    return tmp_path, {"class": [32, 4, 4]}.get(request.param, [16, 4, 8])


def test_a_folder_of_meshes_in_each_layout(layout):
    folder, counts = layout
    options = {"num_points": 50, "val_fraction": 0.2 if counts[0] == 16 else 1 / 9}
    data = made(PointFolder, str(folder), **options)
    assert (data.num_classes, data.class_names) == (2, ["flat", "tall"])
    names = names_of(data)
    assert [len(found) for found in names.values()] == counts
    assert len(set().union(*names.values())) == sum(counts)
    for split in names:
        batch = batch_of(data, split)
        check_batch(batch, data.modalities)
        assert batch["labels"].bincount().tolist() == [len(batch["name"]) // 2] * 2
        assert all((folder / name).is_file() for name in batch["name"])
        is_tall = batch["inputs"]["points"]["positions"].std(1)[:, 2] > 0.3
        assert torch.equal(is_tall, batch["labels"].bool())
    assert names == names_of(made(PointFolder, str(folder), **options))
    assert names["val"] != names_of(made(PointFolder, str(folder), split_seed=1, **options))["val"]


def test_a_validation_folder_is_kept(tmp_path):
    for name in ("a", "b"):
        for split in ("train", "val", "test"):
            write_boxes(tmp_path / name / split, {"train": 5, "val": 2, "test": 1}[split])
    assert [len(names) for names in names_of(PointFolder(str(tmp_path), sampling=Sampling(num_points=9))).values()] == [
        10,
        4,
        2,
    ]


def test_fit_does_not_touch_the_test_split(layout):
    folder, counts = layout
    if counts[0] == 16:
        for path in [*folder.rglob("test")]:
            shutil.rmtree(path)
        data = PointFolder(str(folder), val_fraction=0.2, cache="memory", sampling=Sampling(num_points=9))
        data.setup("fit")
        assert data.test_set is None
        with pytest.raises(InputError, match=r"expected a folder for test .*, found folders for train"):
            data.setup("test")


def test_a_class_without_files_in_a_split_is_named(tmp_path):
    for name in ("a", "b"):
        write_boxes(tmp_path / name / "train", 4)
    (tmp_path / "b" / "train" / "0.off").rename(tmp_path / "b" / "0.off")
    shutil.rmtree(tmp_path / "b" / "train")
    with pytest.raises(InputError, match=f"{tmp_path}/b: expected a folder for train, as another class has it, found"):
        PointFolder(str(tmp_path))


def test_the_number_of_classes_stands_in_for_a_missing_folder(tmp_path):
    data = PointFolder(str(tmp_path / "nowhere"), num_classes=3)
    assert (data.num_classes, data.class_names) == (3, ["0", "1", "2"])
    with pytest.raises(InputError, match=f"one folder of point clouds per class, found no folder {tmp_path}/nowhere"):
        data.setup("fit")
    with pytest.raises(InputError, match="found no folder"):
        PointFolder(str(tmp_path / "nowhere"))


# ---------------------------------------------------------------- ModelNet


def test_modelnet10_as_off(tmp_path):
    for name in MODELNET10:
        for split, count in (("train", 3), ("test", 1)):
            for i in range(count):  # the very form of ModelNet40's odd ones
                write_off(tmp_path / name / split / f"{name}_{i:04}.off", header="OFF")
        (tmp_path / name / "train" / f"._{name}_0000.off").write_bytes(b"what archives of other systems leave")
    data = ModelNet(str(tmp_path), number=10, val_fraction=0.34, sampling=Sampling(num_points=20))
    assert (data.num_classes, data.class_names) == (10, MODELNET10)
    names = names_of(data)
    assert [len(found) for found in names.values()] == [19, 11, 10]
    assert names["test"][0] == "bathtub/test/bathtub_0000.off"
    assert batch_of(data, "test")["labels"].tolist() == list(range(10))


@pytest.fixture
def hdf5(tmp_path):
    """The HDF5 release in small: two files of train, one of test; and the points."""
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (100, 30, 3)).astype(np.float32)
    for name, rows in (("train0", range(0, 48)), ("train1", range(48, 80)), ("test0", range(80, 100))):
        with h5py.File(tmp_path / f"ply_data_{name}.h5", "w") as file:
            file["data"], file["normal"] = points[rows], points[rows] / 2
            file["label"] = np.array([[row % 40] for row in rows], np.uint8)
    for split, files in (("train", ["train0", "train1"]), ("test", ["test0"])):
        lines = "".join(f"data/modelnet40_ply_hdf5_2048/ply_data_{name}.h5\n" for name in files)
        (tmp_path / f"{split}_files.txt").write_text(lines)
    return tmp_path, points


def test_modelnet40_as_hdf5(hdf5):
    folder, points = hdf5
    data = ModelNet(str(folder), features=["nx", "ny", "nz"], normalise="ball", val_fraction=0.5)
    assert (data.num_classes, data.class_names) == (40, MODELNET40)
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set), data.class_counts()) == (40, 40, [1] * 40)
    batch = batch_of(data, "test")
    assert batch["labels"].tolist() == [row % 40 for row in range(80, 100)]
    assert batch["name"][3] == "ply_data_test0.h5/cloud 3"
    torch.testing.assert_close(batch["inputs"]["points"]["positions"], ball_of(points[80:]))
    assert torch.equal(batch["inputs"]["points"]["content"], torch.from_numpy(points[80:] / 2))


def test_hdf5_files_that_cannot_be_are_named(hdf5):
    folder, _ = hdf5
    with pytest.raises(InputError, match=r"features: expected none or \['nx', 'ny', 'nz'\].*, found \['red'\]"):
        ModelNet(str(folder), features=["red"]).setup("fit")
    (folder / "ply_data_test0.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"ply_data_test0\.h5: expected an HDF5 file with data and label, found"):
        ModelNet(str(folder)).setup("test")
    with h5py.File(folder / "ply_data_test0.h5", "w") as file:
        file["data"] = np.zeros((2, 3, 3))
    with pytest.raises(InputError, match=r"ply_data_test0\.h5: expected an HDF5 file with data and label, found"):
        ModelNet(str(folder)).setup("test")


def test_missing_modelnet_is_named(tmp_path):
    with pytest.raises(
        InputError, match=f"root: expected the folder of ModelNet's files, found no folder {tmp_path}/x"
    ):
        ModelNet(str(tmp_path / "x")).setup("fit")


# ---------------------------------------------------------------- arrays


def test_arrays_are_read_as_they_are(tmp_path):
    classes = np.array(["flat", "tall"])
    write_arrays(tmp_path / "train.npz", count=20, **{"features": np.ones((20, 20, 1))})
    write_arrays(tmp_path / "test.npz", count=6, ids=np.array(list("abcdef")))
    shutil.copy(tmp_path / "test.npz", tmp_path / "val.npz")
    with np.load(tmp_path / "train.npz") as arrays:
        np.savez(tmp_path / "train.npz", **dict(arrays), **{"classes": classes})
    data = PointArrays(str(tmp_path), 2, normalise="ball", cache="memory")
    assert data.class_names == ["flat", "tall"]
    assert PointArrays(str(tmp_path), 2, class_names=["x", "y"]).class_names == ["x", "y"]
    names = names_of(data)
    assert names["val"] == names["test"] == list("abcdef") and names["train"][4] == "cloud 4"
    batch = batch_of(data, "test")
    assert batch["labels"].tolist() == [0, 1] * 3
    points = np.load(tmp_path / "test.npz")["points"].astype(np.float32)
    torch.testing.assert_close(batch["inputs"]["points"]["positions"], ball_of(points))
    check_batch(batch, data.modalities)
    (tmp_path / "val.npz").unlink()
    warm = PointArrays(str(tmp_path), 2, features=["heat"])
    assert batch_of(warm, "train")["inputs"]["points"]["content"].eq(1).all()


def test_the_true_size_of_stored_clouds_is_a_feature(tmp_path):
    points, labels = np.random.default_rng(0).normal(size=(8, 30, 3)), np.arange(8) % 2
    whole = {"points": points, "labels": labels, "size": np.arange(1.0, 9)}
    np.savez(tmp_path / "train.npz", **whole)
    np.savez(tmp_path / "test.npz", **whole)
    options = {"root": str(tmp_path), "num_classes": 2, "normalise": "ball", "log_size": [0, 1]}
    stored, true = (
        batch_of(made(PointArrays, **options, scale=scale), "test")["inputs"]["points"] for scale in (None, "size")
    )
    torch.testing.assert_close(stored["positions"], true["positions"])
    more = (true["content"] - stored["content"]).exp()[..., 0]
    torch.testing.assert_close(more, torch.arange(1.0, 9)[:, None].expand(8, 30))
    for wrong in (np.zeros(8), np.ones(7), np.array(["a"] * 8)):
        np.savez(tmp_path / "test.npz", **{**whole, "size": wrong})
        with pytest.raises(InputError, match=r"test\.npz, size: expected 8 numbers above 0, one a cloud, found"):
            batch_of(made(PointArrays, **options, scale="size"), "test")
    with pytest.raises(InputError, match="expected the arrays points, labels, scales"):
        batch_of(made(PointArrays, **options, scale="scales"), "test")


def test_one_npz_in_all_is_split_by_seed(tmp_path):
    write_arrays(tmp_path / "all.npz", count=40)
    data = PointArrays(str(tmp_path / "all.npz"), 2, test_fraction=0.25, val_fraction=0.2)
    names = names_of(data)
    assert [len(found) for found in names.values()] == [24, 6, 10]
    assert len(set().union(*names.values())) == 40
    assert data.class_counts() == [12, 12]


def test_the_price_needs_no_files(tmp_path):
    data = PointArrays(str(tmp_path / "nowhere"), 3)
    assert data.class_names == ["0", "1", "2"]
    with pytest.raises(
        InputError, match=f"root: expected an npz, or a folder .*, found no file {tmp_path}/nowhere/train"
    ):
        data.setup("fit")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"points": np.zeros((4, 3))}, r"expected points of shape \(N, M, 3 or more\), found \(4, 3\)"),
        ({"points": np.zeros((4, 0, 3))}, r"expected at least one point, found points of shape \(4, 0, 3\)"),
        ({"points": np.zeros((4, 5, 2))}, r"points with 3 columns or more, found the shape \(4, 5, 2\)"),
        ({"points": np.array([[[0, 0, None]]] * 4)}, "expected points to be an array .*allow_pickle=False"),
        ({"labels": np.zeros(3, int)}, r"expected integer labels of shape \(4,\), as points, found int64 \(3,\)"),
        ({"labels": np.zeros(4)}, r"expected integer labels of shape \(4,\), as points, found float64 \(4,\)"),
        ({"labels": np.array([0, 1, 2, 0])}, r"expected labels from 0 to 1 \(num_classes\), found 0 to 2"),
        ({"labels": np.array([0, 1, -1, 0])}, r"expected labels from 0 to 1 \(num_classes\), found -1 to 1"),
        ({"ids": np.array(["a"])}, "expected 4 ids, as points, found 1"),
        ({"labels": None}, "expected the arrays points, labels, found points"),
    ],
)
def test_arrays_of_another_form_are_named(tmp_path, arrays, message):
    given = {"points": np.zeros((4, 5, 3)), "labels": np.array([0, 1, 0, 1]), **arrays}
    np.savez(tmp_path / "test.npz", **{key: value for key, value in given.items() if value is not None})
    with pytest.raises(InputError, match=f"^{tmp_path}/test.npz: .*{message}"):
        PointArrays(str(tmp_path), 2).setup("test")


def test_a_cloud_with_nan_is_named_or_skipped(tmp_path, caplog):
    points = np.random.default_rng(0).uniform(-1, 1, (8, 5, 3))
    points[3, 1, 2] = np.nan
    np.savez(tmp_path / "test.npz", points=points, labels=np.arange(8) % 2)
    with pytest.raises(
        InputError, match=r"test.npz/cloud 3: expected finite values, found NaN or infinity in 1 of 5 poi"
    ):
        batch_of(PointArrays(str(tmp_path), 2), "test")
    assert len(batch_of(PointArrays(str(tmp_path), 2, skip_broken=True), "test")["name"]) == 7
    assert "test: left out 1 of 8 point clouds, which cannot be read: ['cloud 3']" in caplog.messages


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize(
    "class_path, init_args, kind",
    [
        ("PointFolder", {"root": "nowhere", "num_classes": 2, "features": ["nx"], "normalise": "ball"}, PointFolder),
        ("ModelNet", {"number": 10, "up": "y", "augment": {"rotate": 15}, "cache": "disk"}, ModelNet),
        (
            "PointArrays",
            {"root": "nowhere", "num_classes": 2, "augment": {"jitter": 0.1}, "sampling": {"num_points": None}},
            PointArrays,
        ),
        ("PointTargets", {"root": "nowhere", "targets": ["size"], "augment": {"jitter": 0.1}}, PointTargets),
    ],
)
def test_all_are_made_from_a_config(class_path, init_args, kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    config = parser.parse_object({"data": {"class_path": class_path, "init_args": init_args}})
    assert type(parser.instantiate(config).data) is kind
    with pytest.raises(Exception, match="batchsize"):
        parser.parse_object({"data": {"class_path": class_path, "init_args": {**init_args, "batchsize": 8}}})


# ---------------------------------------------------------------- real data


@has_data
def test_real_meshes():
    data = PointFolder(
        str(DATA / "ldraw-off-sample"), batch_size=32, features=["nx", "ny", "nz"], sampling=Sampling(num_points=256)
    )
    data.setup("fit")
    assert (data.num_classes, data.class_counts(), len(data.val_set)) == (10, [18] * 10, 20)
    batch = data.finish(next(iter(data.train_dataloader())), training=True)
    check_batch(batch, data.modalities)
    torch.testing.assert_close(batch["inputs"]["points"]["content"].norm(dim=-1), torch.ones(32, 256))


@has_data
def test_real_arrays():
    data = PointArrays(str(DATA / "ldraw21"), 21, normalise="ball", batch_size=64, sampling=Sampling(num_points=512))
    data.setup("fit")
    data.setup("test")
    assert [len(split) for split in (data.train_set, data.val_set, data.test_set)] == [1890, 211, 557]
    assert data.class_names[0] == "animal" and data.class_names[20] == "wing" and min(data.class_counts()) >= 27
    batch = data.finish(next(iter(data.train_dataloader())), training=True)
    check_batch(batch, data.modalities)
    assert batch["inputs"]["points"]["positions"].shape == (64, 512, 3)
