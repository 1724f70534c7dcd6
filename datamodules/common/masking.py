"""Modalities that examples lack, and that are hidden from a model."""

from typing import Any

import torch
from torch import Tensor


def drop_modalities(inputs: dict[str, dict[str, Any]], shares: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Inputs of a batch, of which a share of the examples has each modality masked out.

    An example loses one modality at most, and never the only one that it has.
    """
    inputs, has = dict(inputs), {name: there(part) for name, part in inputs.items()}
    left = torch.stack(list(has.values())).sum(0)
    drawn, upto = torch.rand(len(left), device=left.device), 0.0
    for name, share in shares.items():
        if name in inputs:
            kept = (drawn < upto) | (drawn >= upto + share) | (left - has[name].long() == 0)
            inputs[name] = masked(inputs[name], kept)
        upto += share
    return inputs


def there(part: dict[str, Any]) -> Tensor:
    """Which examples (B,) of a batch have any element of a modality."""
    if "mask" in part:
        return part["mask"].flatten(1).any(1)
    return torch.ones(len(part["content"]), dtype=torch.bool, device=part["content"].device)


def masked(part: dict[str, Any], kept: Tensor) -> dict[str, Any]:
    """A modality's part of a batch, masked out in the examples that are not `kept` (B,)."""
    content = part["content"]
    elements = content.shape[: max(2, content.ndim - 1)]  # tokens have no channels
    mask = kept.view(-1, *[1] * (len(elements) - 1)).expand(elements)
    return {**part, "mask": part.get("mask", mask) & mask}
