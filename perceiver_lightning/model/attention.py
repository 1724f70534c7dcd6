"""Attention: the dense meaning of a cross-attend and of a self-attend, and the layers built on it.

Legend of shapes: B batch, H heads, N queries, M elements attended to, D latent width, C width of the input array,
E width of one head.
"""

from typing import Protocol

from torch import Tensor, nn

from perceiver_lightning.kernels.plain_attention import attend
from perceiver_lightning.model.inputs import InputArray


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

    def forward(self, queries_BND: Tensor, inputs_BMC: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the queries (B, N, D) find in the inputs (B, M, C): (B, N, D).

        `mask` is bool, True where a query may see an element: (B, M), or (B, N, M) or (1, N, M), as `attend` has it. A
        query that may see nothing finds zeros, and returns the output's bias.
        """
        q, k, v = self.query(queries_BND), self.key(inputs_BMC), self.value(inputs_BMC)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return self.output(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class Reader(Protocol):
    """A way to attend to an input array: `Dense`, or `separable.Separable`, with the same result."""

    def read(self, queries_BND: Tensor, norm: nn.LayerNorm, attention: Attention) -> Tensor:
        """What the queries (B, N, D) find in the input array, seen through its LayerNorm: (B, N, D)."""


class Dense:
    """Reads the materialised input array, which is made once for all the cross-attends that share it."""

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

    def forward(self, latents_BND: Tensor, mask: Tensor | None = None) -> Tensor:
        """The latents (B, N, D) after reading each other, or of each other what the mask shows: (B, N, D).

        `mask` is bool, True where a latent may see another: (1, N, N) or (B, N, N), or (B, N).
        """
        x = self.norm(latents_BND)
        latents_BND = latents_BND + self.dropout(self.attention(x, x, mask))
        return latents_BND + self.dropout(self.mlp(self.norm_mlp(latents_BND)))
