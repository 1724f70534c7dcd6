"""The input array, kept in parts: what every cross-attend reads.

Each modality gives one part: its content, the features of its positions, its modality vector, its mask. Dense
attention lays the parts out as one array (B, M, C); an attention that knows grids can read the parts as they are.

Legend of shapes: B batch, M elements, A axes, I places along one axis, C channels, P features of one axis.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from perceiver_lightning.model.positions import (
    FourierPositions,
    LearnedAxisPositions,
    LearnedPositions,
    along_axis,
    even_grid,
)

Positions = Literal["fourier", "learned", "learned_axes"]


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

    def laid_out(self) -> Tensor:
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
        """All elements laid out, (B, M, C)."""
        return torch.cat([part.laid_out() for part in self.parts], 1)

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

    One modality alone is [content, positions]. Of several, each is filled up to the common width, the widest plus 4,
    by a modality vector of its own (Perceiver, section 4.2 and appendix).

    Args:
        modalities: `{name: {"channels": C, "resolution": [places per axis]}}`, the data's facts.
        positions: Fourier features, one learned vector per element, or one per place of each axis.
        bands: Fourier bands per axis.
        highest_frequency: of the Fourier bands, for all axes; half of each axis' resolution when not given.
        position_width: width of a learned position.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        positions: Positions = "fourier",
        bands: int = 64,
        highest_frequency: float | None = None,
        position_width: int = 128,
    ):
        super().__init__()
        if not modalities:
            raise ValueError(
                "modalities is empty: expected at least one, as {'image': {'channels': 3, 'resolution': [224, 224]}}"
            )
        self.channels = {name: int(facts["channels"]) for name, facts in modalities.items()}
        self.axes = {name: len(facts["resolution"]) for name, facts in modalities.items()}
        makers: dict[str, Callable[[Sequence[int]], FourierPositions | LearnedAxisPositions | LearnedPositions]] = {
            "fourier": lambda resolution: FourierPositions(resolution, bands, highest_frequency),
            "learned": lambda resolution: LearnedPositions(resolution, position_width),
            "learned_axes": lambda resolution: LearnedAxisPositions(resolution, position_width),
        }
        if positions not in makers:
            raise ValueError(f"positions is {positions!r}: expected one of {', '.join(makers)}")
        encodings = {name: makers[positions](facts["resolution"]) for name, facts in modalities.items()}
        widths = {name: channels + encodings[name].width for name, channels in self.channels.items()}
        self.positions = nn.ModuleDict(encodings)
        self.width: int = max(widths.values()) + (4 if len(widths) > 1 else 0)
        self.modality_vectors = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(self.width - width)) for name, width in widths.items() if len(widths) > 1}
        )

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> InputArray:
        """The input array of `{modality: {"content", "positions"?, "mask"?}}`; absent modalities are left out.

        Raises:
            ValueError: when a modality is unknown, none is there, or its shapes are not what the model was built for.
        """
        unknown = [name for name in inputs if name not in self.channels]
        if unknown or not inputs:
            raise ValueError(f"inputs has the modalities {list(inputs)}: expected some of {list(self.channels)}")
        return InputArray([self._part(name, inputs[name]) for name in self.channels if name in inputs])

    def _part(self, name: str, given: Mapping[str, Any]) -> Part:
        content, places, mask = given["content"], given.get("positions"), given.get("mask")
        encode = cast(FourierPositions | LearnedAxisPositions | LearnedPositions, self.positions[name])
        axes = self.axes[name]
        free = isinstance(places, Tensor)
        if content.shape[-1] != self.channels[name] or content.ndim != (3 if free else axes + 2):
            expected = ["B", *(["M"] if free else [f"I{axis}" for axis in range(axes)]), str(self.channels[name])]
            raise ValueError(
                f"inputs[{name!r}] has content of shape {tuple(content.shape)}: expected ({', '.join(expected)})"
            )
        if places is not None and (places.shape[-1] if free else len(places)) != axes:
            found = places.shape[-1] if free else len(places)
            raise ValueError(f"inputs[{name!r}] has positions of {found} axes: expected {axes}")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != content.shape[:-1]):
            raise ValueError(
                f"inputs[{name!r}] has a mask of shape {tuple(mask.shape)} and {mask.dtype}: expected "
                f"{tuple(content.shape[:-1])} and torch.bool"
            )
        sizes, device = content.shape[1:-1], content.device
        if not content.is_floating_point():
            raise ValueError(f"inputs[{name!r}] has content of {content.dtype}: expected floating point numbers")
        if 0 in sizes:
            raise ValueError(
                f"inputs[{name!r}] has content of shape {tuple(content.shape)}, without an element: expected at least "
                "one (a modality may be left out, and a mask hides it from single examples)"
            )
        places_of = [places.shape[-2]] if isinstance(places, Tensor) else [along.shape[-1] for along in places or []]
        if places is not None and places_of != list(sizes):
            raise ValueError(f"inputs[{name!r}] has positions of {places_of} elements: expected {list(sizes)}")
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
