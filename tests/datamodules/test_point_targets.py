"""Arrays of point clouds with numbers to predict."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from grouped import made
from image_files import batch_of

from datamodules import PointTargets
from datamodules.base import check_batch
from perceiver_lightning.errors import InputError

DATA = Path(os.environ.get("PERCEIVER_DATA", "data")) / "pointcloud" / "ldraw21"
has_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: unpack the clouds there")


def write(path: Path, count: int = 20, **arrays) -> None:
    """Clouds whose `size` is 10 + their row, and whose `mass` is its square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.random.default_rng(0).uniform(-1, 1, (count, 6, 3))
    size = 10.0 + np.arange(count)
    np.savez(path, **{"points": points, "size": size, "mass": size**2, **arrays})


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "train.npz")
    write(tmp_path / "test.npz", 4, ids=np.array(list("abcd")))
    return tmp_path


def test_a_batch_has_the_numbers_of_each_cloud_in_their_own_units(folder):
    data = PointTargets(str(folder), ["size", "mass"])
    batch = data.finish(batch_of(data, "test"), training=False)
    check_batch(batch, data.modalities)
    assert set(batch) == {"inputs", "name", "targets"} and batch["name"] == list("abcd")
    assert batch["targets"].dtype == torch.float32
    assert batch["targets"].tolist() == [[size, size**2] for size in (10.0, 11.0, 12.0, 13.0)]


def test_facts_are_of_train_without_validation(folder):
    data = PointTargets(str(folder), ["size", "mass"], val_fraction=0.3, split_seed=2)
    train, val = (batch_of(data, split)["targets"].double() for split in ("train", "val"))
    assert (len(train), len(val)) == (14, 6)
    assert sorted(torch.cat([train, val])[:, 0].tolist()) == [10.0 + row for row in range(20)]
    assert set(data.facts) == {"num_targets", "target_names", "target_mean", "target_std"}
    assert (data.num_targets, data.target_names) == (2, ["size", "mass"])
    assert data.target_mean == pytest.approx(train.mean(0).tolist())
    assert data.target_std == pytest.approx(train.std(0, correction=0).tolist())
    write(folder / "val.npz", 3)
    whole = PointTargets(str(folder), ["size"])
    assert whole.target_mean == [19.5] and len(batch_of(whole, "train")["targets"]) == 20


def test_one_npz_in_all_is_cut_alike_for_facts_and_clouds(folder):
    data = PointTargets(str(folder / "train.npz"), ["size"], test_fraction=0.2, val_fraction=0.25)
    train, val, test = (batch_of(data, split)["targets"] for split in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [12, 4, 4]
    assert len(torch.cat([train, val, test]).unique()) == 20
    assert data.target_mean == pytest.approx(train.double().mean(0).tolist())


def test_facts_need_no_data_and_no_spread(tmp_path):
    absent = PointTargets(str(tmp_path / "nowhere"), ["size"])
    assert (absent.target_mean, absent.target_std) == ([0.0], [1.0])
    with pytest.raises(InputError, match=r"root: expected an npz, or a folder .*, found no file .*train.npz"):
        absent.setup("fit")
    write(tmp_path / "train.npz", size=np.full(20, 3, np.int64))
    alike = PointTargets(str(tmp_path), ["size"])
    assert (alike.target_mean, alike.target_std) == ([3.0], [1.0])


@pytest.mark.parametrize("far", [1e9, 1.7e9, -3e12, 5e14])
def test_numbers_far_from_zero_stay_apart(folder, far):
    spread = np.arange(20) * 1.5
    write(folder / "train.npz", size=far + spread)
    data = PointTargets(str(folder), ["size", "mass"], val_fraction=0.25)
    train, val = (batch_of(data, split)["targets"] for split in ("train", "val"))
    assert sorted((torch.cat([train, val])[:, 0] - far).tolist()) == spread.tolist()
    assert data.target_mean == pytest.approx(train.mean(0).tolist(), rel=1e-15)
    assert data.target_std == pytest.approx(train.std(0, correction=0).tolist())


def test_numbers_that_are_all_alike_are_told(folder, caplog):
    write(folder / "train.npz", size=np.full(20, 0.1), mass=np.full(20, 7))
    data = PointTargets(str(folder), ["size", "mass"])
    assert data.target_std == [1.0, 1.0]
    assert f"{folder / 'train.npz'}, size: all 18 numbers of train are 0.1" in caplog.text


def test_clouds_are_augmented_and_numbers_kept(folder):
    data = made(PointTargets, str(folder), ["size"], jitter=0.1, mirror=True, eval_mirrors=True, cache="memory")
    raw = batch_of(data, "train")
    batch = data.finish(raw, training=True)
    assert torch.equal(batch["targets"], raw["targets"])
    assert not torch.equal(batch["inputs"]["points"]["positions"], raw["inputs"]["points"]["positions"])
    mirrored = data.finish(batch_of(data, "test"), training=False)
    assert mirrored["targets"].flatten().tolist() == [size for size in (10.0, 11.0, 12.0, 13.0) for _ in range(4)]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cutmix": 0.5}, "cutmix: expected 0, as examples have no classes, found 0.5"),
        ({"balanced_sampling": True}, "balanced_sampling: expected false, as examples have no classes, found True"),
        ({"targets": []}, r"targets: expected names that differ, found \[\]"),
        ({"targets": ["size", "size"]}, "targets: expected names that differ"),
        ({"targets": ["age"]}, "train.npz: expected the arrays age, found points, size, mass"),
        ({"targets": ["points"]}, r"train.npz, points: expected finite numbers \(N,\), found float64 \(20, 6, 3\)"),
        ({"targets": ["names"]}, r"train.npz, names: expected finite numbers \(N,\), found <U1 \(20,\)"),
        ({"targets": ["hole"]}, r"train.npz, hole: expected finite numbers \(N,\)"),
        ({"targets": ["huge"]}, r"train.npz, huge: expected numbers below 1e\+15, found 1e\+300"),
        (
            {"targets": ["size", "tiny"]},
            "train.npz, tiny: expected numbers that differ by more than 1e-15, found a spread",
        ),
        ({"targets": ["few"]}, "train.npz, few: expected 20 numbers, found 19"),
        ({"targets": ["size", "few"]}, "train.npz, few: expected 20, as size, found 19"),
    ],
)
def test_what_cannot_be_is_said(folder, options, message):
    more = {"names": np.array(["a"] * 20), "hole": np.full(20, np.nan), "few": np.ones(19)}
    more |= {"huge": np.linspace(0, 1e300, 20), "tiny": np.linspace(0, 1e-20, 20)}
    if options.get("targets", ["age"]) != ["age"]:
        write(folder / "train.npz", **more)
    with pytest.raises(InputError, match=message):
        made(PointTargets, str(folder), **{"targets": ["size"], **options}).setup("fit")


@has_data
def test_real_sizes_of_parts():
    data = PointTargets(str(DATA), ["scale_ldu"], batch_size=16)
    assert 60 < data.target_mean[0] < 80 and 60 < data.target_std[0] < 90
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["targets"].shape == (16, 1) and batch["targets"].min() > 0
