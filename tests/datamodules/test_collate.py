"""Padding: an example keeps what it has alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.common.collate import LATER, collate, rows_of_clips
from datamodules.common.masking import masked
from perceiver_lightning.errors import InputError


def example(*shape: int, **part) -> dict:
    return {"inputs": {"x": {"content": torch.randn(*shape), **part}}}


@st.composite
def examples_of_any_size(draw) -> list[dict]:
    axes, channels = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    sizes = draw(st.lists(st.lists(st.integers(1, 5), min_size=axes, max_size=axes), min_size=1, max_size=4))
    return [example(*size, channels) for size in sizes]


@given(examples_of_any_size())
def test_padding_keeps_each_example_and_its_positions(examples):
    batch = collate(examples)["inputs"]["x"]
    contents = [one["inputs"]["x"]["content"] for one in examples]
    sizes = [content.shape[:-1] for content in contents]
    if len(set(sizes)) == 1:
        assert set(batch) == {"content"}
        assert torch.equal(batch["content"], torch.stack(contents))
        return
    assert batch["mask"].dtype == torch.bool
    assert batch["content"].shape[1:-1] == tuple(max(axis) for axis in zip(*sizes, strict=True))
    assert batch["mask"].shape == batch["content"].shape[:-1]
    for row, (content, size) in enumerate(zip(contents, sizes, strict=True)):
        there = batch["mask"][row]
        assert there.sum() == content[..., :1].numel() if content.shape[-1] else there.sum() == size.numel()
        assert torch.equal(batch["content"][row][there], content.flatten(0, -2))  # both in row-major order
        assert not batch["content"][row][~there].any()
        for axis, length in enumerate(size):
            positions = batch["positions"][axis]
            assert positions.shape == (len(examples), batch["content"].shape[1 + axis])
            assert torch.equal(positions[row, :length], torch.linspace(-1, 1, length))


def test_positions_that_examples_bring_are_kept():
    own = [torch.rand(3), torch.rand(2)]
    batch = collate([example(3, 2, 1, positions=own), example(2, 2, 1)])["inputs"]["x"]
    assert torch.equal(batch["positions"][0], torch.stack([own[0], torch.tensor([-1.0, 1.0, 0.0])]))
    assert torch.equal(batch["positions"][1], torch.stack([own[1], torch.tensor([-1.0, 1.0])]))
    alike = collate([example(3, 2, 1, positions=own), example(3, 2, 1)])["inputs"]["x"]
    assert "mask" not in alike
    assert torch.equal(alike["positions"][0], torch.stack([own[0], torch.linspace(-1, 1, 3)]))


def test_positions_that_are_made_later_are_not_made_here():
    batch = collate([example(3, 2, 1, positions=LATER), example(2, 2, 1, positions=LATER)])["inputs"]["x"]
    assert set(batch) == {"content", "mask"}
    lacking = [{"inputs": {"y": {"content": torch.ones(1, 1)}}}, {"inputs": {"x": {**batch, "positions": LATER}}}]
    assert set(collate(lacking)["inputs"]["x"]) == {"content", "mask"}
    assert batch["mask"].tolist() == [[[True] * 2] * 3, [[True] * 2] * 2 + [[False] * 2]]


def test_coordinates_and_masks_are_padded():
    points, mask = [torch.rand(4, 3), torch.rand(2, 3)], torch.tensor([True, False, True, True])
    batch = collate([example(4, 0, positions=points[0], mask=mask), example(2, 0, positions=points[1])])["inputs"]["x"]
    assert torch.equal(batch["positions"][0], points[0])
    assert torch.equal(batch["positions"][1, :2], points[1])
    assert batch["content"].shape == (2, 4, 0)
    assert batch["mask"].tolist() == [mask.tolist(), [True, True, False, False]]


@pytest.mark.parametrize("mask", [torch.zeros(4, 3), torch.ones(3, dtype=torch.bool), torch.ones(2, 3).bool()])
def test_a_mask_of_another_type_or_shape_is_refused(mask):
    with pytest.raises(InputError, match=r"inputs\['x'\]\['mask'\]: expected a bool tensor of shape \(4, 3\), found"):
        collate([example(4, 3, 1, mask=mask), example(2, 3, 1)])


@pytest.mark.parametrize("positions", [{}, {"positions": torch.zeros(4, 3)}])
def test_a_modality_that_an_example_lacks_is_masked(positions):
    full = {"x": {"content": torch.ones(4, 2), **positions}, "y": {"content": torch.ones(1, 1)}}
    batch = collate([{"inputs": full}, {"inputs": {"y": {"content": torch.ones(1, 1)}}}])["inputs"]
    assert batch["x"]["mask"].tolist() == [[True] * 4, [False] * 4]
    assert batch["x"]["content"][1].eq(0).all()
    assert set(batch["y"]) == {"content"}


def test_tokens_are_padded_and_masked():
    texts = [{"inputs": {"text": {"content": torch.arange(1, 1 + length)}}} for length in (3, 2)]
    batch = collate([*texts, {"inputs": {"x": {"content": torch.ones(2, 1)}}}])["inputs"]
    assert batch["text"]["content"].tolist() == [[1, 2, 3], [1, 2, 0], [0, 0, 0]]
    assert batch["text"]["content"].dtype == torch.int64
    assert batch["text"]["mask"].tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert torch.equal(batch["text"]["positions"][0][1], torch.tensor([-1.0, 1.0, 0.0]))
    assert collate(texts[:1] * 2)["inputs"]["text"]["content"].tolist() == [[1, 2, 3]] * 2
    kept = torch.tensor([False, True, True])
    assert masked(batch["text"], kept)["mask"].tolist() == [[False] * 3, [True, True, False], [False] * 3]


def test_rows_of_clips_repeat_names_and_targets_of_any_key():
    inputs = {"x": {"content": torch.arange(12.0).view(2, 3, 2, 1)}}
    rest = {"labels": torch.tensor([4, 5]), "targets": torch.tensor([[0.5], [1.5]]), "name": ["a", "b"]}
    rows = rows_of_clips({"inputs": inputs, **rest}, {"x": 3})
    assert rows["inputs"]["x"]["content"].shape == (6, 2, 1)
    assert rows["example"].tolist() == [0, 0, 0, 1, 1, 1] and rows["name"] == ["a"] * 3 + ["b"] * 3
    assert rows["labels"].tolist() == [4] * 3 + [5] * 3
    assert rows["targets"].tolist() == [[0.5]] * 3 + [[1.5]] * 3
    assert rows_of_clips(rows, {"x": 3}) is rows


def test_labels_names_and_parts_of_an_example():
    soft = torch.tensor([0.25, 0.75])
    batch = collate([{**example(2, 1), "labels": 1, "name": "a", "example": 7}] * 2)
    assert batch["labels"].dtype == torch.int64
    assert (batch["labels"].tolist(), batch["name"], batch["example"].tolist()) == ([1, 1], ["a", "a"], [7, 7])
    assert torch.equal(collate([{**example(2, 1), "labels": soft}])["labels"], soft[None])


@pytest.mark.parametrize(
    "examples, message",
    [
        ([{**example(2, 1), "labels": 1}, example(2, 1)], "labels: expected in every example of a batch"),
        ([example(2, 1), example(2, 3)], r"inputs\['x'\]: .*same axes and channels, found \[\(2, 1\), \(2, 3\)\]"),
        ([example(2, 1), example(2, 2, 1)], r"inputs\['x'\]: .*same axes and channels"),
        ([example(2, 1, positions=LATER), example(3, 1)], r"inputs\['x'\]\['positions'\]: expected LATER for every"),
        ([example(2, 1, positions=torch.zeros(2, 3)), example(2, 1)], r"inputs\['x'\]: expected coordinates"),
    ],
)
def test_examples_that_disagree_are_refused(examples, message):
    with pytest.raises(InputError, match=message):
        collate(examples)
