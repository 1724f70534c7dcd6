import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure

from datamodules.common.patches import patches
from datamodules.common.scale import Scale
from datamodules.image.augment import permutation
from perceiver_lightning.analysis.attention.panels import (
    View,
    blend,
    filled_grid,
    heat_of,
    paint,
    show,
    some_frames,
    unpatched,
)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3), st.integers(1, 3))
def test_patches_are_undone(axes, channels):
    grid, patch = [count * size for count, size in axes], [size for _, size in axes]
    content = torch.rand(1, *grid, channels)
    assert unpatched(patches(content, patch)[0], patch).equal(content[0])


@pytest.mark.parametrize(
    ("name", "shape", "view", "kind", "size"),
    [
        ("audio", (20, 1), None, "waveform", (20, 1)),
        ("audio", (5, 8), View(patch=[4]), "waveform", (20, 2)),
        ("sensors", (20, 7), None, "waveform", (20, 1)),
        ("audio", (6, 4, 1), None, "spectrogram", (6, 4, 3)),
        ("audio", (3, 2, 4), View(patch=[2, 2]), "spectrogram", (6, 4, 3)),
        ("image", (6, 4, 1), None, "image", (6, 4, 3)),
        ("image", (3, 2, 12), View(patch=[2, 2]), "image", (6, 4, 3)),
        ("image", (6, 4, 0), None, "image", (6, 4, 3)),
        ("cochlea", (6, 4, 1), View(kind="spectrogram"), "spectrogram", (6, 4, 3)),
        ("video", (5, 6, 4, 3), None, "video", (5, 6, 4, 3)),
        ("video", (2, 3, 2, 24), View(patch=[2, 2, 2]), "video", (4, 6, 4, 3)),
    ],
)
def test_what_a_grid_is_drawn_as(name, shape, view, kind, size):
    shown = show(name, {"content": torch.randn(1, *shape)}, view)
    assert (shown.kind, shown.picture.shape) == (kind, size)
    assert shown.picture.min() >= -1 and shown.picture.max() <= 1
    values = torch.arange(float(np.prod(shape[:-1]))).view(shape[:-1])
    arranged = shown.arranged(values)
    assert arranged.shape == size[:-1]
    for axis, step in enumerate(shown.patch):
        values = values.repeat_interleave(step, axis)
    assert (arranged == values.numpy()).all()
    if kind != "points":
        paint(Figure().add_subplot(), shown)
        paint(Figure().add_subplot(), shown, torch.rand(shape[:-1]))


def test_colours_are_those_that_were_read():
    bytes_ = torch.randint(256, (1, 4, 5, 3), dtype=torch.uint8)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.1]
    shown = show("image", {"content": Scale(mean, std, 3)(bytes_ / 255)}, View(mean=mean, std=std))
    np.testing.assert_allclose(shown.picture, bytes_[0] / 255, atol=1e-6)
    without = show("image", {"content": bytes_ / 255 - 0.5})
    assert (without.picture.min(), without.picture.max()) == (0, 1)


def test_permuted_pixels_are_put_back():
    image, values = torch.randn(1, 5, 7, 3), torch.rand(5, 7)
    order, positions = permutation([5, 7], seed=1)
    part = {"content": image.flatten(1, 2)[:, order], "positions": positions}
    shown, plain = show("image", part), show("image", {"content": image})
    np.testing.assert_array_equal(shown.picture, plain.picture)
    np.testing.assert_array_equal(shown.arranged(values.flatten()[order]), values)
    assert filled_grid(positions[:-1]) is None
    assert filled_grid(torch.rand(9, 3)) is None
    assert filled_grid(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])) is None


def test_what_is_masked_out_is_not_drawn():
    mask = torch.zeros(1, 6, 5, dtype=torch.bool)
    mask[:, :4, :3] = True
    content, values = torch.randn(1, 6, 5, 3), torch.rand(6, 5)
    shown = show("image", {"content": content, "mask": mask})
    assert shown.picture.shape == (4, 3, 3)
    np.testing.assert_array_equal(shown.arranged(values), values[:4, :3])
    assert show("image", {"content": content, "mask": ~mask & mask}) is None
    positions, there = torch.randn(1, 6, 3), torch.tensor([[True, False, True, True, False, True]])
    points = show("points", {"content": torch.zeros(1, 6, 0), "positions": positions, "mask": there})
    np.testing.assert_array_equal(points.picture, positions[there])
    np.testing.assert_array_equal(points.arranged(torch.arange(6.0)), [0, 2, 3, 5])


@pytest.mark.parametrize(
    ("part", "view", "message"),
    [
        ({"content": torch.zeros(1, 2, 2, 2, 2, 1)}, None, "x has a grid of 4 axes: expected 1 to 3 to be drawn"),
        (
            {"content": torch.zeros(1, 9, 0), "positions": torch.rand(9, 4)},
            None,
            "x has positions of 4 axes: expected 1 to 3 to be drawn",
        ),
        (
            {"content": torch.zeros(1, 4, 5)},
            View(patch=[2]),
            r"x has 1 axes and 5 channels: expected a patch of those, not \[2\]",
        ),
    ],
)
def test_what_cannot_be_drawn(part, view, message):
    with pytest.raises(ValueError, match=message):
        show("x", part, view)


@given(arrays(float, st.integers(2, 20), elements=st.floats(0, 1, allow_subnormal=False)))
def test_heat_is_from_an_even_share_to_the_greatest(weights):
    heat = heat_of(weights)
    assert heat.min() >= 0 and heat.max() <= 1 + 1e-9
    assert (heat[weights <= weights.mean()] == 0).all()
    if weights.max() > 1.001 * weights.mean():
        assert heat[weights.argmax()] == pytest.approx(1)
        order = np.argsort(weights)
        assert (np.diff(heat[order]) >= -1e-12).all()
    else:
        assert not heat.any() or weights.max() > weights.mean()


def test_heat_is_logarithmic():
    weights = np.array([100.0, 10.0, *[1.0] * 9, *[0.0] * 100])  # an even share is 119 / 111
    even = weights.mean()
    assert heat_of(weights)[1] == pytest.approx(np.log(10 / even) / np.log(100 / even))


def test_without_heat_there_is_no_colour_and_with_heat_there_is():
    picture = np.random.default_rng(0).random((4, 4, 3))
    cold, hot = blend(picture, np.zeros((4, 4))), blend(picture, np.ones((4, 4)))
    assert np.ptp(cold, axis=-1).max() < 1e-9 and np.ptp(hot, axis=-1).min() > 0.3


@pytest.mark.parametrize(("count", "frames"), [(1, [0]), (3, [0, 1, 2]), (8, [0, 2, 5, 7])])
def test_some_frames_are_evenly_spread(count, frames):
    assert some_frames(count) == frames
