"""Patches of a grid."""

from collections.abc import Sequence

from torch import Tensor, nn


def patches(content: Tensor, size: Sequence[int]) -> Tensor:
    """Content (B, *grid, C) in patches of `size` places per axis, zeros filling up the last: their places are channels.

    Returns:
        (B, *grid of patches, prod(size) * C).
    """
    axes = range(1, len(size) + 1)
    filling = [amount for axis in reversed(axes) for amount in (0, -content.shape[axis] % size[axis - 1])]
    content = nn.functional.pad(content, (0, 0, *filling))
    for axis in reversed(axes):
        content = content.unflatten(axis, (-1, size[axis - 1]))
    order = [0, *(2 * axis - 1 for axis in axes), *(2 * axis for axis in axes), content.ndim - 1]
    return content.permute(order).flatten(len(size) + 1)
