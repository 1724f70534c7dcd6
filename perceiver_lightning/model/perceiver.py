"""The Perceiver: a latent array reads the input array by cross-attends, and is worked on by self-attends in between.

    inputs      {modality: content, positions, mask}  ->  input array (B, M, C)            inputs.py, positions.py
    encode      latents (N, D), learned; each block: cross-attends to the input array, then a stack of self-attends
    decode      the mean of the latents and one linear layer (Perceiver), or a cross-attend to the latents from queries,
                learned or made of positions (Perceiver IO)

The cost is linear in M, and depth costs N x N: that is the whole idea.

Papers: Perceiver (arXiv 2103.03206), Perceiver IO (arXiv 2107.14795). Defaults are Perceiver's ImageNet model.

Legend of shapes: B batch, N latents, D latent width, Q queries, A axes, K outputs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perceiver_lightning.kernels.costs import is_cheaper
from perceiver_lightning.model.attention import CrossAttend, Dense, Reader, SelfAttend
from perceiver_lightning.model.decoders import MeanDecoder, QueryDecoder
from perceiver_lightning.model.inputs import InputArray, Inputs, Positions
from perceiver_lightning.model.separable import Separable

Attention = Literal["auto", "dense", "separable"]


class Perceiver(nn.Module):
    """A Perceiver or Perceiver IO for any modalities.

    Args:
        modalities: `{name: {"channels": C, "resolution": [places per axis]}}`, the data's facts.
        num_outputs: width of the output: classes, for a classifier.
        num_latents: N, rows of the latent array.
        latent_width: D, its width.
        cross_attends: how many cross-attends stand before each block's stack of self-attends, one entry a block:
            `[1] * 8` interleaves eight, `[1] + [0] * 7` has one at the start, `[8] + [0] * 7` all eight there.
        self_attends: self-attends in one block's stack.
        sharing: of weights. "paper": the first cross-attend on its own, all others share one set, all stacks share one
            set (section 3.1); "none"; "all": one cross-attend and one stack for all.
        attention: how cross-attends read the input array, with the same result and the same weights. "dense": laid out;
            "separable": positions of grids are not laid out (`separable.py`); "auto": whichever costs less.
        cross_heads: heads of the cross-attends.
        cross_qk_width: of their queries and keys, over all heads; the input array's width when not given.
        cross_v_width: of their values, over all heads; as `cross_qk_width` when not given.
        self_heads: heads of the self-attends.
        self_qk_width: of their queries and keys; D when not given.
        self_v_width: of their values; as `self_qk_width` when not given.
        widening: hidden width of the MLPs over D.
        dropout: on what attention and MLPs add to their residual streams.
        positions: "fourier" features, "learned" vectors per element, or "learned_axes" per place of each axis.
        bands: Fourier bands per axis.
        highest_frequency: of the bands, for all axes; half of each axis' resolution when not given.
        position_width: width of learned positions.
        decoder: "mean" over the latents and one linear layer, or "query".
        num_queries: learned queries of a query decoder; a single one gives (B, K).
        query_resolution: places per axis of the output; then queries are Fourier features of output positions.
        query_residual: whether the query decoder adds the queries to what they found.
        decoder_heads: heads of the decoder's cross-attend.
        decoder_qk_width: its queries' and keys' width; D when not given.
        decoder_v_width: its values' width; as `decoder_qk_width` when not given.

    Raises:
        ValueError: when an argument cannot be; the sentence names it.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        num_outputs: int,
        *,
        num_latents: int = 512,
        latent_width: int = 1024,
        cross_attends: Sequence[int] = (1, 1, 1, 1, 1, 1, 1, 1),
        self_attends: int = 6,
        sharing: Literal["paper", "none", "all"] = "paper",
        attention: Attention = "auto",
        cross_heads: int = 1,
        cross_qk_width: int | None = None,
        cross_v_width: int | None = None,
        self_heads: int = 8,
        self_qk_width: int | None = None,
        self_v_width: int | None = None,
        widening: int = 1,
        dropout: float = 0.0,
        positions: Positions = "fourier",
        bands: int = 64,
        highest_frequency: float | None = None,
        position_width: int = 128,
        decoder: Literal["mean", "query"] = "mean",
        num_queries: int = 1,
        query_resolution: Sequence[int] | None = None,
        query_residual: bool = True,
        decoder_heads: int = 1,
        decoder_qk_width: int | None = None,
        decoder_v_width: int | None = None,
    ):
        super().__init__()
        at_least_one = {
            "num_outputs": num_outputs, "num_latents": num_latents, "latent_width": latent_width,
            "cross_heads": cross_heads, "self_heads": self_heads, "decoder_heads": decoder_heads,
            "bands": bands, "position_width": position_width, "widening": widening, "num_queries": num_queries,
        }  # fmt: skip
        if_given = {
            "cross_qk_width": cross_qk_width, "cross_v_width": cross_v_width, "self_qk_width": self_qk_width,
            "self_v_width": self_v_width, "decoder_qk_width": decoder_qk_width, "decoder_v_width": decoder_v_width,
        }  # fmt: skip
        at_least_one |= {name: value for name, value in if_given.items() if value is not None}
        for name, value in at_least_one.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: expected 1 or more")
        if highest_frequency is not None and not highest_frequency > 0:
            raise ValueError(f"highest_frequency is {highest_frequency}: expected more than 0")
        if query_resolution is not None and (not query_resolution or min(query_resolution) < 1):
            raise ValueError(
                f"query_resolution is {list(query_resolution)}: expected one number, 1 or more, for each axis"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: expected 0 or more and below 1")
        if self_attends < 0 or min(cross_attends, default=0) < 0 or not sum(cross_attends):
            raise ValueError(
                f"cross_attends is {list(cross_attends)} and self_attends is {self_attends}: expected one number, 0 or "
                "more, for each block, with one cross-attend at the least, and 0 or more self-attends"
            )
        if cross_attends[0] == 0:
            raise ValueError(
                f"cross_attends is {list(cross_attends)}: expected the first block to begin with one or more"
            )
        if sharing not in ("paper", "none", "all"):
            raise ValueError(f"sharing is {sharing!r}: expected paper, none or all")
        if decoder not in ("mean", "query"):
            raise ValueError(f"decoder is {decoder!r}: expected mean or query")

        self.attention = attention
        self.inputs = Inputs(modalities, positions, bands, highest_frequency, position_width)
        self.latents = nn.Parameter(torch.empty(num_latents, latent_width))
        for kind, heads, qk_width, v_width, default in (
            ("cross", cross_heads, cross_qk_width, cross_v_width, self.inputs.width),
            ("self", self_heads, self_qk_width, self_v_width, latent_width),
            ("decoder", decoder_heads, decoder_qk_width, decoder_v_width, latent_width),
        ):
            for name, width in {"qk": qk_width or default, "v": v_width or qk_width or default}.items():
                if width % heads:
                    otherwise = "the input array's width" if kind == "cross" else "latent_width"
                    raise ValueError(
                        f"{kind}_heads is {heads}: expected a divisor of {width}, which is {kind}_{name}_width or, "
                        f"when not given, {otherwise}"
                    )

        # Which of the sets of weights each cross-attend and each stack takes, in the order of the computation.
        blocks, crosses = len(cross_attends), sum(cross_attends)
        set_of_cross = {"paper": lambda i: min(i, 1), "none": lambda i: i, "all": lambda i: 0}[sharing]
        self.order: list[tuple[list[int], int]] = []
        seen = 0
        for block, count in enumerate(cross_attends):
            self.order.append(([set_of_cross(seen + i) for i in range(count)], block if sharing == "none" else 0))
            seen += count
        self.cross_attends = nn.ModuleList(
            CrossAttend(latent_width, self.inputs.width, cross_heads, cross_qk_width, cross_v_width, widening, dropout)
            for _ in range(set_of_cross(crosses - 1) + 1)
        )
        self.stacks = nn.ModuleList(
            nn.Sequential(
                *(
                    SelfAttend(latent_width, self_heads, self_qk_width, self_v_width, widening, dropout)
                    for _ in range(self_attends)
                )
            )
            for _ in range(blocks if sharing == "none" else 1)
        )
        self.decoder: MeanDecoder | QueryDecoder
        if decoder == "mean":
            self.decoder = MeanDecoder(latent_width, num_outputs)
        else:
            self.decoder = QueryDecoder(
                latent_width, num_outputs, num_queries, query_resolution, bands,
                decoder_heads, decoder_qk_width, decoder_v_width, query_residual,
            )  # fmt: skip
        self.apply(initialise)

    @property
    def attention(self) -> Attention:
        """How the cross-attends read the input array; it may be set at any time."""
        return self._attention

    @attention.setter
    def attention(self, attention: Attention) -> None:
        if attention not in ("auto", "dense", "separable"):
            raise ValueError(f"attention is {attention!r}: expected auto, dense or separable")
        self._attention: Attention = attention

    def encode(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """The latents (B, N, D) after reading `{modality: {"content", "positions"?, "mask"?}}`."""
        array = self.input_array(inputs)
        reader: Reader = Separable(array) if self.is_separable(array) else Dense(array)
        batch = array.parts[0].content.shape[0]
        latents_BND = self.latents.expand(batch, -1, -1)
        for crosses, stack in self.order:
            for cross in crosses:
                latents_BND = self.cross_attends[cross](latents_BND, reader)
            latents_BND = self.stacks[stack](latents_BND)
        return latents_BND

    def input_array(self, inputs: Mapping[str, Mapping[str, Any]]) -> InputArray:
        """The input array of a batch's inputs, whose content is brought to the model's dtype."""
        in_dtype = {}
        for name, given in inputs.items():
            content = given["content"]
            content = content.to(self.latents.dtype) if content.is_floating_point() else content
            in_dtype[name] = {**given, "content": content}
        return self.inputs(in_dtype)

    def is_separable(self, array: InputArray) -> bool:
        """Whether the cross-attends read this input array by separable attention."""
        if self.attention == "auto":
            one: Any = self.cross_attends[0]
            heads, qk_width, v_width = (
                one.attention.heads,
                one.attention.key.out_features,
                one.attention.value.out_features,
            )
            return is_cheaper(array, len(self.latents), heads, qk_width, v_width)
        return self.attention == "separable"

    def forward(self, inputs: Mapping[str, Mapping[str, Any]], query_positions: Tensor | None = None) -> Tensor:
        """From `{modality: {"content", "positions"?, "mask"?}}` to the output.

        Args:
            inputs: of each modality the content (B, *grid, C) or (B, M, C); its positions: absent for the even grid,
                one (I,) or (B, I) per axis, or coordinates (M, A) or (B, M, A); its bool mask, True = there.
            query_positions: (Q, A) or (B, Q, A), for a decoder with position queries; the whole even grid when absent.

        Returns:
            (B, K) from the mean or one learned query, (B, Q, K) from several or from query positions, and
            (B, *query_resolution, K) from the whole grid.
        """
        latents_BND = self.encode(inputs)
        if query_positions is None:
            return self.decoder(latents_BND)
        if isinstance(self.decoder, MeanDecoder) or self.decoder.resolution is None:
            raise ValueError("query_positions were given to a decoder without: expected None, or a query_resolution")
        if query_positions.shape[-1] != len(self.decoder.resolution):
            raise ValueError(
                f"query_positions have {query_positions.shape[-1]} axes: expected {len(self.decoder.resolution)}"
            )
        return self.decoder(latents_BND, query_positions)


def initialise(module: nn.Module) -> None:
    """Every initialisation: what the papers say, and where they are silent, what DeepMind's code does.

    Arrays that are learned as such (latents, queries, positions, modality vectors): truncated normal, standard
    deviation 0.02, cut at two of them. Linear layers: truncated normal of variance 1 / fan-in (Haiku's
    `VarianceScaling`: the draw is widened so that the variance after the cut is the one named), biases zero.
    LayerNorms: one and zero.
    """

    def cut_normal(x: Tensor, std: float) -> None:
        nn.init.trunc_normal_(x, std=std, a=-2 * std, b=2 * std)

    if isinstance(module, nn.Linear):
        after_cut = 0.87962566103423978  # standard deviation of a unit normal cut at 2
        cut_normal(module.weight, 1 / math.sqrt(module.in_features) / after_cut)
        nn.init.zeros_(module.bias)
    elif not isinstance(module, nn.LayerNorm):
        for array in module.parameters(recurse=False):
            cut_normal(array, 0.02)
