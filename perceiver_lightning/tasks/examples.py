"""Rows of a batch and the examples that they are parts of; legend of shapes in `base.py`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Batch = Mapping[str, Any]


def by_example(predictions_BK: Tensor, example_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean predictions (E, K) of the rows of each example, by rising `example`, and the first row (E,) of each."""
    rows_B = torch.arange(len(predictions_BK), device=predictions_BK.device)
    if example_B is None:
        return predictions_BK, rows_B
    examples_E, index_B, counts_E = example_B.unique(return_inverse=True, return_counts=True)
    sums_EK = predictions_BK.new_zeros(len(examples_E), predictions_BK.shape[1])
    sums_EK.index_add_(0, index_B, predictions_BK)
    first_E = torch.full_like(examples_E, len(rows_B)).scatter_reduce_(0, index_B, rows_B, "amin")
    return sums_EK / counts_E[:, None], first_E


def name_of(batch: Batch, batch_idx: int, row: int) -> str:
    """The name of a row of a batch, or its numbers if it has none."""
    return batch["name"][row] if batch.get("name") else f"batch {batch_idx} row {row}"
