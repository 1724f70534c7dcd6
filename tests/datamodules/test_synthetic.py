"""Generated data: drawn as said, told apart by form alone, the same again by seed."""

import numpy as np
import pytest
import torch
from image_files import batch_of, write_images
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamodules import Moving, Shapes, Solids, Tones
from datamodules.audio.spectrogram import Spectrogram
from datamodules.base import DataModule, check_batch
from datamodules.points.dataset import Sampling
from datamodules.synthetic import generate
from perceiver_lightning.errors import InputError

ALL = [Shapes, Tones, Solids, Moving]


def whole(data: DataModule, split: str) -> dict:
    """All examples of a split, finished."""
    return data.finish(batch_of(data, split), training=False)


def content(batch: dict) -> dict[str, torch.Tensor]:
    """What says something of each modality: the content, or the positions of bare points."""
    return {
        name: part["content"] if part["content"].shape[-1] else part["positions"]
        for name, part in batch["inputs"].items()
    }


@pytest.mark.parametrize("make", ALL)
def test_sizes_classes_and_contract(make):
    data = make(sizes=(60, 40, 20))
    for split, size in (("train", 60), ("val", 40), ("test", 20)):
        batch = whole(data, split)
        check_batch(batch, data.modalities)
        for name, part in batch["inputs"].items():
            if data.modalities[name]["channels"]:  # a grid of the facts' own size
                assert list(part["content"].shape[1:-1]) == data.modalities[name]["resolution"]
        assert batch["labels"].bincount().tolist() == [size // data.num_classes] * data.num_classes
        assert batch["name"][0] == f"{split} 0"


@pytest.mark.parametrize("make", ALL)
def test_the_seed_fixes_everything_and_splits_differ(make):
    def drawn(split: str, **options) -> list[torch.Tensor]:
        batch = whole(make(**{"sizes": (12, 12, 12), **options}), split)
        return [batch["labels"], *content(batch).values()]

    def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[bool]:
        return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]

    first = drawn("train")
    assert all(same(first, drawn("train")))
    assert not any(same(first, drawn("train", seed=1))[1:])
    for other in ("val", "test"):
        assert not any(same(first, drawn(other))[1:])
    assert all(same(drawn("test"), drawn("test", sizes=(40, 4, 12))))  # other sizes elsewhere change nothing


@pytest.mark.parametrize("make", ALL)
def test_fit_does_not_draw_the_test_split(make):
    data = make(sizes=(8, 4, 4))
    data.setup("fit")
    assert data.test_set is None
    first = data.train_set
    data.setup("validate")
    assert data.train_set is first  # nor anything twice


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("sizes", [(8, 4), (8, 0, 4), (8, 4.5, 4)])
def test_bad_sizes_are_said_in_words(make, sizes):
    with pytest.raises(InputError, match=r"sizes: expected \[train, validation, test\], integers .*, found \["):
        make(sizes=sizes)


def test_options_that_cannot_be():
    with pytest.raises(InputError, match=r"size: expected an int or \[height, width\], found null"):
        Shapes(size=None)
    with pytest.raises(InputError, match=r"features: expected none, as solids have bare points, found \['nx'\]"):
        Solids(features=["nx"])


def test_what_all_images_and_sounds_can_goes_for_these_too(tmp_path):
    grey = whole(Shapes(sizes=(8, 4, 4), size=[8, 12], channels=1, permute_pixels=0, mean=0, std=1), "test")
    assert grey["inputs"]["image"]["content"].shape == (4, 96, 1)
    assert grey["inputs"]["image"]["content"].min() >= 0 and grey["inputs"]["image"]["content"].max() <= 1
    waves = whole(
        Tones(sizes=(8, 4, 4), channels=2, seconds=0.1, patch=[16], scale=[0, 1], spectrogram=Spectrogram(mels=None)),
        "test",
    )
    assert waves["inputs"]["audio"]["content"].shape == (4, 50, 32)
    ball = whole(Solids(sizes=(8, 4, 4), normalise="ball", sampling=Sampling(num_points=50)), "test")["inputs"][
        "points"
    ]["positions"]
    torch.testing.assert_close(ball.norm(dim=2).amax(1), torch.ones(4))


def test_a_folder_of_images_is_predicted(tmp_path):
    write_images(tmp_path, 3, 200, size=(5, 5))
    data = Shapes(sizes=(8, 4, 4), predict_dir=str(tmp_path))
    batch = whole(data, "predict")
    assert batch["inputs"]["image"]["content"].shape == (3, 16, 16, 3) and "labels" not in batch


def test_moving_predicts_its_test_split():
    data = Moving(sizes=(8, 4, 4))
    test, unlabelled = whole(data, "test"), whole(data, "predict")
    assert "labels" not in unlabelled
    assert torch.equal(test["inputs"]["video"]["content"], unlabelled["inputs"]["video"]["content"])


# ---------------------------------------------------------------- what statistics without form say


def pooled(values: torch.Tensor, edges: torch.Tensor) -> np.ndarray:
    """Mean, standard deviation and a histogram of 16 bins of each channel: (N, 18 C)."""
    values = values.flatten(1, -2).float()
    bins = torch.searchsorted(edges, values.permute(2, 0, 1).flatten(1).contiguous())  # (C, N M)
    bins = bins.unflatten(1, values.shape[:2])
    counts = torch.stack([(bins == k).float().mean(2) for k in range(len(edges[0]) + 1)], -1)  # (C, N, 16)
    return torch.cat([values.mean(1), values.std(1), counts.permute(1, 0, 2).flatten(1)], 1).numpy()


VIEWS = {
    "pixels": lambda: Shapes(sizes=(8000, 4, 1000)),
    "waveform": lambda: Tones(sizes=(8000, 4, 1000), spectrogram=Spectrogram(mels=None)),
    "spectrogram": lambda: Tones(sizes=(8000, 4, 1000)),
    "spectrogram patches": lambda: Tones(sizes=(8000, 4, 1000), patch=[2, 4]),
    "points": lambda: Solids(sizes=(8000, 4, 1000)),
    "film and sound": lambda: Moving(sizes=(8000, 4, 1000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_a_logistic_regression_on_pooled_statistics_stays_under_60_percent(view):
    data = VIEWS[view]()
    train, test = whole(data, "train"), whole(data, "test")
    seen, unseen = [], []
    for name, values in content(train).items():
        flat = values.flatten(0, -2).float()[:: max(1, values.flatten(0, -2).shape[0] // 10000)]
        edges = flat.quantile(torch.linspace(0, 1, 17)[1:-1], 0).T.contiguous()  # (C, 15)
        seen.append(pooled(values, edges))
        unseen.append(pooled(content(test)[name], edges))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, tol=1e-2))
    model.fit(np.hstack(seen), train["labels"])
    accuracy = model.score(np.hstack(unseen), test["labels"])
    print(f"{view}: {accuracy:.1%}")
    assert accuracy < 0.6


# ---------------------------------------------------------------- what is drawn


def test_shapes_cover_the_area_that_was_drawn_whatever_they_are():
    size = (256, 256)
    for label in range(4):
        rng = np.random.default_rng(0)
        inside = generate._stencil(rng, np.full(20, label), np.zeros((20, 2)), size)
        area = np.random.default_rng(0).uniform(0.5, 0.9, 20)
        np.testing.assert_allclose(4 * inside.mean((1, 2)), area, rtol=0.03)


def test_shapes_have_their_forms():
    rng = np.random.default_rng(0)
    ring, square, triangle, cross = generate._stencil(rng, np.arange(4), np.zeros((4, 2)), (64, 64))
    assert not ring[32, 32] and square[32, 32] and triangle[32, 32] and cross[32, 32]
    for shape in (ring, square, triangle, cross):
        np.testing.assert_array_equal(shape, shape[:, ::-1])  # the same mirrored
    for shape in (ring, square, cross):
        np.testing.assert_array_equal(shape, shape.T)
    rows = np.flatnonzero(triangle.any(1))
    assert triangle[rows[0]].sum() <= 2 and triangle[rows[-1]].sum() == triangle.sum(1).max()  # one corner up
    rows = np.flatnonzero(cross.any(1))
    assert cross[rows[0]].sum() < cross[32].sum() / 2


def lit(pictures: np.ndarray) -> np.ndarray:
    """The light pixels of pictures (N, ..., C), by the first channel."""
    first = pictures[..., 0].astype(float)
    low, high = (limit(first.reshape(len(first), -1), 1) for limit in (np.min, np.max))
    return first > ((low + high) / 2).reshape(-1, *[1] * (first.ndim - 1))


def test_shapes_are_lighter_than_their_ground_in_every_channel():
    labels = np.arange(40) % 4
    images = generate.draw_shapes(np.random.default_rng(0), labels, (16, 16), 3)
    light = lit(images)
    for channel in (1, 2):
        np.testing.assert_array_equal(lit(images[..., channel:]), light)
    assert (images[light] >= 140).all() and (images[~light] < 116).all()


def test_tones_follow_their_course():
    labels = np.repeat(np.arange(5), 25)
    sound = generate.draw_tones(np.random.default_rng(0), labels, 4000, 8000)
    assert sound.dtype == np.int16 and sound.shape == (125, 4000, 1)
    frames = sound[..., 0].astype(float).reshape(125, 8, 500) * np.hanning(500)
    pitch = np.log2(16 * np.abs(np.fft.rfft(frames))[..., 1:].argmax(2) + 16)  # octaves, at each eighth
    change = pitch[:, -1] - pitch[:, 0]
    # The middle against the ends: a turn lies within the third to the sixth eighth.
    bend = pitch[:, 3:5].mean(1) - pitch[:, [0, 7]].mean(1)
    steady, rising, falling, peak, dip = (labels == k for k in range(5))
    assert (np.ptp(pitch[steady], axis=1) < 0.1).all()
    assert (change[rising] > 0.7).all() and (change[falling] < -0.7).all()
    assert (bend[peak] > 0.2).all() and (bend[dip] < -0.2).all()
    assert (np.abs(bend[rising | falling]) < 0.2).all()


def test_solids_are_surfaces():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(np.linalg.norm(generate._sphere(rng, 5, 100), axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs(generate._box(rng, 5, 100)).max(2), 1)
    cylinder, cone = generate._cylinder(rng, 5, 6000), generate._cone(rng, 5, 6000)
    radius, height = np.linalg.norm(cylinder[..., :2], axis=2), np.abs(cylinder[..., 2])
    on_side = np.isclose(radius, 1)
    assert (on_side | (height == 1)).all() and radius.max() <= 1 + 1e-9 and height.max() <= 1
    assert abs(on_side.mean() - 2 / 3) < 0.01
    radius, height = np.linalg.norm(cone[..., :2], axis=2), cone[..., 2]
    on_side = np.isclose(height, 1 - 2 * radius)
    assert (on_side | (height == -1)).all()
    assert abs((height == -1).mean() - 1 / (1 + 5**0.5)) < 0.01
    # Even on each: half of a disc's points lie within sqrt(1/2) of its middle.
    assert abs((radius[height == -1] < 0.5**0.5).mean() - 0.5) < 0.02


def test_tilts_are_rotations():
    tilts = generate._tilts(np.random.default_rng(0), 20, 0.3)
    np.testing.assert_allclose(tilts @ tilts.transpose(0, 2, 1), np.tile(np.eye(3), (20, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(tilts), 1)
    assert (np.arccos((np.trace(tilts, axis1=1, axis2=2) - 1) / 2) <= 0.3 + 1e-9).all()


def test_solids_stay_in_reach_and_have_one_spread():
    labels = np.arange(2000) % 4
    solids = generate.draw_solids(np.random.default_rng(0), labels, 100)
    assert np.abs(solids).max() <= 1
    spread = solids.std(1).mean(1)
    assert spread.max() / spread.min() > 1.5  # sizes differ
    means = [spread[labels == k].mean() for k in range(4)]
    assert max(means) / min(means) < 1.05  # but not from class to class


def across(films: np.ndarray) -> np.ndarray:
    """How far to the right the light pixels of films (N, F, H, W, C) are: (N, F), in pixels."""
    light = lit(films)
    return (light * np.arange(films.shape[3])).sum((2, 3)) / light.sum((2, 3))


def test_films_move_their_way():
    ways = np.arange(40) % 2
    films = generate.draw_films(np.random.default_rng(0), ways, 8, (16, 16))
    assert films.shape == (40, 8, 16, 16, 3) and films.dtype == np.uint8
    places = across(films)
    moved = places[:, -1] - places[:, 0]
    assert (moved[ways == 0] < -1.5).all() and (moved[ways == 1] > 1.5).all()
    assert np.abs(np.diff(places, axis=1)).max() < 2


def test_only_both_modalities_of_moving_tell_the_class():
    data = Moving(sizes=(8, 4, 4))
    assert data.class_names == ["left rising", "left falling", "right rising", "right falling"]
    batch = batch_of(data, "train")
    places = across(batch["inputs"]["video"]["content"].numpy())
    assert (places[:, -1] > places[:, 0]).tolist() == (batch["labels"] // 2 == 1).tolist()
    frames = batch["inputs"]["audio"]["content"][..., 0].double().unflatten(1, (4, 500)) * torch.hann_window(500)
    pitch = torch.fft.rfft(frames).abs()[..., 1:].argmax(2)
    assert torch.equal((pitch[:, -1] < pitch[:, 0]).long(), batch["labels"] % 2)
