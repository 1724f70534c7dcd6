import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.perceiver.modeling_perceiver import build_linear_positions, generate_fourier_features

from perceiver_lightning.model.importer import channel_order
from perceiver_lightning.model.positions import (
    FourierPositions,
    LearnedAxisPositions,
    LearnedPositions,
    along_axis,
    even_grid,
    fourier_features,
    nearest,
)

resolutions = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def oracle(places: np.ndarray, highest: float, bands: int) -> np.ndarray:
    """The paper's definition, band by band, in float64."""
    step = (highest - 1) / (bands - 1) if bands > 1 else 0.0
    angles = [math.pi * (1 + band * step) * places for band in range(bands)]
    return np.stack([places, *[np.sin(x) for x in angles], *[np.cos(x) for x in angles]], -1)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    st.floats(1, 1200),
    st.integers(1, 70),
)
def test_fourier_features_are_the_paper_s(places, highest, bands):
    wide = torch.tensor(places, dtype=torch.float64)
    expected = torch.from_numpy(oracle(wide.numpy(), highest, bands))
    assert expected.shape == (len(places), 2 * bands + 1)
    torch.testing.assert_close(fourier_features(wide, highest, bands), expected, rtol=0, atol=1e-9)
    narrow = fourier_features(wide.float(), highest, bands)
    assert narrow.dtype == torch.float32
    expected = torch.from_numpy(oracle(wide.float().double().numpy(), highest, bands))
    torch.testing.assert_close(narrow.double(), expected, rtol=0, atol=1e-6 * highest)  # a few ulp of the largest angle


@given(resolutions, st.integers(1, 9), st.data())
def test_fourier_features_are_those_of_transformers(resolution, bands, data):
    """On grids of the trained resolution and of others, with any number of axes."""
    sizes = [data.draw(st.integers(1, 6)) for _ in resolution]
    coordinates = build_linear_positions(sizes).flatten(0, -2)
    theirs = generate_fourier_features(coordinates[None], bands, max_resolution=resolution)[0]
    ours = FourierPositions(resolution, bands).elements(coordinates)
    torch.testing.assert_close(ours, theirs[:, channel_order(0, len(sizes), bands)], rtol=0, atol=1e-6)


def test_bands_reach_from_1_to_half_the_resolution_of_each_axis_or_to_what_is_given():
    place = torch.tensor([0.3], dtype=torch.float64)
    positions = FourierPositions([8, 20], bands=4)
    for axis, frequencies in enumerate([[1, 2, 3, 4], [1, 4, 7, 10]]):
        angles = math.pi * 0.3 * torch.tensor(frequencies, dtype=torch.float64)
        torch.testing.assert_close(positions.axis(axis, place)[0, 1:5], angles.sin())
        torch.testing.assert_close(positions.axis(axis, place)[0, 5:], angles.cos())
    given_highest = FourierPositions([8, 20], bands=2, highest_frequency=1120)
    for axis in range(2):
        torch.testing.assert_close(given_highest.axis(axis, place)[0, 2], (math.pi * 1120 * place[0]).sin())
    assert positions.width == 2 * 9 and given_highest.width == 2 * 5


def test_features_follow_from_the_place_and_not_from_the_size_of_the_input():
    positions = FourierPositions([9], bands=5)
    whole, half = positions.even_axis(0, 9, torch.device("cpu")), positions.even_axis(0, 5, torch.device("cpu"))
    assert torch.equal(half, whole[::2])  # every second of 9 even places is one of 5 even places


def test_the_even_grid_has_both_ends_and_one_step():
    torch.testing.assert_close(even_grid(5), torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))
    assert even_grid(1).tolist() == [-1.0]


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float64])
def default_dtype(request):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_tables_are_float32_whatever_the_default_dtype(default_dtype):
    table = FourierPositions([224], bands=64).even_axis(0, 224, torch.device("cpu"))
    assert table.dtype == even_grid(3).dtype == torch.float32
    expected = torch.from_numpy(oracle(np.linspace(-1, 1, 224), 112, 64))
    torch.testing.assert_close(table.double(), expected, rtol=0, atol=1e-4)


def test_tables_are_float32_under_autocast_and_from_half_precision_places():
    expected = torch.from_numpy(oracle(np.linspace(-1, 1, 224), 112, 64)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        table = FourierPositions([224], bands=64).even_axis(0, 224, torch.device("cpu"))
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-4)
    halves = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])  # exact in bfloat16
    assert torch.equal(fourier_features(halves.bfloat16(), 112, 64), fourier_features(halves, 112, 64))


def test_tables_are_made_once_for_each_size_and_stay_out_of_the_checkpoint():
    positions = FourierPositions([4, 6], bands=3)
    device = torch.device("cpu")
    table = positions.even_axis(1, 6, device)
    assert positions.even_axis(1, 6, device) is table
    assert not torch.equal(positions.even_axis(0, 6, device), table)  # axes have bands of their own
    assert positions.even_axis(1, 5, device).shape == (5, 7)
    assert not positions.state_dict() and not list(positions.parameters())


def test_a_table_first_made_in_inference_mode_can_be_trained_with():
    positions = FourierPositions([4], bands=3)
    with torch.inference_mode():
        positions.even_axis(0, 4, torch.device("cpu"))
    weight = torch.ones(7, requires_grad=True)
    (positions.even_axis(0, 4, torch.device("cpu")) * weight).sum().backward()
    assert weight.grad is not None


def numbered(module: LearnedPositions | LearnedAxisPositions) -> None:
    """Row i of each table is i everywhere."""
    for table in module.parameters():
        table.data = torch.arange(float(len(table)))[:, None].repeat(1, table.shape[1])


@given(resolutions)
def test_learned_positions_count_the_elements_of_their_grid(resolution):
    positions = LearnedPositions(resolution, width=2)
    numbered(positions)
    found = positions.grid([even_grid(size) for size in resolution])
    assert found.shape == (1, *resolution, 2)
    assert torch.equal(found[..., 1].flatten(), torch.arange(float(math.prod(resolution))))


@given(resolutions, st.integers(0, 99))
def test_learned_positions_travel_with_permuted_coordinates(resolution, seed):
    positions = LearnedPositions(resolution, width=2)
    torch.nn.init.normal_(positions.table)
    coordinates = build_linear_positions(resolution).flatten(0, -2)
    order = torch.randperm(len(coordinates), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(positions.elements(coordinates[order]), positions.table[order])
    assert torch.equal(positions.elements(coordinates[order].expand(3, -1, -1))[2], positions.table[order])


def test_learned_positions_of_a_grid_with_places_of_its_own():
    positions = LearnedPositions([3, 5], width=2)
    numbered(positions)
    rows, columns = torch.tensor([-1.0, 0.9]), torch.tensor([[1.0, 0.1, -0.4], [-1.0, -1.0, 0.6]])
    expected = torch.tensor([[[4.0, 2, 1], [14, 12, 11]], [[0, 0, 3], [10, 10, 13]]])
    assert torch.equal(positions.grid([rows, columns])[..., 0], expected)


def test_learned_axes_give_each_place_the_vector_of_the_nearest():
    positions = LearnedAxisPositions([3, 5], width=2)
    numbered(positions)
    assert positions.even_axis(0, 3, torch.device("cpu"))[:, 0].tolist() == [0, 1, 2]
    assert positions.even_axis(1, 5, torch.device("cpu"))[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert positions.axis(1, torch.tensor([[0.2, 0.3], [-1.0, 0.9]]))[..., 0].tolist() == [[2, 3], [0, 4]]
    elements = positions.elements(torch.tensor([[-1.0, 1.0], [0.1, -0.6]]))
    assert positions.width == 4 and elements.tolist() == [[0, 0, 4, 4], [1, 1, 1, 1]]


@given(st.integers(1, 3000))
def test_every_place_of_the_even_grid_is_nearest_to_itself(size):
    assert torch.equal(nearest(even_grid(size), size), torch.arange(size))


def test_places_beyond_the_ends_take_the_last():
    assert nearest(torch.tensor([-1.5, 1.5]), 4).tolist() == [0, 3]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.data())
def test_a_table_lies_along_its_axis(sizes, per_sample, data):
    axis = data.draw(st.integers(0, len(sizes) - 1))
    table: Tensor = torch.randn(*([2] if per_sample else []), sizes[axis], 3)
    spread = along_axis(table, axis, len(sizes)).expand(2, *sizes, 3)
    for index in np.ndindex(2, *sizes):
        row = table[index[0]] if per_sample else table
        assert torch.equal(spread[index], row[index[1 + axis]])
