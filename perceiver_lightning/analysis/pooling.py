"""What is left of an example's inputs when all but a few statistics is taken away: features for simple baselines.

Legend of shapes: B examples, A axes, I_a sizes of a grid, M elements, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

FEATURES = 1500  # at most of a grid's means, so that a linear model fits in seconds
CELLS = 16  # along an axis
BINS = 16  # of histograms


def pooled(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Features (B, F) of each modality of a batch's `inputs`; of one that an example lacks they are 0.

    Of a grid: means of equal parts of it (an example that is padded is divided where it is there), and each channel's
    deviation and maximum. Of elements with coordinates: histograms of their places along each axis, of their distances
    from the origin and from each other, how far they reach, and means and deviations of their content. Of tokens: how
    often each comes.
    """
    return {name: torch.stack(_of_part(part)) for name, part in inputs.items()}


def joined(batches: Sequence[Mapping[str, Tensor]], widths: Mapping[str, int]) -> Tensor:
    """Features (N, F) of all modalities of several batches; of one that a batch lacks, so many zeros."""
    rows = []
    for batch in batches:
        count = len(next(iter(batch.values())))
        rows.append(torch.cat([batch.get(name, torch.zeros(count, width)) for name, width in widths.items()], 1))
    return torch.cat(rows)


def _of_part(part: Mapping[str, Any]) -> list[Tensor]:
    """The features of each example of one modality."""
    content, positions, mask = part["content"], part.get("positions"), part.get("mask")
    if not content.is_floating_point():
        return [_of_tokens(row if mask is None else row[mask[i]]) for i, row in enumerate(content)]
    content = content.float()
    if isinstance(positions, Tensor):
        rows = []
        for i, content_MC in enumerate(content):
            there = slice(None) if mask is None else mask[i]
            places_MA = (positions if positions.ndim == 2 else positions[i])[there].float()
            rows.append(_of_cloud(places_MA, content_MC[there]))
        return rows
    return [_of_grid(own if mask is None else _present(own, mask[i])) for i, own in enumerate(content)]


def _of_tokens(tokens_M: Tensor) -> Tensor:
    counts = torch.bincount(tokens_M % FEATURES, minlength=FEATURES)  # of large vocabularies some share a count
    return counts / max(len(tokens_M), 1)


def _present(content: Tensor, mask: Tensor) -> Tensor:
    """The smallest piece of a grid (*I, C) with all that is there."""
    for axis in range(mask.ndim):
        there = mask.movedim(axis, 0).flatten(1).any(1) if mask.ndim > 1 else mask
        places = there.nonzero().flatten()
        low, high = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        content, mask = content.narrow(axis, low, high - low), mask.narrow(axis, low, high - low)
    return content


def _of_grid(content: Tensor) -> Tensor:
    """Of a grid (*I, C)."""
    axes, channels = content.ndim - 1, content.shape[-1]
    cells = min(CELLS, max(1, int((FEATURES / max(channels, 1)) ** (1 / axes))))
    if content.numel() == 0:
        return content.new_zeros(cells**axes * channels + 2 * channels)
    means = content
    for axis in range(axes):
        along = means.movedim(axis, -1)
        means = adaptive_avg_pool1d(along.reshape(1, -1, along.shape[-1]), cells).view(*along.shape[:-1], cells)
        means = means.movedim(-1, axis)
    flat = content.flatten(0, -2)
    return torch.cat([means.flatten(), _spread(flat), flat.amax(0)])


def _of_cloud(places_MA: Tensor, content_MC: Tensor) -> Tensor:
    """Of elements with coordinates in [-1, 1], and their content."""
    count, axes = places_MA.shape
    if count == 0:
        return places_MA.new_zeros(BINS * (axes + 2) + 3 * axes + 2 * content_MC.shape[1])
    farthest = axes**0.5
    radii, pairs = places_MA.norm(dim=1), (places_MA - places_MA.roll(count // 2, 0)).norm(dim=1)
    lines = [(axis, -1.0, 1.0) for axis in places_MA.T] + [(radii, 0, farthest), (pairs, 0, 2 * farthest)]
    histograms = [torch.histc(values, BINS, low, high) / count for values, low, high in lines]
    reach = [places_MA.amin(0), places_MA.amax(0), _spread(places_MA)]
    return torch.cat([*histograms, *reach, content_MC.mean(0), _spread(content_MC)])


def _spread(rows: Tensor) -> Tensor:
    """The standard deviation of each column; of one row, and of no columns, too."""
    return (rows - rows.mean(0)).square().mean(0).sqrt()
