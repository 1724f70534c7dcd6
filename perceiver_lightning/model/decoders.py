"""Decoders: from the latents to the output.

A query decoder reads the latents with a query array. Queries are a learned array, or what a small module makes of the
positions that are asked for; a new kind of queries is another such module.

Legend of shapes: B batch, N latents, D latent width, Q queries, W their width, A axes, K outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceiver_lightning.model.attention import CrossAttend, Dense
from perceiver_lightning.model.inputs import InputArray, Part
from perceiver_lightning.model.positions import FourierPositions, even_grid


class MeanDecoder(nn.Module):
    """The mean of the latents and one linear layer (Perceiver)."""

    def __init__(self, latent_width: int, num_outputs: int):
        super().__init__()
        self.output = nn.Linear(latent_width, num_outputs)

    def forward(self, latents_BND: Tensor, positions: Tensor | None = None) -> Tensor:
        """Latents (B, N, D) to (B, K)."""
        refuse_positions(positions)
        return self.output(latents_BND.mean(1))


class FourierQueries(nn.Module):
    """Queries that are Fourier features of output positions: for dense outputs, of any size and in any chunks.

    Args:
        resolution: places per axis of the output.
        bands: Fourier bands per axis, up to half of its resolution.
    """

    def __init__(self, resolution: Sequence[int], bands: int):
        super().__init__()
        self.resolution = tuple(resolution)
        self.positions = FourierPositions(self.resolution, bands)
        self.width = self.positions.width

    def forward(self, positions: Tensor | None, device: torch.device) -> Tensor:
        """Queries (Q, W) or (B, Q, W) of positions (Q, A) or (B, Q, A), or (Q, W) of the whole even grid.

        Raises:
            ValueError: the positions have another number of axes.
        """
        if positions is None:
            even = [even_grid(size, device) for size in self.resolution]
            positions = torch.stack(torch.meshgrid(*even, indexing="ij"), -1).flatten(0, -2)
        axes = len(self.resolution)
        if positions.shape[-1] != axes:
            raise ValueError(f"query_positions: expected {axes} axes, found {positions.shape[-1]}")
        return self.positions.elements(positions)


class QueryDecoder(nn.Module):
    """A cross-attend from a query array to the latents and one linear layer (Perceiver IO, section 3.2).

    Args:
        queries: a learned array (Q, W), or what makes one of positions.
        latent_width: D.
        num_outputs: K.
        heads: of the cross-attend, as the next three.
        qk_width: D when not given.
        v_width: as `qk_width` when not given.
        residual: whether the queries are added to what they found.
    """

    def __init__(
        self,
        queries: nn.Parameter | FourierQueries,
        latent_width: int,
        num_outputs: int,
        heads: int = 1,
        qk_width: int | None = None,
        v_width: int | None = None,
        residual: bool = True,
    ):
        super().__init__()
        self.queries = queries
        width = queries.width if isinstance(queries, FourierQueries) else queries.shape[-1]
        self.cross_attend = CrossAttend(width, latent_width, heads, qk_width, v_width, residual=residual)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, latents_BND: Tensor, positions: Tensor | None = None) -> Tensor:
        """Latents (B, N, D), and positions (Q, A) or (B, Q, A) if queries are made of them, to (B, Q, K).

        One learned query gives (B, K), and queries of the whole even grid (B, *resolution, K).
        """
        queries: Tensor
        if isinstance(self.queries, FourierQueries):
            queries = self.queries(positions, latents_BND.device)
        else:
            refuse_positions(positions)
            queries = self.queries
        queries = queries.to(latents_BND.dtype).expand(len(latents_BND), -1, -1)
        out_BQK = self.output(self.cross_attend(queries, Dense(InputArray([Part(latents_BND)]))))
        if not isinstance(self.queries, FourierQueries):
            return out_BQK.squeeze(1)
        return out_BQK.unflatten(1, self.queries.resolution) if positions is None else out_BQK


def refuse_positions(positions: Tensor | None) -> None:
    """ValueError when positions are given to a decoder whose queries are not made of them."""
    if positions is not None:
        raise ValueError(
            f"query_positions: expected none, as the model has no query_resolution, found {tuple(positions.shape)}"
        )
