"""What is done to clouds: normalisation and augmentation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datamodules.base import FARTHEST_POSITION
from datamodules.points import augment as point_augment
from datamodules.points import geometry, reading


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@given(seed=st.integers(0, 99), count=st.integers(2, 50), size=st.floats(1e-3, 1e3), far=st.floats(-1e2, 1e2))
def test_a_cloud_is_centred_and_touches_the_ball_or_cube(seed, count, size, far):
    cloud = size * (torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + far)
    ball, cube = (normalised(cloud, into) for into in ("ball", "cube"))
    for inside in (ball, cube):
        torch.testing.assert_close(inside.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
        # Nothing but a shift and one factor: distances keep their proportions.
        ratio = torch.pdist(inside) / torch.pdist(cloud)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=0)
    assert ball.norm(dim=1).max().item() == pytest.approx(1)
    assert cube.abs().max().item() == pytest.approx(1)


@given(seed=st.integers(0, 99), count=st.integers(2, 50), far=st.floats(-1e2, 1e2))
def test_the_box_of_a_cloud_becomes_the_cube(seed, count, far):
    generator = torch.Generator().manual_seed(seed)
    sides = 10 ** torch.rand(3, generator=generator, dtype=torch.float64)
    cloud = sides * (torch.rand(count, 3, generator=generator, dtype=torch.float64) + far)
    box, (_, reach) = normalised(cloud, "box"), reading.frame(cloud, "box")
    torch.testing.assert_close(box.amax(0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(box.amin(0), -torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(2 * reach, cloud.amax(0) - cloud.amin(0))
    # Along each axis nothing but a shift and a factor.
    torch.testing.assert_close(box[:, None] - box, (cloud[:, None] - cloud) / reach)


def test_a_box_that_is_flat_is_a_thousandth_high():
    zero, reach = reading.frame(torch.tensor([[0.0, -1.0, 2.0], [8.0, 1.0, 2.0]]), "box")
    assert zero.tolist() == [4, 0, 2] and reach.tolist() == pytest.approx([4, 1, 0.004])


@pytest.mark.parametrize("into", ["ball", "cube", "box"])
def test_a_cloud_of_one_place_reaches_nowhere(into):
    zero, reach = reading.frame(torch.full((5, 3), 7.0), into)
    assert zero.tolist() == [7, 7, 7] and reach.eq(0).all()


def normalised(cloud: torch.Tensor, into: reading.Into) -> torch.Tensor:
    zero, reach = reading.frame(cloud, into)
    return (cloud - zero) / reach


def test_points_are_chosen_without_repeats_anew_or_by_seed():
    points = torch.arange(30.0).view(10, 3)
    first, second = (reading.choose(points, 4, seed=5) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first.unique(dim=0)) == 4 and set(map(tuple, first.tolist())) <= set(map(tuple, points.tolist()))
    assert len({tuple(reading.choose(points, 4, None)[:, 0].tolist()) for _ in range(10)}) > 5
    for count in (None, 10, 11):
        assert reading.choose(points, count, None) is points


@pytest.mark.parametrize("up, name", list(enumerate("xyz")))
def test_rotation_is_about_the_axis_up(up, name):
    vectors, angles = torch.randn(6, 11, 3, dtype=torch.float64), torch.rand(6, dtype=torch.float64) * 6
    turned = point_augment.rotate(vectors, angles, up)
    for row, angle in enumerate(angles.tolist()):
        expected = Rotation.from_euler(name, angle).apply(vectors[row].numpy())
        torch.testing.assert_close(turned[row], torch.from_numpy(expected))


def test_angles_fill_their_range():
    angles = point_augment.random_angles(10000, 90, torch.device("cpu"))
    assert angles.abs().max() <= math.pi / 2
    histogram = torch.histc(angles, 10, -math.pi / 2, math.pi / 2)
    assert histogram.min() > 800


def test_each_point_is_scaled_by_its_own_number():
    factors = point_augment.scale_points(torch.ones(8, 500, 3), 0.99, 1.01)
    assert factors.min() >= 0.99 and factors.max() <= 1.01 and factors.std() > 0.005
    assert torch.equal(factors[..., 0], factors[..., 1]) and torch.equal(factors[..., 0], factors[..., 2])
    assert len(factors[..., 0].unique()) > 3000


def test_each_cloud_is_stretched_along_each_axis():
    factors = point_augment.random_stretch(500, 0.8, 1.25, torch.device("cpu"))
    assert factors.shape == (500, 1, 3) and len(factors.unique()) > 1400
    assert 0.8 <= factors.min() < 0.81 and 1.24 < factors.max() <= 1.25


@pytest.mark.parametrize("up", [0, 1, 2])
def test_half_of_the_clouds_are_mirrored_along_each_level_axis(up):
    factors = point_augment.random_mirrors(4000, up, torch.device("cpu"))
    assert factors.shape == (4000, 1, 3) and factors.abs().eq(1).all() and factors[..., up].eq(1).all()
    first, second = (factors[:, 0, axis] for axis in range(3) if axis != up)
    assert max(first.mean().abs(), second.mean().abs(), (first * second).mean().abs()) < 0.07


def test_noise_is_cut():
    noise = point_augment.jitter(torch.zeros(500, 500, 3), 0.01)
    assert noise.std().item() == pytest.approx(0.01, rel=0.01)
    assert 0.045 < noise.abs().max() <= 0.05 + 1e-8


def test_each_cloud_loses_its_own_share_and_never_all():
    there = torch.ones(2000, 100, dtype=torch.bool)
    there[:, 80:] = False
    kept = point_augment.drop_points(there, 0.5)
    assert not kept[:, 80:].any()
    shares = kept.sum(1) / 80
    assert 0.3 < shares.min() < 0.55 and shares.max() > 0.97 and shares.mean().item() == pytest.approx(0.75, abs=0.01)
    assert point_augment.drop_points(torch.ones(2000, 1, dtype=torch.bool), 0.999).all()


@given(seed=st.integers(0, 999), points=st.integers(1, 40), alpha=st.sampled_from([0.05, 1.0]), masked=st.booleans())
def test_cutmix_takes_each_point_from_one_of_two_clouds_and_the_label_by_their_shares(seed, points, alpha, masked):
    torch.manual_seed(seed)
    rows = torch.arange(5.0)[:, None, None].expand(5, points, 1)
    clouds = {"content": rows, "positions": torch.rand(5, points, 3)}
    if masked:
        clouds["mask"] = torch.rand(5, points) < 0.5
        clouds["mask"][:, 0] = True
    mixed, labels = point_augment.cutmix(clouds, torch.arange(5), 5, alpha)
    there = mixed.get("mask", torch.ones(5, points, dtype=torch.bool))
    assert mixed.keys() == clouds.keys() and there.any(1).all()
    for row in range(5):
        origin = mixed["content"][row, :, 0].long()
        assert set(origin.tolist()) <= {row, (row - 1) % 5}
        for key in clouds:
            assert torch.equal(mixed[key][row], clouds[key][origin, torch.arange(points)])
        shares = origin[there[row]].bincount(minlength=5) / there[row].sum()
        torch.testing.assert_close(labels[row], shares)


def test_cutmix_draws_all_shares():
    clouds = {"content": torch.zeros(2, 500, 0), "positions": torch.zeros(2, 500, 3)}
    kept = torch.stack([point_augment.cutmix(clouds, torch.arange(2), 2, 1.0)[1][0, 0] for _ in range(500)])
    quarters = kept.histc(4, 0, 1)
    assert quarters.min() > 90  # evenly, as Beta(1, 1) is


def test_a_cloud_that_stands_out_is_shrunk_as_a_whole():
    clouds = torch.tensor([[[2.0, 0.0, 0.0], [1.0, -1.0, 0.5]], [[1.01, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    shrunk = point_augment.shrink_to_fit(clouds)
    assert torch.equal(shrunk[1], clouds[1])
    assert 0.99 * FARTHEST_POSITION < shrunk[0].abs().max().item() <= FARTHEST_POSITION
    torch.testing.assert_close(shrunk[0] / shrunk[0, 0, 0], clouds[0] / 2)
    assert torch.equal(point_augment.shrink_to_fit(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def shape_of(cloud, count):
    return geometry.surface_shape(cloud, geometry.nearest(cloud, count), up=2)


def context_of(cloud, count):
    return geometry.shape_context(cloud, geometry.nearest(cloud, count))


def test_the_shape_of_a_surface_tells_a_wall_a_floor_a_pole_and_a_ball_apart():
    """Linearity, planarity, verticality and how far the normal points away from the middle."""
    flat, ball = 2 * torch.rand(400, 2) - 1, torch.nn.functional.normalize(torch.randn(2000, 3), dim=1)
    floor = torch.stack([flat[:, 0], flat[:, 1], torch.full((400,), 0.5)], 1)
    wall = floor[:, [2, 0, 1]]
    pole = torch.linspace(-1, 1, 400)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    measured = {
        name: shape_of(cloud, 30) for name, cloud in {"floor": floor, "wall": wall, "pole": pole, "ball": ball}.items()
    }
    for measures in measured.values():
        assert measures.dtype == torch.float32 and measures.min() >= 0 and measures.max() <= 1 + 1e-6
    torch.testing.assert_close(measured["floor"][:, 0] + measured["floor"][:, 1], torch.ones(400))  # nothing thick
    assert measured["floor"][:, 1].mean() > 0.5 and measured["floor"][:, 2].max() < 1e-6
    torch.testing.assert_close(measured["floor"][:, 3], 0.5 / floor.norm(dim=1))
    torch.testing.assert_close(measured["wall"][:, 2], torch.ones(400))
    torch.testing.assert_close(measured["pole"][:, 0], torch.ones(400))
    assert measured["ball"][:, 3].min() > 0.95
    assert shape_of(torch.zeros(2, 3), 16).isfinite().all()
    # Turned about the axis up, nothing changes.
    turned = point_augment.rotate(floor[None], torch.tensor([0.7]), 2)[0]
    torch.testing.assert_close(shape_of(turned, 30), measured["floor"], atol=1e-3, rtol=0)


def test_a_shape_context_counts_the_nearest_points_in_cells_about_each(monkeypatch):
    """Against all distances, worked out one by one; in blocks of which the last is smaller."""
    monkeypatch.setattr(geometry, "BLOCK", 16)
    cloud = torch.randn(60, 3) * torch.tensor([1.0, 2.0, 0.3])
    found = context_of(cloud, 12)
    assert found.dtype == torch.float32 and found.shape == (60, 28)
    farthest = (cloud - cloud.mean(0)).norm(dim=1).max().item()
    for row, point in enumerate(cloud):
        distances = (cloud - point).norm(dim=1)
        near = distances.argsort()[:12]
        reach = distances[near].max().item()
        counts = np.zeros((3, 3, 3))
        for x, y, z in ((cloud[near] - point) / reach).tolist():
            counts[tuple(0 if side < -0.2 else 2 if side > 0.2 else 1 for side in (x, y, z))] += 1
        assert found[row, 0].item() == pytest.approx(math.log(reach / farthest), abs=1e-5)
        torch.testing.assert_close(found[row, 1:].double(), torch.from_numpy((counts * 27 / 12) ** 0.5).flatten())


@pytest.mark.parametrize("cloud", [torch.zeros(5, 3), torch.zeros(1, 3), torch.eye(3)], ids=["together", "one", "few"])
def test_shape_contexts_of_hardly_a_cloud_are_finite(cloud):
    found = context_of(cloud, 16)
    assert found.isfinite().all() and found.abs().max() < 8
    torch.testing.assert_close(found[:, 1:].square().sum(1), torch.full((len(cloud),), 27.0))


@pytest.mark.parametrize("factors", list(itertools.product([1.0, -1.0], repeat=3)), ids=str)
def test_mirrored_shape_contexts_are_those_of_the_mirrored_cloud(factors):
    clouds = torch.randn(2, 50, 3)
    mirrors = torch.tensor([factors, [1.0, 1.0, 1.0]])[:, None]  # the second stays as it is
    before, after = (torch.stack([context_of(cloud, 9) for cloud in both]) for both in (clouds, clouds * mirrors))
    torch.testing.assert_close(geometry.mirror_context(before, mirrors), after)
