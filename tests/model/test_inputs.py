import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceiver_lightning.model.inputs import InputArray, Inputs, Part
from perceiver_lightning.model.perceiver import initialise

grids = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(modalities: dict, **options) -> Inputs:
    return Inputs(modalities, **options).apply(initialise).double()


def features(place: float, highest: float, bands: int) -> list[float]:
    frequencies = [1 + band * (highest - 1) / max(bands - 1, 1) for band in range(bands)]
    angles = [math.pi * frequency * place for frequency in frequencies]
    return [place, *map(math.sin, angles), *map(math.cos, angles)]


@given(grids, st.integers(0, 3))
def test_an_element_is_its_content_then_its_features_axis_by_axis(grid, channels):
    inputs = inputs_of({"x": {"channels": channels, "resolution": [6] * len(grid)}}, bands=2)
    content = normal(2, *grid, channels)
    array = inputs({"x": {"content": content}}).array
    assert array.shape == (2, math.prod(grid), channels + 5 * len(grid)) == (*array.shape[:2], inputs.width)
    expected = []
    for index in torch.cartesian_prod(*(torch.arange(size) for size in grid)).view(-1, len(grid)).tolist():
        places = [-1 + 2 * i / (size - 1) if size > 1 else -1.0 for i, size in zip(index, grid, strict=True)]
        element = content[(0, *index)].tolist()
        for place in places:
            element += features(place, 3, 2)
        expected.append(element)
    torch.testing.assert_close(array[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


@given(grids, st.sampled_from(["fourier", "learned", "learned_axes"]), st.booleans())
def test_the_same_places_as_grid_per_sample_or_coordinates_give_the_same_array(grid, positions, per_sample):
    inputs = inputs_of({"x": {"channels": 2, "resolution": [5] * len(grid)}}, bands=3, positions=positions)
    content = normal(2, *grid, 2)
    even = [torch.linspace(-1, 1, size) for size in grid]
    coordinates = torch.stack(torch.meshgrid(*even, indexing="ij"), -1).flatten(0, -2)
    if per_sample:
        even, coordinates = [places.expand(2, -1) for places in even], coordinates.expand(2, -1, -1)
    absent = inputs({"x": {"content": content}}).array
    torch.testing.assert_close(inputs({"x": {"content": content, "positions": even}}).array, absent)
    free = {"content": content.flatten(1, -2), "positions": coordinates}
    torch.testing.assert_close(inputs({"x": free}).array, absent)


@pytest.mark.parametrize("positions", ["fourier", "learned_axes"])
def test_grids_stay_separable_and_coordinates_are_not(positions):
    inputs = inputs_of({"x": {"channels": 2, "resolution": [4, 6]}}, bands=3, positions=positions, position_width=7)
    (part,) = inputs({"x": {"content": normal(2, 4, 6, 2)}}).parts
    assert [table.shape for table in part.tables] == [(4, 7), (6, 7)] and part.features is None
    (part,) = inputs({"x": {"content": normal(2, 9, 2), "positions": torch.rand(2, 9, 2)}}).parts
    assert not part.tables and part.features.shape == (2, 9, 14)


def test_one_modality_stays_as_wide_as_it_is_and_several_are_filled_up_to_the_widest_plus_4():
    image, sound = {"channels": 3, "resolution": [8, 8]}, {"channels": 1, "resolution": [16]}
    assert inputs_of({"image": image}, bands=2).width == 3 + 2 * 5
    assert not list(inputs_of({"image": image}, bands=2).parameters())
    both = inputs_of({"image": image, "sound": sound}, bands=2)
    assert both.width == 13 + 4
    assert {name: len(vector) for name, vector in both.modality_vectors.items()} == {"image": 4, "sound": 17 - 6}
    batch = {"sound": {"content": normal(2, 16, 1)}, "image": {"content": normal(2, 8, 8, 3, seed=1)}}
    array = both(batch).array
    assert array.shape == (2, 64 + 16, 17)  # in the order of the facts, whatever the order in the batch
    assert torch.equal(array[:, :64, :3], batch["image"]["content"].flatten(1, 2))
    assert torch.equal(array[:, 64:, :1], batch["sound"]["content"])
    for rows, name in ((array[:, :64, 13:], "image"), (array[:, 64:, 6:], "sound")):
        assert torch.equal(rows, both.modality_vectors[name].expand_as(rows))


def test_a_modality_that_is_absent_from_the_batch_is_left_out():
    facts = {"a": {"channels": 1, "resolution": [4]}, "b": {"channels": 2, "resolution": [3]}}
    inputs = inputs_of(facts, bands=1)
    both = inputs({"a": {"content": normal(2, 4, 1)}, "b": {"content": normal(2, 3, 2)}})
    alone = inputs({"b": {"content": normal(2, 3, 2)}})
    assert torch.equal(alone.array, both.array[:, 4:])


def test_masks_of_all_modalities_lie_in_the_order_of_the_elements():
    image, points = torch.zeros(2, 2, 3, 1), torch.zeros(2, 4, 1)
    mask = torch.tensor([[True, False, True, False], [True] * 4])
    assert InputArray([Part(image), Part(points)]).mask is None
    found = InputArray([Part(image), Part(points, mask=mask)]).mask
    assert torch.equal(found, torch.cat([torch.ones(2, 6, dtype=torch.bool), mask], 1))
    grid_mask = torch.tensor([[[True, False, False], [False, False, True]]] * 2)
    assert InputArray([Part(image, mask=grid_mask)]).mask[0].tolist() == [True, False, False, False, False, True]


def test_positions_are_float32_under_autocast_and_rounded_only_when_the_content_is_half():
    inputs = Inputs({"x": {"channels": 1, "resolution": [224]}})
    exact = inputs({"x": {"content": torch.zeros(1, 224, 1)}}).array
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(inputs({"x": {"content": torch.zeros(1, 224, 1)}}).array, exact)
    half = inputs.bfloat16()({"x": {"content": torch.zeros(1, 224, 1, dtype=torch.bfloat16)}}).array
    assert torch.equal(half, exact.bfloat16())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, r"inputs: expected some of the modalities \['image'\], found \[\]"),
        ({"sound": {}}, r"inputs: expected some of the modalities \['image'\], found \['sound'\]"),
        (
            {"image": {"content": torch.zeros(2, 4, 6, 1)}},
            r"inputs\['image'\].*shape \(B, I0, I1, 3\), found \(2, 4, 6, 1\)",
        ),
        (
            {"image": {"content": torch.zeros(2, 24, 3)}},
            r"expected shape \(B, I0, I1, 3\), found \(2, 24, 3\)",
        ),
        (
            {"image": {"content": torch.zeros(2, 4, 6, 3), "positions": torch.zeros(24, 2)}},
            r"content'\]: expected shape \(B, M, 3\), found \(2, 4, 6, 3\)",
        ),
        (
            {"image": {"content": torch.zeros(2, 24, 3), "positions": torch.zeros(24, 3)}},
            r"inputs\['image'\]\['positions'\]: expected 2 axes, found 3",
        ),
        (
            {"image": {"content": torch.zeros(2, 4, 6, 3), "positions": [torch.zeros(4)]}},
            r"inputs\['image'\]\['positions'\]: expected 2 axes, found 1",
        ),
        (
            {"image": {"content": torch.zeros(2, 4, 6, 3), "positions": [torch.zeros(4), torch.zeros(2, 5)]}},
            r"inputs\['image'\]\['positions'\]: expected \[4, 6\] elements, found \[4, 5\]",
        ),
        (
            {"image": {"content": torch.zeros(2, 24, 3), "positions": torch.zeros(2, 23, 2)}},
            r"inputs\['image'\]\['positions'\]: expected \[24\] elements, found \[23\]",
        ),
        (
            {"image": {"content": torch.zeros(2, 4, 6, 3), "mask": torch.ones(2, 4)}},
            r"inputs\['image'\]\['mask'\]: expected shape \(2, 4, 6\) and torch.bool, found \(2, 4\) and torch.float32",
        ),
        (
            {"image": {"content": torch.zeros(2, 4, 6, 3, dtype=torch.uint8)}},
            r"inputs\['image'\]\['content'\]: expected floating point numbers, found torch.uint8",
        ),
        (
            {"image": {"content": torch.zeros(2, 0, 3), "positions": torch.zeros(2, 0, 2)}},
            r"inputs\['image'\]\['content'\]: expected at least one element .*, found shape \(2, 0, 3\)",
        ),
    ],
)
def test_a_batch_that_does_not_fit_is_told_so_in_words(batch, message):
    inputs = Inputs({"image": {"channels": 3, "resolution": [4, 6]}}, bands=1)
    with pytest.raises(ValueError, match=message):
        inputs(batch)


def test_facts_that_cannot_be_are_told_so_in_words():
    with pytest.raises(ValueError, match=r"modalities: expected at least one, .*, found none"):
        Inputs({})
    with pytest.raises(ValueError, match="positions: expected fourier, learned or learned_axes, found 'rotary'"):
        Inputs({"x": {"channels": 1, "resolution": [4]}}, positions="rotary")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"resolution": [4]}, "expected resolution, and either channels or vocabulary, found resolution"),
        ({"channels": 3}, "expected resolution, and either channels or vocabulary, found channels"),
        ({"channels": 3, "vocabulary": 9, "resolution": [4]}, "either channels or vocabulary, found channels, vocab"),
    ],
)
def test_a_modality_has_channels_or_a_vocabulary(facts, message):
    with pytest.raises(ValueError, match=rf"modalities\['x'\]: .*{message}"):
        Inputs({"x": facts})
