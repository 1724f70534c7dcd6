"""Files listed and cut before any is read; what images do with them is in test_images.py."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.common.splits import Kind, Split, cut
from perceiver_lightning.errors import InputError

WORDS = Kind("words", (".txt",), str)


def words(labels, **columns) -> Split:
    return Split(
        [f"w{i}" for i in range(len(labels))], [f"n{i}" for i in range(len(labels))], labels, "here", WORDS, **columns
    )


@given(st.integers(0, 3), st.integers(4, 30), st.sampled_from([0.25, 0.5]))
def test_a_cut_keeps_the_shares_of_the_strata_and_loses_nothing(seed, count, fraction):
    labels = [i % 2 for i in range(8 * count)]
    strata = [i % 8 for i in range(8 * count)]
    rest, part = cut(words(labels, strata=strata), fraction, seed, "val_fraction")
    assert sorted([*rest.items, *part.items]) == sorted(f"w{i}" for i in range(8 * count))
    assert all(abs(found - fraction * count) < 1.001 for found in Counter(part.strata).values())
    for piece in (rest, part):
        rows = [int(item[1:]) for item in piece.items]
        assert rows == sorted(rows)
        assert (list(piece.names), list(piece.labels)) == ([f"n{i}" for i in rows], [i % 2 for i in rows])
    assert cut(words(labels, strata=strata), fraction, seed, "val_fraction")[1].items == part.items


@given(st.integers(0, 20))
def test_a_cut_keeps_groups_whole_and_shares_near(seed):
    groups = [i // 3 for i in range(240)]
    labels = [group % 4 for group in groups]
    rest, part = cut(words(labels, groups=groups), 0.1, seed, "val_fraction")
    assert not set(rest.groups) & set(part.groups)
    assert len(rest.items) + len(part.items) == 240
    assert all(3 <= found <= 9 for found in Counter(part.labels).values()) and len(set(part.labels)) == 4


def test_several_labels_become_zeros_and_ones():
    split = words([(0, 2), (), (1,)], several=3)
    assert [split.take([2, 0, 1]).target_of(row).tolist() for row in range(3)] == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert words([4, 5]).target_of(1) == 5


def test_what_cannot_be_cut_is_said():
    with pytest.raises(InputError, match=r"^val_fraction: expected to cut 0.5 of the 3 words of here with every class"):
        cut(words([0, 0, 1]), 0.5, 0, "val_fraction")
    few = words([row % 5 for row in range(24)])
    with pytest.raises(InputError, match=r"; 5 classes need 0\.21 at least$"):
        cut(few, 0.1, 0, "val_fraction")
    assert len(set(cut(few, 0.21, 0, "val_fraction")[1].labels)) == 5


@given(st.sampled_from([0.1, 0.25, 0.3, 0.4, 0.5]))
def test_groups_are_cut_by_any_fraction(fraction):
    groups = [i // 2 for i in range(400)]
    rest, part = cut(words([group % 2 for group in groups], groups=groups), fraction, 0, "val_fraction")
    assert abs(len(part.items) / 400 - fraction) < 0.02 and not set(rest.groups) & set(part.groups)


def test_a_class_of_one_group_cannot_be_cut():
    groups = [0, 0, *range(1, 9)]
    with pytest.raises(InputError, match="all groups of 1 would be in one"):
        for seed in range(9):
            cut(words([1, 1, *[0] * 8], groups=groups), 0.5, seed, "val_fraction")
