"""Decoders: from the latents to the output.

Legend of shapes: B batch, N latents, D latent width, Q queries, A axes, K outputs.
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

    def forward(self, latents_BND: Tensor) -> Tensor:
        """Latents (B, N, D) to (B, K)."""
        return self.output(latents_BND.mean(1))


class QueryDecoder(nn.Module):
    """A cross-attend from a query array to the latents and one linear layer (Perceiver IO, section 3.2).

    Queries are learned, or Fourier features of output positions when `resolution` is given.
    """

    def __init__(
        self,
        latent_width: int,
        num_outputs: int,
        num_queries: int,
        resolution: Sequence[int] | None,
        bands: int,
        heads: int,
        qk_width: int | None,
        v_width: int | None,
        residual: bool,
    ):
        super().__init__()
        self.resolution = None if resolution is None else tuple(resolution)
        if self.resolution is None:
            self.queries = nn.Parameter(torch.empty(num_queries, latent_width))
            width = latent_width
        else:
            self.positions = FourierPositions(self.resolution, bands)
            width = self.positions.width
        self.cross_attend = CrossAttend(width, latent_width, heads, qk_width, v_width, residual=residual)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, latents_BND: Tensor, positions: Tensor | None = None) -> Tensor:
        """Latents (B, N, D), and positions (Q, A) or (B, Q, A) if queries are made of them, to (B, Q, K)."""
        batch = latents_BND.shape[0]
        queries: Tensor
        if self.resolution is None:
            queries = self.queries
        else:
            places = positions
            if places is None:
                even = [even_grid(size, latents_BND.device) for size in self.resolution]
                places = torch.stack(torch.meshgrid(*even, indexing="ij"), -1).flatten(0, -2)
            queries = self.positions.elements(places)
        queries = queries.to(latents_BND.dtype).expand(batch, -1, -1)
        out_BQK = self.output(self.cross_attend(queries, Dense(InputArray([Part(latents_BND)]))))
        if self.resolution is not None and positions is None:
            return out_BQK.unflatten(1, self.resolution)
        return out_BQK.squeeze(1) if self.resolution is None else out_BQK
