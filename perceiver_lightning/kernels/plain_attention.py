"""Dense attention: torch's fused kernels, and products of matrices with a softmax where those are faster.

Legend of shapes: B batch, H heads, N queries, M elements attended to, E width of one head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver_lightning.kernels.common import first_order, kind_of_device, without_autocast

# Up to so many logits of a batch a CPU trains faster without its fused kernel: by a tenth in float32, where they fit
# into its cache, and by a third to two thirds in bfloat16. The weights are kept for the backward pass.
PLAIN_LOGITS = {torch.float32: 2**21, torch.bfloat16: 2**24}


def attend(queries_BHNE: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(E)) v: (B, H, N, E of the values), through the fused kernels wherever they are faster.

    Args:
        mask: bool, True where a query may see an element; the same for all heads. (B, M): the same for all queries, as
            of elements that are padding. (B, N, M), or (1, N, M) for the whole batch: for each query, as a causal one.
            A query that may see nothing gives zeros. Two axes are always (B, M), also where B and N are equal.

    Raises:
        ValueError: the mask has another shape or dtype.
    """
    scale, value_width = queries_BHNE.shape[-1] ** -0.5, values_BHME.shape[-1]
    queries_BHNE, keys_BHME, values_BHME = map(to_multiple_of_8, (queries_BHNE, keys_BHME, values_BHME))
    mask_B1NM, anything_B1N1 = None, None
    if mask is not None:  # a query that may see nothing attends to everything, and is set to zero afterwards
        mask_B1NM = for_each_query(mask, queries_BHNE, keys_BHME)
        anything_B1N1 = mask_B1NM.any(-1, keepdim=True)
        mask_B1NM = mask_B1NM | ~anything_B1N1
    num_logits = queries_BHNE.shape[:-1].numel() * keys_BHME.shape[2]
    if kind_of_device(queries_BHNE) == "cpu" and num_logits <= PLAIN_LOGITS.get(queries_BHNE.dtype, 0):
        out, _ = PlainAttention.apply(queries_BHNE, keys_BHME, values_BHME, mask_B1NM, scale)
    else:
        if mask_B1NM is not None:
            mask_B1NM = mask_B1NM.expand(len(queries_BHNE), 1, queries_BHNE.shape[2], -1)
        out = F.scaled_dot_product_attention(queries_BHNE, keys_BHME, values_BHME, mask_B1NM, scale=scale)
    out = out[..., :value_width]
    return out if anything_B1N1 is None else out * anything_B1N1


def for_each_query(mask: Tensor, queries_BHNE: Tensor, keys_BHME: Tensor) -> Tensor:
    """A mask as `attend` takes it, with four axes: (B or 1, 1, N or 1, M)."""
    (batch, _, count, _), elements = queries_BHNE.shape, keys_BHME.shape[2]
    if mask.dtype != torch.bool or mask.shape not in (
        (batch, elements), (batch, count, elements), (1, count, elements),
    ):  # fmt: skip
        raise ValueError(
            f"mask: expected ({batch}, {elements}), ({batch}, {count}, {elements}) or (1, {count}, {elements}) of "
            f"torch.bool, found {tuple(mask.shape)} of {mask.dtype}"
        )
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]


class PlainAttention(torch.autograd.Function):
    """What `scaled_dot_product_attention` gives, by products of matrices and a softmax, and the weights.

    As exact as the fused kernel: logits and their softmax are computed in float32. Saves the attention weights, in the
    values' dtype, for the backward pass; autograd by itself would save those in float32 as well.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Any:
        """The result (B, H, N, E of the values) and the weights (B, H, N, M), through which no gradient goes."""
        with without_autocast(queries.device.type):
            logits = (queries.float() * scale) @ keys.float().mT
            if mask is not None:
                logits = logits.masked_fill(~mask, -torch.inf)
            weights = logits.softmax(-1).to(values.dtype)
            return weights @ values, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the backward pass needs."""
        queries, keys, values, _, ctx.scale = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(queries, keys, values, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Any:
        """Gradients of the queries, keys and values, in their dtype."""
        return *first_order(gradients_of_plain_attention, gradient, *ctx.saved_tensors, ctx.scale), None, None


def gradients_of_plain_attention(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, weights: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values from that of the result, in their dtype."""
    with without_autocast(queries.device.type):
        of_weights = gradient @ values.mT
        of_logits = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        return (of_logits @ keys) * scale, (of_logits.mT @ queries) * scale, weights.mT @ gradient


def to_multiple_of_8(x: Tensor) -> Tensor:
    """Pad the last axis with zeros, which change no logit and no sum.

    GPUs' fused kernels refuse widths such as 261, and CPUs are a quarter faster on 264, padding included.
    """
    missing = -x.shape[-1] % 8
    return F.pad(x, (0, missing)) if missing else x
