"""Labels of a batch, as classification checks them."""

import pytest
import torch

from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks.classification import check_labels


@pytest.mark.parametrize(
    "labels, multilabel",
    [
        (torch.tensor([0, 9]), False),
        (torch.full((2, 10), 0.1), False),  # soft, as MixUp makes them
        (torch.full((2, 10), 0.1, dtype=torch.float64), False),
        (torch.ones(2, 10), True),
        (torch.zeros(2, 10), True),
    ],
)
def test_every_form_of_labels_passes(labels, multilabel):
    check_labels(labels, 2, 10, multilabel)


@pytest.mark.parametrize(
    "labels, multilabel, message",
    [
        (torch.tensor([0, 10]), False, r"expected classes from 0 to 9 \(num_classes\), found 0 to 10"),
        (torch.tensor([-1, 1]), False, r"expected classes from 0 to 9 \(num_classes\), found -1 to 1"),
        (torch.tensor([0, 1]).int(), False, r"expected an? int64 tensor, found torch.int32"),
        ([0, 1], False, "expected a tensor, found list"),
        (torch.tensor([0, 1, 2]), False, r"expected the shape \(2,\), found \(3,\)"),
        (torch.full((2, 9), 1 / 9), False, r"expected the shape \(2, 10\), found \(2, 9\)"),
        (
            torch.full((2, 10), 0.2),
            False,
            r"expected rows that sum to 1 \(multilabel is false\), found a row that is off",
        ),
        (torch.full((2, 10), torch.nan), False, "expected finite values, found NaN or infinity"),
        (torch.tensor([0, 1]), True, "expected a float tensor, found torch.int64"),
        (torch.full((2, 10), 2.0), True, r"expected values in \[0, 1\], found 2 to 2"),
        (torch.full((2, 10), -0.5), True, r"expected values in \[0, 1\], found -0.5 to -0.5"),
    ],
)
def test_wrong_labels_are_named(labels, multilabel, message):
    with pytest.raises(InputError, match=rf"^batch\['labels'\]: {message}"):
        check_labels(labels, 2, 10, multilabel)
