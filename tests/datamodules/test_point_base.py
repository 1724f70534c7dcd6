"""What all point clouds share: reading, number of points, augmentation, caching, files that cannot be read."""

import numpy as np
import pytest
import torch
from grouped import made
from image_files import batch_of
from point_clouds import write_boxes, write_off

from datamodules import PointFolder
from datamodules.base import check_batch
from datamodules.common.collate import collate
from datamodules.points.dataset import POINTS
from datamodules.points.geometry import nearest, shape_context
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver
from perceiver_lightning.tasks.classification import ClassificationTask


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path):
    """Clouds of 5 to 8 points with a feature, the row's number in all points."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, name in enumerate(("flat", "tall")):
            (tmp_path / "clouds" / split / name).mkdir(parents=True)
            for i in range(4):
                points = random.uniform(-1, 1, (5 + i, 3)) * ([1, 1, 0] if label == 0 else [0, 0, 1])
                feature = np.full((5 + i, 1), 4 * label + i)
                np.save(tmp_path / "clouds" / split / name / f"{i}.npy", np.hstack([points, feature]))
    return tmp_path / "clouds"


def clouds(folder, **options) -> PointFolder:
    return made(PointFolder, str(folder), **{"features": ["heat"], "val_fraction": 0.25, **options})


def points_of(data: PointFolder, split: str, training: bool = False) -> dict:
    batch = data.finish(batch_of(data, split), training)
    check_batch(batch, data.modalities)
    return batch["inputs"]["points"]


def test_facts_are_known_and_the_resolution_is_twice_the_papers_frequency(folder):
    data = clouds(folder)
    assert data.modalities == {"points": {"channels": 1, "resolution": [2240, 2240, 2240]}}
    assert Perceiver(data.modalities, 2, num_latents=2, latent_width=8).inputs.positions["points"].highest == [1120] * 3
    assert (data.num_classes, data.class_names, data.elements) == (2, ["flat", "tall"], {"points": 2048})
    assert clouds(folder, resolution=16).modalities["points"]["resolution"] == [16] * 3
    assert clouds(folder, num_points=None, mesh_samples=77).elements == {"points": 77}


def test_clouds_of_different_sizes_are_padded_and_masked(folder):
    points = points_of(clouds(folder), "test")
    assert points["positions"].shape == (8, 8, 3) and points["content"].shape == (8, 8, 1)
    assert points["mask"].sum(1).tolist() == [5, 6, 7, 8] * 2
    assert points["positions"][~points["mask"]].eq(0).all() and points["content"][~points["mask"]].eq(0).all()
    for row in range(8):
        there = points["mask"][row]
        assert points["content"][row, there].eq(row).all()
        assert points["positions"][row, there].mean(0).abs().max() < 1e-6
        assert points["positions"][row].abs().max().item() == pytest.approx(1)


def test_a_padded_cloud_gets_the_output_that_it_gets_alone(folder):
    data = clouds(folder, features=[], resolution=8)
    model = Perceiver(data.modalities, 2, num_latents=3, latent_width=8, bands=2, cross_attends=[1, 1]).double()
    together = points_of(data, "test")
    for row, example in enumerate(data.test_set[row]["inputs"]["points"] for row in range(8)):
        alone = {key: value[None].double() for key, value in example.items()}
        whole = {key: value if value.dtype == torch.bool else value.double() for key, value in together.items()}
        torch.testing.assert_close(model({"points": alone})[0], model({"points": whole})[row])


@pytest.mark.parametrize("count", [1, 5, 6])
def test_of_many_points_some_are_drawn_anew_in_training_and_the_same_in_evaluation(folder, count):
    data = clouds(folder, num_points=count, eval_points=4)
    data.setup("fit")
    val, train = (
        {tuple(map(tuple, split[len(split) - 1]["inputs"]["points"]["positions"].tolist())) for _ in range(20)}
        for split in (data.val_set, data.train_set)
    )
    assert {len(cloud) for cloud in train} == {count} and {len(cloud) for cloud in val} == {4}
    assert len(val) == 1 and len(train) > 5
    alike = clouds(folder, num_points=count)
    alike.setup("fit")
    assert len(alike.val_set[len(alike.val_set) - 1]["inputs"]["points"]["positions"]) == count


@pytest.mark.parametrize("cache", [None, "memory", "disk"])
def test_size_and_shape_stand_behind_what_the_files_say(folder, tmp_path, cache):
    options = {"feature_mean": 3, "feature_std": [2], "cache": cache, "cache_dir": str(tmp_path / "cache")}
    plain = points_of(clouds(folder, normalise="ball", **options), "test")
    data = clouds(folder, normalise="ball", log_size=[0.5, 2.0], neighbours=[3, 4], **options)
    assert data.modalities["points"]["channels"] == 10
    points = points_of(data, "test")
    torch.testing.assert_close(points["content"][..., :1], plain["content"])
    for row in range(8):
        own = points["content"][row, points["mask"][row]]
        cloud = torch.from_numpy(np.load(folder / "test" / ["flat", "tall"][row // 4] / f"{row % 4}.npy")[:, :3])
        size = (cloud - cloud.mean(0)).norm(dim=1).max()
        torch.testing.assert_close(own[:, 1].double(), ((size.log() - 0.5) / 2).expand(len(own)), rtol=1e-5, atol=1e-5)
        # The flat ones are floors; the tall ones are lines that stand upright.
        assert own[:, [4, 8]].max() < 1e-5 if row < 4 else own[:, [2, 6]].min() > 0.999


def test_nearest_points_are_not_looked_for_unless_needed(folder, monkeypatch):
    monkeypatch.setattr("datamodules.points.geometry.nearest", None)
    points_of(clouds(folder, normalise="ball", log_size=[0.5, 2.0]), "test")
    with pytest.raises(TypeError):
        points_of(clouds(folder, shape_context=[4]), "test")


def test_a_cloud_too_far_out_for_its_squares_is_named(folder):
    np.save(folder / "test" / "tall" / "1.npy", np.full((5, 4), -1e16))
    with pytest.raises(InputError, match=r"tall/1.npy: expected coordinates below 1e\+15, found 1e\+16"):
        batch_of(clouds(folder), "test")


def test_a_cloud_without_a_size_is_named(folder):
    np.save(folder / "test" / "tall" / "1.npy", np.ones((5, 4)))
    expected = "tall/1.npy: expected a cloud with a size, as log_size is given, found points that all fall together"
    with pytest.raises(InputError, match=expected):
        batch_of(clouds(folder, log_size=[0, 1]), "test")


def test_features_are_normalised_in_every_split(folder):
    data = clouds(folder, feature_mean=3, feature_std=[2])
    for training in (True, False):
        points = points_of(data, "test", training)
        found = [points["content"][row][points["mask"][row]].unique().tolist() for row in range(8)]
        assert found == [[(row - 3) / 2] for row in range(8)]
        assert points["content"][~points["mask"]].eq(0).all()


def test_only_training_is_augmented_and_padding_stays_at_zero(folder):
    options = {"rotate": 180, "stretch": [0.5, 2], "scale_points": [0.9, 1.1], "jitter": 0.1, "drop_points": 0.5}
    data, plain = clouds(folder, **options), clouds(folder)
    for key, value in points_of(data, "test").items():
        assert torch.equal(value, points_of(plain, "test")[key])
    before, after = points_of(plain, "test"), points_of(data, "test", training=True)
    padding = ~before["mask"]
    assert after["positions"][padding].eq(0).all() and not after["mask"][padding].any()
    assert (after["positions"] != before["positions"])[before["mask"]].any(1).all()
    assert 8 <= after["mask"].sum() < before["mask"].sum()


@pytest.mark.parametrize("key, value", [("rotate", 180), ("stretch", [0.5, 2]), ("scale_points", [0.9, 1.1])])
def test_each_augmentation_is_done_when_asked_for(folder, key, value):
    moved = points_of(clouds(folder, **{key: value}), "test", training=True)["positions"]
    assert not torch.equal(moved, points_of(clouds(folder), "test")["positions"])
    torch.testing.assert_close(points_of(clouds(folder), "test", True), points_of(clouds(folder), "test"))


@pytest.mark.parametrize("options", [{"rotate": 180}, {"mirror": True}])
@pytest.mark.parametrize("up, axis", [("z", 2), ("y", 1)])
def test_rotation_and_mirrors_keep_heights_and_normals_on_their_faces(tmp_path, up, axis, options):
    for name in ("a", "b"):
        write_boxes(tmp_path / "test" / name, 3, (1, 1, 2), "stl")
        write_boxes(tmp_path / "train" / name, 3, (1, 1, 2), "stl")
    data = clouds(tmp_path, features=["nx", "ny", "nz"], num_points=300, normalise="ball", up=up, **options)
    before, after = points_of(data, "test"), points_of(data, "test", training=True)
    for key in ("content", "positions"):
        assert torch.equal(before[key][..., axis], after[key][..., axis])
        assert (before[key] - after[key]).abs().max() > 0.1
    # The height of a point over its face, which neither changes.
    before, after = ((points["content"] * points["positions"]).sum(-1) for points in (before, after))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_cutmix_makes_labels_soft_in_training_alone(folder):
    data = clouds(folder, cutmix=1.0)
    assert batch_of(data, "test")["labels"].ndim == 1
    batch = data.finish(batch_of(data, "test"), training=True)
    check_batch(batch, data.modalities)
    points, labels = batch["inputs"]["points"], batch["labels"]
    assert labels.shape == (8, 2) and labels.sum(1).allclose(torch.ones(8))
    for row in range(8):  # the feature is the number of the row that a point is from
        rows = points["content"][row, points["mask"][row], 0]
        assert set(rows.tolist()) <= {row, (row - 1) % 8}
        torch.testing.assert_close(labels[row, 0], (rows < 4).float().mean())


@pytest.mark.parametrize("into", ["ball", "cube", "box"])
def test_a_cloud_of_one_place_comes_to_lie_at_zero(folder, into):
    np.save(folder / "test" / "tall" / "1.npy", np.ones((5, 4)))
    points = points_of(clouds(folder, normalise=into), "test")
    assert points["positions"].isfinite().all() and points["positions"][5].eq(0).all()


def test_mirrors_know_each_component_of_a_normal(tmp_path):
    for split in ("train", "test"):
        write_boxes(tmp_path / split / "a", 8, (1, 1, 2), "stl")
    data = clouds(tmp_path, features=["ny"], num_points=50, normalise="ball", mirror=True)
    before, after = points_of(data, "test"), points_of(data, "test", training=True)
    signs = (after["positions"] / before["positions"])[..., 1]
    assert signs.unique().tolist() == [-1, 1]
    torch.testing.assert_close(after["content"][..., 0], before["content"][..., 0] * signs)


def test_cutmix_comes_after_all_else_and_leaves_padding_at_zero(folder):
    options = {"normalise": "ball", "log_size": [0.5, 2.0], "feature_mean": 3, "feature_std": [2]}
    data = clouds(folder, cutmix=1.0, drop_points=0.5, **options)
    batch = data.finish(batch_of(data, "test"), training=True)
    check_batch(batch, data.modalities)
    points = batch["inputs"]["points"]
    assert points["content"][~points["mask"]].eq(0).all()
    for row in range(8):
        rows = (points["content"][row, points["mask"][row], 0] * 2 + 3).round()
        assert set(rows.tolist()) <= {row, (row - 1) % 8}
        torch.testing.assert_close(batch["labels"][row, 0], (rows < 4).float().mean())


def test_shape_contexts_stand_last_and_are_mirrored_with_their_cloud(tmp_path):
    for split in ("train", "test"):
        write_boxes(tmp_path / split / "a", 6, (1, 2, 4), "stl")
    options = {"num_points": 200, "mirror": True, "log_size": [0.5, 2.0], "neighbours": [8]}
    data = clouds(tmp_path, features=["ny"], shape_context=[9, 30], **options)
    assert data.modalities["points"]["channels"] == 1 + 1 + 4 + 2 * 28
    before, after = points_of(data, "test"), points_of(data, "test", training=True)
    assert not torch.equal(before["positions"], after["positions"])
    without = points_of(clouds(tmp_path, features=["ny"], **options), "test")["content"]
    torch.testing.assert_close(before["content"][..., :6], without)
    for start, count in ((6, 9), (34, 30)):
        found = after["content"][..., start : start + 28]
        expected = torch.stack([shape_context(cloud, nearest(cloud, count)) for cloud in after["positions"]])
        assert (found - expected).abs().gt(1e-3).float().mean() < 1e-3  # a point may stand on the edge of a cell


def test_evaluation_shows_clouds_in_all_their_mirrors_as_one_example(tmp_path):
    for split in ("train", "test"):
        write_boxes(tmp_path / split / "a", 2, (1, 2, 4), "stl")
        write_boxes(tmp_path / split / "b", 1, (1, 2, 4), "stl")
    options = {"features": ["nx", "ny", "nz"], "num_points": 60, "shape_context": [9], "up": "y", "mirror": True}
    plain, mirrored = clouds(tmp_path, **options), clouds(tmp_path, eval_mirrors=True, **options)
    alone = plain.finish(batch_of(plain, "test"), training=False)
    batch = mirrored.finish(batch_of(mirrored, "test"), training=False)
    check_batch(batch, mirrored.modalities)
    assert batch["example"].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and batch["labels"].tolist() == [0] * 8 + [1] * 4
    assert batch["name"] == [name for name in alone["name"] for _ in range(4)]
    signs = torch.tensor([[1, 1, 1], [-1, 1, 1], [1, 1, -1], [-1, 1, -1]])[:, None]
    own, points = alone["inputs"]["points"], batch["inputs"]["points"]
    for row in range(12):
        cloud, sign = row // 4, signs[row % 4]
        assert torch.equal(points["positions"][row], own["positions"][cloud] * sign)
        assert torch.equal(points["content"][row, :, :3], own["content"][cloud, :, :3] * sign)
        expected = shape_context(points["positions"][row], nearest(points["positions"][row], 9))
        assert (points["content"][row, :, 3:] - expected).abs().gt(1e-3).float().mean() < 0.01  # on edges of cells
    assert len(mirrored.finish(batch_of(mirrored, "test"), training=True)["labels"]) == 3


def test_a_padded_cloud_is_mirrored_as_it_is_alone(folder):
    data = clouds(folder, eval_mirrors=True, feature_mean=3)
    many = points_of(data, "test")
    assert many["positions"].shape == (32, 8, 3)
    assert many["mask"].sum(1).tolist() == [count for count in [5, 6, 7, 8] * 2 for _ in range(4)]
    assert many["positions"][~many["mask"]].eq(0).all() and many["content"][~many["mask"]].eq(0).all()
    for row in range(8):
        alone = data.finish(collate([data.test_set[row]]), training=False)["inputs"]["points"]
        assert "mask" not in alone
        for mirror in range(4):
            there = many["mask"][4 * row + mirror]
            for key in ("content", "positions"):
                assert torch.equal(alone[key][mirror], many[key][4 * row + mirror, there])


def test_clouds_without_labels_are_predicted_over_their_mirrors(folder):
    data = clouds(folder, eval_mirrors=True, predict_dir=str(folder / "test"))
    batch = data.finish(batch_of(data, "predict"), training=False)
    check_batch(batch, data.modalities)
    torch.manual_seed(0)
    task = ClassificationTask(data.modalities, 2, num_latents=4, latent_width=8, self_heads=2, bands=2).eval()
    found = task.predict_step(batch, 0)
    assert found["name"] == sorted(set(batch["name"])) and len(batch["name"]) == 32
    expected = task(batch["inputs"]).softmax(-1).unflatten(0, (8, 4)).mean(1)
    torch.testing.assert_close(found["predictions"], expected)
    assert (expected - task(batch["inputs"])[::4].softmax(-1)).abs().max() > 1e-6


def test_a_box_tells_its_lengths_and_stretching_changes_them_alone(tmp_path):
    for split in ("train", "test"):
        write_boxes(tmp_path / split / "a", 3, (1, 2, 4), "stl")
    options = {"features": [], "num_points": 300, "normalise": "box", "log_size": [0.5, 2.0], "neighbours": [8]}
    data = clouds(tmp_path, stretch=[0.5, 2.0], **options)
    assert data.modalities["points"]["channels"] == 7
    before, after = points_of(data, "test"), points_of(data, "test", training=True)
    assert torch.equal(before["positions"], after["positions"]) and before["positions"].abs().max() == 1
    lengths = (before["content"][..., :3] * 2 + 0.5).exp()
    ratio = lengths / lengths[..., :1]
    torch.testing.assert_close(ratio, torch.tensor([1.0, 2.0, 4.0]).expand_as(ratio), atol=0.1, rtol=0)
    change = (2 * (after["content"] - before["content"])).exp()
    assert torch.equal(change, change[:, :1].expand_as(change)) and change[..., 3:].eq(1).all()
    assert len(change[:, 0, :3].unique()) == 9 and change.min() > 0.499 and change.max() < 2.001


def test_a_cube_that_is_rotated_stays_within_what_positions_may_be(tmp_path):
    for name in ("a", "b"):
        write_boxes(tmp_path / "train" / name, 40)
        write_boxes(tmp_path / "test" / name, 1)
    data = clouds(tmp_path, features=[], num_points=300, rotate=180)
    assert points_of(data, "train", training=True)["positions"].abs().max() > 1.05  # check_batch: below 1.1


@pytest.mark.parametrize("cache", [None, "memory", "disk"])
def test_caches_change_nothing(folder, tmp_path, cache):
    data = clouds(folder, cache=cache, cache_dir=str(tmp_path / "cache"))
    for key, value in points_of(data, "test").items():
        assert torch.equal(value, points_of(clouds(folder), "test")[key])
    assert (tmp_path / "cache").is_dir() == (cache == "disk")


def test_the_cache_on_disk_is_found_again_and_knows_its_settings(folder, tmp_path, monkeypatch):
    options = {"cache": "disk", "cache_dir": str(tmp_path / "cache")}
    first = points_of(clouds(folder, **options), "test")
    opened = []
    read = POINTS.open
    kind = POINTS._replace(open=lambda path, **reading: opened.append(path) or read(path, **reading))
    monkeypatch.setattr("datamodules.points.base.Points.kind", kind)
    assert torch.equal(points_of(clouds(folder, **options), "test")["positions"], first["positions"])
    assert not opened
    other = points_of(clouds(folder, **options, normalise="ball"), "test")
    assert len(opened) == 8 and not torch.equal(other["positions"], first["positions"])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("cache", [None, "memory", "disk"])
def test_broken_clouds_are_named_or_left_out_and_counted(folder, tmp_path, cache, caplog):
    options = {"cache": cache, "cache_dir": str(tmp_path / "cache"), "val_fraction": 0.4, "num_points": 4}
    for name in ("flat/0", "tall/2"):
        np.save(folder / "train" / f"{name}.npy", np.array([[0, np.nan, 0, 1], [1, 1, 1, 1]]))
    with pytest.raises(
        InputError, match=r"train/(flat/0|tall/2).npy: expected finite values, found NaN or infinity in 1"
    ):
        data = clouds(folder, **options)
        batch_of(data, "train"), batch_of(data, "val")
    data = clouds(folder, skip_broken=True, **options)
    names = batch_of(data, "train")["name"] + batch_of(data, "val")["name"]
    assert len(names) == 6 and not {"train/flat/0.npy", "train/tall/2.npy"} & set(names)
    counted = [int(message.split("left out ")[1].split()[0]) for message in caplog.messages]
    assert sum(counted) == 2 and "point clouds, which cannot be read" in caplog.messages[0]


def test_positions_that_are_not_normalised_must_lie_in_their_range(folder):
    np.save(folder / "test" / "tall" / "1.npy", np.full((5, 4), 30.0))
    data = clouds(folder, normalise=None)
    expected = r"test/tall/1.npy: expected positions in \[-1, 1\], as normalise is null, found 30$"
    with pytest.raises(InputError, match=expected):
        batch_of(data, "test")
    np.save(folder / "test" / "tall" / "1.npy", np.full((5, 4), 0.25))
    assert points_of(data, "test")["positions"][5, :5].eq(0.25).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"features": ["a", "a"]}, "features: expected names that differ"),
        ({"feature_mean": [1, 2]}, r"feature_mean: expected one number, or 1 \(features\), found \[1, 2\]"),
        ({"feature_std": 0}, r"feature_std: .*above 0, or 1 \(features\), found \[0\]"),
        ({"num_points": 0}, "num_points: expected null, or an integer of at least 1, found 0"),
        ({"eval_points": 0}, "eval_points: expected null, or an integer of at least 1, found 0"),
        (
            {"num_points": 3, "eval_points": 9, "mesh_samples": 8},
            r"mesh_samples: expected null, or at least 9 \(eval_points\), found 8",
        ),
        ({"num_points": 9, "mesh_samples": 8}, r"mesh_samples: expected null, or at least 9 \(num_points\), found 8"),
        ({"rotate": 181}, "rotate: expected degrees from 0 to 180, found 181"),
        ({"jitter": -1}, "jitter: expected a number of at least 0, found -1"),
        ({"drop_points": 1}, "drop_points: expected a share from 0 to below 1, found 1"),
        ({"stretch": [2, 1]}, r"stretch: expected null, or \[least, greatest\] above 0, found \[2, 1\]"),
        ({"scale_points": [0, 1]}, "scale_points: expected null, or .* above 0"),
        ({"log_size": [0, 0]}, r"log_size: expected null, or \[mean, standard deviation above 0\], found \[0, 0\]"),
        (
            {"log_size": [0, 1], "normalise": None},
            "normalise: expected ball, cube or box, as log_size is given, found null",
        ),
        ({"cutmix": -1}, "cutmix: expected a number of at least 0, found -1"),
        (
            {"features": ["nx", "nz"], "rotate": 9},
            r"features: expected all of .* or of these nz alone",
        ),
        ({"normalise": "box", "rotate": 9}, "rotate: expected 0, as normalise is box, found 9"),
        ({"normalise": "box", "stretch": [1, 2]}, r"stretch: expected null, as .* log_size null, found \[1, 2\]"),
        ({"neighbours": [2]}, r"neighbours: expected numbers of at least 3 points, that differ, found \[2\]"),
        ({"shape_context": [2]}, r"shape_context: expected numbers of at least 3 points, that differ, found \[2\]"),
        ({"shape_context": [9, 9]}, r"shape_context: expected numbers of .*, that differ, found \[9, 9\]"),
        ({"shape_context": [9], "rotate": 9}, "rotate: expected 0, as shape_context is given, found 9"),
        ({"resolution": 0}, r"modalities\['points'\]\['resolution'\]: expected"),
    ],
)
def test_arguments_out_of_range_are_named(folder, options, message):
    with pytest.raises(InputError, match=message):
        clouds(folder, **options)


def test_a_folder_of_any_clouds_is_predicted(folder, tmp_path):
    data = clouds(folder, features=[], num_points=64, predict_dir=str(tmp_path / "new"))
    write_off(tmp_path / "new" / "b" / "a.off", header="OFF")
    (tmp_path / "new" / "c.xyz").write_text("0 0 0\n1 1 1\n")
    (tmp_path / "new" / "notes.md").write_text("no cloud")
    batch = batch_of(data, "predict")
    assert batch["name"] == ["b/a.off", "c.xyz"] and set(batch) == {"inputs", "name"}
    assert batch["inputs"]["points"]["mask"].sum(1).tolist() == [64, 2]
    with pytest.raises(InputError, match="predict_dir: expected a folder of point clouds to predict, found null"):
        clouds(folder).setup("predict")
