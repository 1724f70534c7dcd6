"""The input array, kept in parts: what every cross-attend reads.

Each modality gives one part: its content, the features of its positions, its modality vector, its mask. Dense
attention materialises the parts as one array (B, M, C); an attention that knows grids can read the parts themselves.

Legend of shapes: B batch, M elements, A axes, I places along one axis, C channels, P features of one axis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from perceiver_lightning.model.checks import at_least_one, check_modalities, check_names, one_of
from perceiver_lightning.model.embeddings import TokenEmbedding
from perceiver_lightning.model.positions import (
    FourierPositions,
    LearnedAxisPositions,
    LearnedPositions,
    along_axis,
    even_grid,
)

Positions = Literal["fourier", "learned", "learned_axes"]
Encoding = FourierPositions | LearnedAxisPositions | LearnedPositions


@dataclass(frozen=True)
class Part:
    """One modality's part of the input array; element by element it is [content, positions, modality vector].

    content     (B, *grid, C), or (B, M, C) for free coordinates
    tables      one (I, P) or (B, I, P) for each axis of the grid: positions that are separable
    features    (*elements, P) or (B, *elements, P): positions that are not
    modality    (V,), the learned vector that tells modalities apart
    mask        bool (B, *grid) or (B, M), True where there is an element
    """

    content: Tensor
    tables: Sequence[Tensor] = ()
    features: Tensor | None = None
    modality: Tensor | None = None
    mask: Tensor | None = None

    @property
    def width(self) -> int:
        """Channels of the part: content, positions and modality vector."""
        beside = (*self.tables, self.features, self.modality)
        return self.content.shape[-1] + sum(x.shape[-1] for x in beside if x is not None)

    def materialised(self) -> Tensor:
        """The part as one array (B, M, C)."""
        batch, *elements, _ = self.content.shape
        beside = [along_axis(table, axis, len(elements)) for axis, table in enumerate(self.tables)]
        beside += [x for x in (self.features, self.modality) if x is not None]
        spread = [x.to(self.content.dtype).expand(batch, *elements, x.shape[-1]) for x in beside]
        return torch.cat([self.content, *spread], -1).flatten(1, -2)


@dataclass(frozen=True)
class InputArray:
    """The whole input array: the parts of all modalities, one behind the other."""

    parts: Sequence[Part]

    @property
    def array(self) -> Tensor:
        """All elements, materialised, (B, M, C)."""
        return torch.cat([part.materialised() for part in self.parts], 1)

    @property
    def mask(self) -> Tensor | None:
        """Bool (B, M), True where there is an element; None when all are there."""
        if all(part.mask is None for part in self.parts):
            return None
        everywhere = (torch.ones(p.content.shape[:-1], dtype=torch.bool, device=p.content.device) for p in self.parts)
        masks = (there if p.mask is None else p.mask for p, there in zip(self.parts, everywhere, strict=True))
        return torch.cat([mask.flatten(1) for mask in masks], 1)


class Inputs(nn.Module):
    """Builds the input array from a batch's `inputs`.

    One modality alone is [content, positions]. Of several, each is padded to the common width, the widest plus 4, by a
    learned modality vector (Perceiver, section 4.2 and appendix). Tokens are embedded first.

    Args:
        modalities: `{name: {"channels": C, "resolution": [places per axis]}}`, the data's facts; of integer tokens
            `"vocabulary": V` in the place of the channels.
        positions: Fourier features, one learned vector per element, or one per place of each axis.
        bands: Fourier bands per axis.
        highest_frequency: of the Fourier bands, for all axes; half of each axis' resolution when not given.
        position_width: width of a learned position.
        token_width: width of a token's learned vector, in modalities of tokens.

    Raises:
        ValueError: when an argument cannot be; the sentence names it.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        positions: Positions = "fourier",
        bands: int = 64,
        highest_frequency: float | None = None,
        position_width: int = 128,
        token_width: int = 64,
    ):
        super().__init__()
        check_modalities(modalities)
        one_of("positions", positions, get_args(Positions))
        at_least_one("token_width", token_width)
        vocabularies = {name: int(facts["vocabulary"]) for name, facts in modalities.items() if "vocabulary" in facts}
        self.channels = {name: int(facts.get("channels", token_width)) for name, facts in modalities.items()}
        self.axes = {name: len(facts["resolution"]) for name, facts in modalities.items()}
        makers: dict[Positions, Callable[[Sequence[int]], Encoding]] = {
            "fourier": lambda resolution: FourierPositions(resolution, bands, highest_frequency),
            "learned": lambda resolution: LearnedPositions(resolution, position_width),
            "learned_axes": lambda resolution: LearnedAxisPositions(resolution, position_width),
        }
        encodings = {name: makers[positions](facts["resolution"]) for name, facts in modalities.items()}
        widths = {name: channels + encodings[name].width for name, channels in self.channels.items()}
        self.positions = nn.ModuleDict(encodings)
        self.width: int = max(widths.values()) + (4 if len(widths) > 1 else 0)
        self.modality_vectors = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(self.width - width)) for name, width in widths.items() if len(widths) > 1}
        )
        self.embeddings = nn.ModuleDict(
            {name: TokenEmbedding(vocabulary, token_width) for name, vocabulary in vocabularies.items()}
        )

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> InputArray:
        """The input array of `{modality: {"content", "positions"?, "mask"?}}`; absent modalities are left out.

        Raises:
            ValueError: when a modality is unknown, none is there, or its shapes are not what the model was built for.
        """
        check_names(inputs, list(self.channels))
        return InputArray([self._part(name, inputs[name]) for name in self.channels if name in inputs])

    def _part(self, name: str, given: Mapping[str, Any]) -> Part:
        self._check(name, given)
        content, places = given["content"], given.get("positions")
        if (mask := given.get("mask")) is not None:
            content, places = zeros_where_masked(content, places, mask)
        encode = cast(Encoding, self.positions[name])
        if name in self.embeddings:
            content = self.embeddings[name](content)
        sizes, device = content.shape[1:-1], content.device
        tables: Sequence[Tensor] = ()
        features = None
        if isinstance(places, Tensor):
            features = encode.elements(places)
        elif isinstance(encode, LearnedPositions):
            features = encode.grid(places or [even_grid(size, device) for size in sizes])
        elif places:
            tables = [encode.axis(axis, along) for axis, along in enumerate(places)]
        else:
            tables = [encode.even_axis(axis, size, device) for axis, size in enumerate(sizes)]
        modality = self.modality_vectors[name] if len(self.channels) > 1 else None
        return Part(content, tables, features, modality, mask)

    def _check(self, name: str, given: Mapping[str, Any]) -> None:
        """Raise a ValueError that names what of a modality is not what the model was built for."""
        content, places, mask = given["content"], given.get("positions"), given.get("mask")
        axes, free, tokens = self.axes[name], isinstance(places, Tensor), name in self.embeddings
        key, found = f"inputs[{name!r}]", tuple(content.shape)
        if tokens != (content.dtype == torch.int64) or not (tokens or content.is_floating_point()):
            expected = "tokens of torch.int64" if tokens else "floating point numbers"
            raise ValueError(f"{key}['content']: expected {expected}, found {content.dtype}")
        elements = ["M"] if free else [f"I{axis}" for axis in range(axes)]
        last = [] if tokens else [str(self.channels[name])]
        if content.ndim != 1 + len(elements) + len(last) or (last and content.shape[-1] != self.channels[name]):
            raise ValueError(f"{key}['content']: expected shape ({', '.join(['B', *elements, *last])}), found {found}")
        sizes = found[1 : 1 + len(elements)]
        if places is not None and (places.shape[-1] if free else len(places)) != axes:
            raise ValueError(
                f"{key}['positions']: expected {axes} axes, found {places.shape[-1] if free else len(places)}"
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != (found[0], *sizes)):
            raise ValueError(
                f"{key}['mask']: expected shape {(found[0], *sizes)} and torch.bool, found {tuple(mask.shape)} and "
                f"{mask.dtype}"
            )
        if 0 in sizes:
            raise ValueError(
                f"{key}['content']: expected at least one element (a modality may be left out, and a mask hides it "
                f"from single examples), found shape {found}"
            )
        counts = [places.shape[-2]] if isinstance(places, Tensor) else [along.shape[-1] for along in places or []]
        if places is not None and counts != list(sizes):
            raise ValueError(f"{key}['positions']: expected {list(sizes)} elements, found {counts}")


def zeros_where_masked(
    content: Tensor, places: Tensor | Sequence[Tensor] | None, mask: Tensor
) -> tuple[Tensor, Tensor | Sequence[Tensor] | None]:
    """Content and positions with zeros where no element is.

    What lies there may be anything, as NaN or a token of padding: a weight of 0 times NaN would be NaN.

    Args:
        content: (B, *grid, C), (B, M, C), or tokens (B, M).
        places: None, coordinates (M, A) or (B, M, A), or one (I,) or (B, I) for each axis.
        mask: bool (B, *grid) or (B, M), True where an element is.
    """
    content = content.masked_fill(~mask.view(*mask.shape, *[1] * (content.ndim - mask.ndim)), 0)
    if isinstance(places, Tensor):
        there = mask if places.ndim == 3 else mask.any(0)
        return content, places.masked_fill(~there[..., None], 0)
    if places is None:
        return content, None
    cleared = []
    for axis, along in enumerate(places):
        there = mask.transpose(1, 1 + axis).flatten(2).any(2) if mask.ndim > 2 else mask
        cleared.append(along.masked_fill(~(there if along.ndim == 2 else there.any(0)), 0))
    return content, cleared
