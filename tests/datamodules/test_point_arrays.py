"""Arrays of points as programs store them: either axis first, with columns nobody asks for, cut, far from zero."""

import io

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from point_clouds import write_boxes

from datamodules import ModelNet, PointArrays, PointFolder, PointTargets
from datamodules.points.dataset import PointSet
from datamodules.points.reading import read_points
from perceiver_lightning.errors import InputError

CLOUD = np.random.default_rng(0).uniform(-1, 1, (50, 6)).astype(np.float32)
CLOUDS = np.random.default_rng(1).uniform(-1, 1, (20, 40, 6)).astype(np.float32)
LABELS = np.arange(20) % 2


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr("datamodules.common.say._said", set())


def write(path, points: np.ndarray):
    """An array of points in the format of a file's ending."""
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".npz":
        np.savez_compressed(path, points=points)
    else:
        np.savetxt(path, points, delimiter="," if path.suffix == ".csv" else " ")


@given(
    st.sampled_from(["npy", "npz", "csv", "txt", "xyz", "pts"]),
    st.integers(17, 80),
    st.integers(3, 9),
    st.sampled_from(["f4", "f8", "f2", "i2", ">f4"]),
    st.booleans(),
    st.booleans(),
)
def test_columns_may_come_first_or_last(tmp_path_factory, ending, count, columns, kind, first, named):
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    points = (np.random.default_rng(count).normal(size=(count, columns)) * 100).astype(kind)
    write(path, points.T if first else points)
    features = [f"feature{i}" for i in range(columns - 3)] if named else []
    wanted = points[:, : 3 + len(features)].astype(np.float32)
    assert np.array_equal(read_points(path, features), wanted)


@pytest.mark.parametrize("ending", ["npy", "npz", "txt"])
@pytest.mark.parametrize(
    "shape, features",
    [((3, 3), []), ((3, 5), []), ((4, 7), []), ((6, 6), []), ((3, 16), []), ((20, 100), []), ((5, 5), ["a", "b"])],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, ending, shape, features):
    write(tmp_path / f"a.{ending}", np.ones(shape))
    rows, columns = shape
    message = rf"a\.{ending}: expected points .*, found the shape \({rows}, {columns}\), which can be either"
    with pytest.raises(InputError, match=message):
        read_points(tmp_path / f"a.{ending}", features)


@pytest.mark.parametrize("shape, features", [((3, 5), ["a", "b"]), ((5, 3), []), ((2, 4), []), ((1, 3), [])])
def test_few_points_are_read_where_no_doubt_is_left(tmp_path, shape, features):
    points = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "a.npy", points)
    assert np.array_equal(read_points(tmp_path / "a.npy", features), points[:, : 3 + len(features)])


def test_features_apart_come_first_as_their_points_do(tmp_path):
    np.savez(tmp_path / "a.npz", points=CLOUD[:, :3].T, features=CLOUD[:, 3:].T)
    assert np.array_equal(read_points(tmp_path / "a.npz", ["a", "b", "c"]), CLOUD)
    np.savez(tmp_path / "a.npz", points=CLOUD, features=CLOUD[:, 3:])
    with pytest.raises(
        InputError, match=r"a.npz: expected points of 3 columns, as features are apart, found the shape \(50, 6\)"
    ):
        read_points(tmp_path / "a.npz", ["a", "b", "c"])
    np.savez(tmp_path / "a.npz", points=CLOUD[:, :3].T, features=CLOUD[:, 3:])
    with pytest.raises(InputError, match=r"features with a row for each of the points \(50, 3\), found \(3, 50\)"):
        read_points(tmp_path / "a.npz", ["a", "b", "c"])


@pytest.mark.parametrize("features", [[], ["nx", "ny", "nz"]])
def test_arrays_of_clouds_with_their_columns_first(tmp_path, features):
    used = CLOUDS[..., : 3 + len(features)]
    np.savez(tmp_path / "a.npz", points=used.swapaxes(1, 2), labels=LABELS, size=LABELS * 1.0)
    for data in (
        PointArrays(str(tmp_path / "a.npz"), 2, features=features, normalise=None),
        PointTargets(str(tmp_path / "a.npz"), ["size"], features=features, normalise=None),
    ):
        data.setup("fit")
        for row, name in enumerate(data.train_set.split.names):
            wanted = torch.from_numpy(used[int(name.split()[-1])])
            assert torch.equal(data.train_set.cloud(row), wanted)
    np.savez(tmp_path / "a.npz", points=CLOUDS[:, :3, :5], labels=LABELS)
    with pytest.raises(InputError, match=r"a.npz: .* found the shape \(20, 3, 5\), which can be either"):
        PointArrays(str(tmp_path / "a.npz"), 2).setup("fit")


def test_hdf5_files_with_their_columns_first_and_cut(tmp_path):
    labels = np.arange(80)[:, None] % 40
    clouds = np.random.default_rng(2).normal(size=(80, 30, 6)).astype(np.float32)
    for split in ("train", "test"):
        (tmp_path / f"{split}_files.txt").write_text(f"data/{split}.h5\n\n")
        with h5py.File(tmp_path / f"{split}.h5", "w") as file:
            file["data"], file["normal"] = clouds[..., :3].swapaxes(1, 2), clouds[..., 3:].swapaxes(1, 2)
            file["label"] = labels
    data = ModelNet(str(tmp_path), features=["nx", "ny", "nz"], normalise=None)
    assert np.array_equal(np.stack(data.find_test().items), clouds)
    whole = (tmp_path / "test.h5").read_bytes()
    (tmp_path / "test.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"test.h5: expected an HDF5 file with data and label, found .*truncated"):
        ModelNet(str(tmp_path)).setup("test")
    (tmp_path / "test_files.txt").write_text("")
    with pytest.raises(InputError, match=r"test_files.txt: expected names of HDF5 files, found none"):
        ModelNet(str(tmp_path)).setup("test")


# ---------------------------------------------------------------- what is left out is said


@pytest.mark.parametrize("ending", ["npy", "npz", "txt", "csv"])
def test_columns_that_nobody_asks_for_are_said_once(tmp_path, ending, caplog):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.{ending}", CLOUD)
        read_points(tmp_path / f"{name}.{ending}")
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/a.{ending}: 6 columns, of which 3 are read; `features` names those behind x, y and z"
    ]
    read_points(tmp_path / f"a.{ending}", ["nx", "ny", "nz"])
    assert len(caplog.records) == 1


def test_columns_with_names_and_features_apart_are_said_too(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("x,y,heat,z\n1,2,3,4\n")
    assert read_points(tmp_path / "a.csv").tolist() == [[1, 2, 4]]
    assert f"{tmp_path}/a.csv: 4 columns, of which 3 are read" in caplog.text
    (tmp_path / "a.off").write_text("COFF\n1 0 0\n1 2 3 255 0 0 255\n")
    assert read_points(tmp_path / "a.off").tolist() == [[1, 2, 3]]
    assert f"{tmp_path}/a.off: 7 columns, of which 3 are read" in caplog.text
    np.savez(tmp_path / "a.npz", points=CLOUD[:, :3], features=CLOUD[:, 3:])
    read_points(tmp_path / "a.npz")
    assert "the array features (50, 3) is left out, as `features` names none of its columns" in caplog.text


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_datamodule_says_it_once_however_files_are_read(tmp_path, workers, capfd, caplog):
    for split in ("train", "test"):
        for kind in ("flat", "tall"):
            (tmp_path / split / kind).mkdir(parents=True)
            for i in range(5):
                np.save(tmp_path / split / kind / f"{i}.npy", CLOUD)
    data = PointFolder(str(tmp_path), num_workers=workers, batch_size=2, val_fraction=0.4)
    data.setup("fit")
    assert caplog.text.count("6 columns, of which 3 are read") == 1
    for _ in range(2):
        assert len(list(data.train_dataloader())) == 3
    data.setup("test")
    assert caplog.text.count("6 columns, of which 3 are read") == 1 and "columns" not in capfd.readouterr().err


# ---------------------------------------------------------------- cut, broken and far


def saved(save, *arrays, **named) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
@given(st.floats(0, 1), st.integers(0, 255))
def test_a_cut_or_damaged_array_is_named(tmp_path_factory, save, share, byte):
    path = tmp_path_factory.getbasetemp() / ("any.npy" if save is np.save else "any.npz")
    whole = saved(save, CLOUD) if save is np.save else saved(save, points=CLOUD)
    path.write_bytes(whole[: int(share * (len(whole) - 1))])
    with pytest.raises(InputError, match=f"^{path}: expected "):
        read_points(path)
    at = int(share * (len(whole) - 1))
    path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    try:
        found = read_points(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
    else:  # what a zip repeats, or values of an npy, which has no checksum
        assert save is np.save or np.array_equal(found, CLOUD[:, :3])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.npy", saved(np.save, CLOUD) + b"\0", r"more behind the array \(50, 6\)"),
        ("a.npy", saved(np.save, CLOUD).replace(b"(50, 6)", b"(9**9,)"), "cannot be read"),
        ("a.npy", saved(np.save, CLOUD).replace(b"'<f4'", b"'<q4'"), "cannot be read"),
        ("a.npy", saved(np.save, CLOUD)[:9], "cannot be read"),
        ("a.pts", b"4\n1 2 3\n4 5 6\n7 8 9\n", "4 points announced, 3 lines found"),
        ("a.pts", b"2\n1 2 3\n4 5 6\n7 8 9\n", "2 points announced, 3 lines found"),
        ("a.csv", b"x,y,z,y\n1,2,3,4\n", "found x, y, z, y, twice y"),
        ("a.txt", b"1 2 3\n4 nan 6\n7 8 9\n1 1 1\n", "expected finite values, found NaN or infinity in 1 of 4 points"),
        ("a.txt", b"1 2 3\n4 -inf 6\n7 8 9\n1 1 1\n", "expected finite values, found NaN or infinity in 1 of 4 points"),
        ("a.txt", b"1 2 3\n4 1e300 6\n7 8 9\n1 1 1\n", r"expected coordinates below 1e\+15, found 1e\+300"),
        ("a.txt", b"1\x00 \x002\x00", "expected text of UTF-8, or of UTF-16 with a byte-order mark, found zero bytes"),
    ],
)
def test_points_that_are_cut_or_odd_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^{tmp_path / name}: .*{message}"):
        read_points(tmp_path / name)


def test_a_pts_says_how_many_points_it_has(tmp_path):
    (tmp_path / "a.pts").write_text("5\n" + "1 2 3 200\n" * 5)
    assert read_points(tmp_path / "a.pts", ["intensity"]).tolist() == [[1, 2, 3, 200]] * 5


def test_points_far_from_zero_keep_their_shape(tmp_path):
    # As surveys have them: metres from a grid's zero, millimetres apart; float32 would round y to half a metre.
    near = np.random.default_rng(3).uniform(-1, 1, (200, 3))
    far = near + np.array([500_000, 5_400_000, 300])
    for kind in ("flat", "tall"):
        (tmp_path / "near" / kind).mkdir(parents=True)
        (tmp_path / "far" / kind).mkdir(parents=True)
        for i in range(4):
            np.save(tmp_path / "near" / kind / f"{i}.npy", near)
            np.savetxt(tmp_path / "far" / kind / f"{i}.xyz", far)
    np.testing.assert_allclose(read_points(tmp_path / "far" / "flat" / "0.xyz"), far, rtol=0, atol=1e-6)
    clouds = []
    for name in ("near", "far"):
        data = PointFolder(str(tmp_path / name), test_fraction=0.25, val_fraction=0.34)
        data.setup("fit")
        clouds.append(data.train_set.cloud(0))
    assert clouds[1].dtype == torch.float32
    torch.testing.assert_close(clouds[0], clouds[1], atol=1e-5, rtol=0)


# ---------------------------------------------------------------- classes


def test_an_npz_that_names_its_classes_says_how_many_there_are(tmp_path):
    np.savez(tmp_path / "a.npz", points=CLOUDS[..., :3], labels=LABELS, classes=["flat", "tall"])
    path = tmp_path / "a.npz"
    with pytest.raises(
        InputError, match=f"num_classes: expected 2, the number of names in `classes` of {path}, found 3"
    ):
        PointArrays(str(path), 3)


def test_modelnet_over_other_classes_points_to_point_folder(tmp_path):
    for split in ("train", "test"):
        write_boxes(tmp_path / "chair" / split, 2)
        write_boxes(tmp_path / "teapot" / split, 2)
    message = f"root: expected the classes of ModelNet40 in {tmp_path}, found chair, teapot; PointFolder reads"
    with pytest.raises(InputError, match=message):
        ModelNet(str(tmp_path)).setup("fit")
    assert PointFolder(str(tmp_path)).class_names == ["chair", "teapot"]


def test_names_that_are_stored_as_bytes_are_text(tmp_path, caplog):
    classes, ids = ["dog", "café"], [f"pièce {i}" for i in range(20)]
    stored = {"classes": np.array([name.encode() for name in classes]), "ids": np.array([i.encode() for i in ids])}
    assert stored["ids"].dtype.kind == "S"
    np.savez(tmp_path / "a.npz", points=CLOUDS, labels=LABELS, size=LABELS, **stored)
    data = PointArrays(str(tmp_path / "a.npz"), 2)
    assert data.class_names == classes and data.find_all().names == ids
    assert PointTargets(str(tmp_path / "a.npz"), ["size"]).find_all().names == ids
    np.savez(tmp_path / "a.npz", points=CLOUDS, labels=LABELS, classes=np.array([b"crane", b"crane"]))
    caplog.clear()
    assert PointArrays(str(tmp_path / "a.npz"), 2).class_names == ["crane", "crane"]
    assert caplog.messages == ["class_names: the classes 0, 1 are all called 'crane'"]


def test_arrays_are_kept_on_disk_by_their_contents(tmp_path, monkeypatch):
    def made(points: np.ndarray):
        np.savez(tmp_path / "all.npz", points=points, labels=LABELS)
        options = {"cache": "disk", "cache_dir": str(tmp_path / "cache"), "val_fraction": 0.2}
        data = PointArrays(str(tmp_path / "all.npz"), 2, **options)
        data.setup("fit")
        return data

    first = made(CLOUDS[..., :3]).train_set.cloud(0)
    read = PointSet.read
    monkeypatch.setattr(PointSet, "read", lambda *_: pytest.fail("read again"))
    assert torch.equal(made(CLOUDS[..., :3]).train_set.cloud(0), first)
    monkeypatch.setattr(PointSet, "read", read)
    other = made(CLOUDS[..., :3] ** 3).train_set.cloud(0)
    assert other.shape == first.shape and not torch.equal(other, first)
