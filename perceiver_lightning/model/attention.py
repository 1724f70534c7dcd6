"""Attention: the dense meaning of a cross-attend and of a self-attend, and the layers built on it.

Legend of shapes: B batch, H heads, N queries, M elements attended to, D latent width, C width of the input array,
E width of one head.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inputs import InputArray

# Up to so many logits of a batch a CPU trains faster without its fused kernel: by a tenth in float32, where they fit
# into its cache, and by a third to two thirds in bfloat16. The weights are kept for the backward pass.
PLAIN_LOGITS = {torch.float32: 2**21, torch.bfloat16: 2**24}


def attend(queries_BHNE: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask_BM: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(E)) v: (B, H, N, E of the values), through the fused kernels wherever they are faster.

    Args:
        mask_BM: bool, True where there is an element to attend to. A row of all False gives zeros.
    """
    scale, value_width = queries_BHNE.shape[-1] ** -0.5, values_BHME.shape[-1]
    queries_BHNE, keys_BHME, values_BHME = map(to_multiple_of_8, (queries_BHNE, keys_BHME, values_BHME))
    mask_B11M = None
    if mask_BM is not None:  # a row with nothing there attends to everything, and is set to zero afterwards
        anything_B = mask_BM.any(-1)
        mask_B11M = (mask_BM | ~anything_B[:, None])[:, None, None]
    num_logits = queries_BHNE.shape[:-1].numel() * keys_BHME.shape[2]
    if kind_of_device(queries_BHNE) == "cpu" and num_logits <= PLAIN_LOGITS.get(queries_BHNE.dtype, 0):
        out, _ = PlainAttention.apply(queries_BHNE, keys_BHME, values_BHME, mask_B11M, scale)
    else:
        mask_B1NM = None if mask_B11M is None else mask_B11M.expand(-1, 1, queries_BHNE.shape[2], -1)
        out = F.scaled_dot_product_attention(queries_BHNE, keys_BHME, values_BHME, mask_B1NM, scale=scale)
    out = out[..., :value_width]
    return out if mask_BM is None else out * anything_B[:, None, None, None]


class PlainAttention(torch.autograd.Function):
    """What `scaled_dot_product_attention` gives, by products of matrices and a softmax, and the weights.

    As exact as the fused kernel: logits and their softmax are reckoned in float32. Kept for the backward pass are the
    weights in the dtype of the values; autograd by itself would keep those in float32 as well.
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


def first_order(function: Callable[..., Any], *given: Any) -> Any:
    """What a function gives that reckons gradients and has none itself: asking for them is refused in words.

    Under torch.compile torch refuses by itself, and cannot trace one Function within another.
    """
    return function(*given) if torch.compiler.is_compiling() else FirstOrder.apply(function, *given)


class FirstOrder(torch.autograd.Function):
    """See `first_order`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., Any], *given: Any) -> Any:
        """What the function gives."""
        return function(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Refused."""
        raise NotImplementedError("attention has no second-order gradients: expected a first-order backward pass")


def kind_of_device(x: Tensor) -> str:
    """Such as "cpu" or "cuda"; what has no values (the meta device) is meant for this machine's best device."""
    if x.device.type != "meta":
        return x.device.type
    best = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if best is None else best.type


def without_autocast(device: str) -> AbstractContextManager:
    """No autocast, on devices that know it (the meta device does not)."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def to_multiple_of_8(x: Tensor) -> Tensor:
    """Fills the last axis up with zeros, which change no logit and no sum.

    GPUs' fused kernels refuse widths such as 261, and CPUs are a quarter faster on 264, filling up included.
    """
    missing = -x.shape[-1] % 8
    return F.pad(x, (0, missing)) if missing else x


class Attention(nn.Module):
    """Multi-head attention: projections to queries, keys and values, and back; biases everywhere.

    Args:
        query_width: of what asks, and of the result.
        input_width: of what is attended to.
        heads: number of heads; they divide `qk_width` and `v_width`.
        qk_width: of queries and keys over all heads.
        v_width: of the values over all heads.
    """

    def __init__(self, query_width: int, input_width: int, heads: int, qk_width: int, v_width: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_width, qk_width)
        self.key = nn.Linear(input_width, qk_width)
        self.value = nn.Linear(input_width, v_width)
        self.output = nn.Linear(v_width, query_width)

    def forward(self, queries_BND: Tensor, inputs_BMC: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """What the queries (B, N, D) find in the inputs (B, M, C): (B, N, D)."""
        q, k, v = self.query(queries_BND), self.key(inputs_BMC), self.value(inputs_BMC)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return self.output(attend(q, k, v, mask_BM).transpose(1, 2).flatten(2))


class Reader(Protocol):
    """A way to attend to an input array: `Dense`, or `separable.Separable`, with the same result."""

    def read(self, queries_BND: Tensor, norm: nn.LayerNorm, attention: Attention) -> Tensor:
        """What the queries (B, N, D) find in the input array, seen through its LayerNorm: (B, N, D)."""


class Dense:
    """Reads the input array laid out, which is done once for all the cross-attends that share it."""

    def __init__(self, inputs: InputArray) -> None:
        self.array_BMC, self.mask_BM = inputs.array, inputs.mask

    def read(self, queries_BND: Tensor, norm: nn.LayerNorm, attention: Attention) -> Tensor:
        """What the queries (B, N, D) find in the input array, seen through its LayerNorm: (B, N, D)."""
        return attention(queries_BND, norm(self.array_BMC), self.mask_BM)


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them; `widening` is the hidden width over the outer one."""

    def __init__(self, width: int, widening: int):
        super().__init__(nn.Linear(width, width * widening), nn.GELU(), nn.Linear(width * widening, width))


class CrossAttend(nn.Module):
    """Queries read the input array, then an MLP: pre-LayerNorm on both sides, residual around each half.

    Args:
        residual: whether the queries are added to what they found (Perceiver IO's decoders may leave that out).
        The others are those of `Attention` and `MLP`; `qk_width` is the input's width when not given, and `v_width`
        is `qk_width` (Perceiver, appendix: qk = v = 261 for ImageNet).
    """

    def __init__(
        self,
        query_width: int,
        input_width: int,
        heads: int = 1,
        qk_width: int | None = None,
        v_width: int | None = None,
        widening: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
    ):
        super().__init__()
        qk_width = qk_width or input_width
        self.norm_queries = nn.LayerNorm(query_width)
        self.norm_inputs = nn.LayerNorm(input_width)
        self.attention = Attention(query_width, input_width, heads, qk_width, v_width or qk_width)
        self.norm_mlp = nn.LayerNorm(query_width)
        self.mlp = MLP(query_width, widening)
        self.dropout = nn.Dropout(dropout)
        self.residual = residual

    def forward(self, queries_BND: Tensor, inputs: Reader) -> Tensor:
        """The queries (B, N, D) after reading the input array: (B, N, D)."""
        found = inputs.read(self.norm_queries(queries_BND), self.norm_inputs, self.attention)
        x = self.dropout(found) + queries_BND if self.residual else self.dropout(found)
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class SelfAttend(nn.Module):
    """One layer of the latent transformer: self-attention and an MLP, each pre-LayerNorm with a residual.

    Args: as those of `CrossAttend`, all on one width.
    """

    def __init__(
        self,
        width: int,
        heads: int = 8,
        qk_width: int | None = None,
        v_width: int | None = None,
        widening: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        qk_width = qk_width or width
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, heads, qk_width, v_width or qk_width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width, widening)
        self.dropout = nn.Dropout(dropout)

    def forward(self, latents_BND: Tensor) -> Tensor:
        """The latents (B, N, D) after reading each other: (B, N, D)."""
        x = self.norm(latents_BND)
        latents_BND = latents_BND + self.dropout(self.attention(x, x))
        return latents_BND + self.dropout(self.mlp(self.norm_mlp(latents_BND)))
