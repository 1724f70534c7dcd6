"""Softmax attention over a grid whose logits are separable: the inner step of `model/separable.py`.

For every query, with a = softmax over all (i, j) of

    logit(i, j) = queries . content(:, i, j) + scale(i, j) * (rows(i) + columns(j))

it returns the sums that are all that attention needs of a grid, and no array has an entry for each logit (but rows or
columns have where the other is a single one: `model/separable.py` cuts such grids into pieces):

    sums         sum_ij a(i, j) content(:, i, j)
    row_sums     sum_j  a(i, j) scale(i, j)
    column_sums  sum_i  a(i, j) scale(i, j)
    log_sums     log sum_ij exp(logit(i, j)), to merge parts that share one softmax

Forward, it walks over blocks of rows with the running maximum and sum of flash attention (arXiv 2205.14135). Backward,
it walks again: with g(i, j) = d_sums . content + scale (d_row_sums(i) + d_column_sums(j)), and mean the sum of gradient
times value over all that was returned, d_logit = a (g - mean + d_log_sums); every gradient is a sum like those above.
Where one element has nearly all the weight its g is nearly the mean, and their difference is lost to rounding. But the
sum of all d_logit is d_log_sums, so what is found beyond it is that rounding, and is taken back.

The same walk runs on several backends: see `dispatch.py`.

Legend of shapes: B batch, R queries (of all heads), K content channels, I rows and J columns of the grid.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from perceiver_lightning.kernels.common import first_order
from perceiver_lightning.kernels.dispatch import backend_for


def grid_attention(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend to a grid, as this module's docstring says, with gradients to all five arguments.

    Args:
        queries: (B, R, K), float32 or float64, as all of them.
        rows: (B, R, I).
        columns: (B, R, J).
        content: (B, K, I, J).
        scale: (B, I, J).

    Returns:
        sums (B, R, K), row_sums (B, R, I), column_sums (B, R, J), log_sums (B, R).

    Raises:
        ValueError: dtypes or shapes do not go together.
        NotImplementedError: for gradients of second order, and (by torch) for forward-mode differentiation.
    """
    if queries.ndim != 3 or queries.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"queries: expected (B, R, K) of float32 or float64, found {tuple(queries.shape)} of {queries.dtype}"
        )
    given = {"queries": queries, "rows": rows, "columns": columns, "content": content, "scale": scale}
    (batch, count, channels), size_I, size_J = queries.shape, rows.shape[-1], columns.shape[-1]
    shapes = (
        (batch, count, channels), (batch, count, size_I), (batch, count, size_J),
        (batch, channels, size_I, size_J), (batch, size_I, size_J),
    )  # fmt: skip
    for (name, x), shape in zip(given.items(), shapes, strict=True):  # a backend reads what these say is there
        if x.shape != shape or x.dtype != queries.dtype:
            raise ValueError(f"{name}: expected {shape} of {queries.dtype}, found {tuple(x.shape)} of {x.dtype}")
    return GridAttention.apply(*given.values())


class GridAttention(torch.autograd.Function):
    """`grid_attention` with its gradients, which are not registered with the operation itself: forward-mode
    differentiation would then find 0 without a word.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Tensor) -> Any:
        """What `grid_attention` returns."""
        return _attend(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the backward pass needs."""
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, d_sums: Tensor, d_row_sums: Tensor, d_column_sums: Tensor, d_log_sums: Tensor) -> Any:
        """The gradients of what was given."""
        *given, sums, row_sums, column_sums, log_sums = ctx.saved_tensors
        results = [sums, row_sums, column_sums]
        d_results = [d_sums, d_row_sums, d_column_sums]
        mean = sum((d * x).sum(-1) for d, x in zip(d_results, results, strict=True)) - d_log_sums
        *gradients, found = first_order(_gradients, *given, log_sums, mean, *d_results)
        excess = found - d_log_sums
        gradients = [x - excess[..., None] * result for x, result in zip(gradients, results, strict=True)]
        if not (ctx.needs_input_grad[3] or ctx.needs_input_grad[4]):
            return *gradients, None, None
        return *gradients, *first_order(_content_gradients, *given, log_sums, mean + excess, *d_results)


@torch.library.custom_op("perceiver::grid_attention", mutates_args=())
def _attend(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return backend_for(queries, rows, columns).forward(queries, rows, columns, content, scale)


@_attend.register_fake
def _empty_results(queries: Tensor, rows: Tensor, columns: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape),
        rows.new_empty(rows.shape),
        columns.new_empty(columns.shape),
        queries.new_empty(queries.shape[:2]),
    )


@torch.library.custom_op("perceiver::grid_attention_backward", mutates_args=())
def _gradients(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of queries, rows and columns, and the sums (B, R) of those of the logits."""
    return backend_for(queries, rows, columns).backward(
        queries, rows, columns, content, scale, log_sums, mean, d_sums, d_row_sums, d_column_sums
    )


_gradients.register_fake(_empty_results)


@torch.library.custom_op("perceiver::grid_attention_backward_content", mutates_args=())
def _content_gradients(
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
) -> tuple[Tensor, Tensor]:
    """The gradients of content and scale."""
    return backend_for(queries, rows, columns).backward_content(
        queries, rows, columns, content, scale, log_sums, mean, d_sums, d_row_sums, d_column_sums
    )


@_content_gradients.register_fake
def _empty_content_gradients(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor]:
    return content.new_empty(content.shape), scale.new_empty(scale.shape)


@register_flop_formula(torch.ops.perceiver.grid_attention)
def _flops(queries: Any, rows: Any, columns: Any, *_: Any, **__: Any) -> int:
    """A logit takes K + 1 multiply-adds, and the sums as many; the axes' terms are products outside."""
    batch, count, channels = queries
    return 2 * 2 * (channels + 1) * batch * count * rows[-1] * columns[-1]


@register_flop_formula(torch.ops.perceiver.grid_attention_backward)
def _backward_flops(*given: Any, **__: Any) -> int:
    """The logits and their gradients, and the sums."""
    return _flops(*given) // 2 * 3


@register_flop_formula(torch.ops.perceiver.grid_attention_backward_content)
def _content_backward_flops(*given: Any, **__: Any) -> int:
    """The logits and their gradients again, and a product of each with the queries or their gradients."""
    return _flops(*given) // 2 * 4
