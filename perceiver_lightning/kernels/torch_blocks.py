"""The walk over a grid in torch operations, block by block of rows, for every device: see `grid_attention.py`.

Legend of shapes: B batch, R queries (of all heads), K content channels, I rows and J columns of the grid.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from perceiver_lightning.kernels.common import without_autocast

BLOCK_BYTES = {"cpu": 2**20}  # of logits: what a core's cache holds
OTHER_BLOCK_BYTES = 2**26  # on other devices: enough to fill them


def forward(*given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `dispatch.Backend`."""
    sums, row_sums, column_sums, log_sums = by_examples(forward_by_blocks, given)
    return sums, row_sums, column_sums, log_sums


def backward(*given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `dispatch.Backend`."""
    d_queries, d_rows, d_columns, total = by_examples(backward_by_blocks, given)
    return d_queries, d_rows, d_columns, total


def backward_content(*given: Tensor) -> tuple[Tensor, Tensor]:
    """See `dispatch.Backend`."""
    d_content, d_scale = by_examples(backward_content_by_blocks, given)
    return d_content, d_scale


def by_examples(function: Callable[..., Sequence[Tensor]], given: Sequence[Tensor]) -> Sequence[Tensor]:
    """Call a function with as many examples at a time as `block_size` says, and join what it returns.

    Without autocast, which may be on in the backward pass too, and whose logits would not be those of the forward pass.
    """
    examples, _ = block_size(given)
    with without_autocast(given[0].device.type):
        if examples >= len(given[0]):
            return function(*given)
        parts = [function(*part) for part in zip(*(x.split(examples) for x in given), strict=True)]
        return [torch.cat(part) for part in zip(*parts, strict=True)]


def block_size(given: Sequence[Tensor]) -> tuple[int, int]:
    """How many examples and how many rows of the grid are worked on at once."""
    queries, rows, columns, *_ = given
    (batch, count, size_I), size_J = rows.shape, columns.shape[-1]
    logits = BLOCK_BYTES.get(queries.device.type, OTHER_BLOCK_BYTES) // queries.element_size()
    examples = max(1, min(batch, logits // (count * size_I * size_J)))
    return examples, min(size_I, max(1, logits // (examples * count * size_J)))


def forward_by_blocks(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`forward`, of a few examples."""
    _, height = block_size((queries, rows, columns))
    top = torch.full_like(queries[..., :1], torch.finfo(queries.dtype).min)
    total, sums = torch.zeros_like(top), torch.zeros_like(queries)
    row_sums, column_sums = torch.zeros_like(rows), torch.zeros_like(columns)
    for begin in range(0, rows.shape[-1], height):
        block = slice(begin, begin + height)
        c, r = content[:, :, block], scale[:, None, block]
        u = (queries @ c.flatten(2)).unflatten(-1, c.shape[2:])
        u += r * (rows[..., block, None] + columns[:, :, None])
        new = torch.maximum(top, u.amax((-2, -1))[..., None])
        decay, top = (top - new).exp_(), new
        a = u.sub_(top[..., None]).exp_()
        total = total * decay + a.sum((-2, -1))[..., None]
        sums = sums * decay + a.flatten(2) @ c.flatten(2).mT
        a *= r
        row_sums *= decay
        row_sums[..., block] = a.sum(-1)
        column_sums = column_sums * decay + a.sum(-2)
    return sums / total, row_sums / total, column_sums / total, (top + total.log())[..., 0]


def backward_by_blocks(*given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`backward`, of a few examples."""
    queries, rows, columns, content, scale, *_ = given
    d_queries, d_rows, d_columns, total = (torch.zeros_like(x) for x in (queries, rows, columns, queries[..., 0]))
    for block, _, d_logit, _, _ in walk_backward(*given):
        total += d_logit.sum((-2, -1))
        d_queries += d_logit.flatten(2) @ content[:, :, block].flatten(2).mT
        d_logit *= scale[:, None, block]
        d_rows[..., block] = d_logit.sum(-1)
        d_columns += d_logit.sum(-2)
    return d_queries, d_rows, d_columns, total


def backward_content_by_blocks(*given: Tensor) -> tuple[Tensor, Tensor]:
    """`backward_content`, of a few examples."""
    queries, _, _, content, scale, _, _, d_sums, *_ = given
    d_content, d_scale = torch.empty_like(content), torch.empty_like(scale)
    for block, a, d_logit, s, t in walk_backward(*given):
        both = queries.mT @ d_logit.flatten(2) + d_sums.mT @ a.flatten(2)
        d_content[:, :, block] = both.unflatten(-1, s.shape[2:])
        d_scale[:, block] = (d_logit * s + a * t).sum(1)
    return d_content, d_scale


def walk_backward(
    queries: Tensor,
    rows: Tensor,
    columns: Tensor,
    content: Tensor,
    scale: Tensor,
    log_sums: Tensor,
    mean: Tensor,
    d_sums: Tensor,
    d_row_sums: Tensor,
    d_column_sums: Tensor,
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """Block by block of rows: which, the weights, the gradients of the logits, and what rows and columns add, before it
    is scaled, to logits and to g."""
    _, height = block_size((queries, rows, columns))
    for begin in range(0, rows.shape[-1], height):
        block = slice(begin, begin + height)
        flat, r = content[:, :, block].flatten(2), scale[:, None, block]
        s = rows[..., block, None] + columns[:, :, None]
        t = d_row_sums[..., block, None] + d_column_sums[:, :, None]
        a = ((queries @ flat).view_as(s) + r * s).sub_(log_sums[..., None, None]).exp_()
        d_logit = ((d_sums @ flat).view_as(s) + r * t).sub_(mean[..., None, None]).mul_(a)
        yield block, a, d_logit, s, t
