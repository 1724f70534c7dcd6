"""One modality of one example as a panel of a figure: what was given, with weights over it or without.

What a modality is drawn as follows from its axes: a grid of one axis as a waveform, of two as an image (a spectrogram,
if its name speaks of sound), of three as frames of a video; coordinates as points, unless they fill a grid, as permuted
pixels do, which are put back into it. Elements of a grid are drawn in their order, evenly, whatever places they have.

Legend of shapes: M elements, C channels, A axes; H x W an image, T frames or samples, F frames x S bands of sound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

Kind = Literal["image", "spectrogram", "waveform", "video", "points"]

HEAT = colormaps["YlOrRd"]
FRAMES = 4  # of a video that are drawn
OF_SOUND = ("audio", "sound", "spectrogram", "mel")


@dataclass(frozen=True)
class View:
    """How a modality is to be drawn, as far as its content does not say.

    Attributes:
        kind: what it is drawn as; by its axes and its name when not given.
        patch: places of each axis that one element holds in its channels, as `patches` of the datamodules does it.
        mean: what was taken off each channel of values in [0, 1]; when not given, colours go from the example's least
            value to its greatest.
        std: what they were then divided by.
    """

    kind: Kind | None = None
    patch: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


@dataclass(frozen=True)
class Shown:
    """A modality of one example, ready to be drawn.

    Attributes:
        kind: what it is drawn as.
        picture: colours in [0, 1], (H, W, 3), (F, S, 3) or (T, H, W, 3); a waveform (T, C) in [-1, 1]; points (M, A).
        index: the number of the element at each place that is drawn: (*grid) or (M,).
        patch: places of the picture along each axis that an element takes.
    """

    kind: Kind
    picture: np.ndarray
    index: np.ndarray
    patch: Sequence[int]

    def arranged(self, values: Tensor) -> np.ndarray:
        """Values of the elements, (*grid) or (M,), at the places of the picture."""
        found = values.detach().float().cpu().numpy().ravel()[self.index]
        for axis, size in enumerate(self.patch):
            found = found.repeat(size, axis)
        return found


def show(name: str, part: Mapping[str, Any], view: View | None = None) -> Shown | None:
    """Make a modality of a batch of one example ready to be drawn; None where it has no element.

    What a mask leaves out at the ends of the axes is cut off.

    Raises:
        ValueError: when the modality has too many axes, or the view's patch does not fit.
    """
    view = view or View()
    content, places, mask = part["content"][0].detach().float().cpu(), part.get("positions"), part.get("mask")
    there = torch.ones(content.shape[:-1], dtype=torch.bool) if mask is None else mask[0].cpu()
    if not there.any():
        return None
    content = content.masked_fill(~there[..., None], 0)  # what lies under a mask may be anything, as NaN
    index = torch.arange(there.numel()).view(there.shape)
    if isinstance(places, Tensor):
        positions = places.view(-1, *places.shape[-2:])[0].float().cpu()[there]
        index, order = index[there], filled_grid(positions)
        if order is None or view.kind == "points":
            if positions.shape[-1] > 3:
                raise ValueError(f"{name} has positions of {positions.shape[-1]} axes: expected 1 to 3 to be drawn")
            return Shown("points", positions.numpy(), index.numpy(), ())
        index = index[order]
    else:
        corners = there.nonzero()
        for axis, (low, high) in enumerate(zip(corners.amin(0).tolist(), corners.amax(0).tolist(), strict=True)):
            index = index.narrow(axis, low, high - low + 1)
    axes = index.ndim
    if axes > 3:
        raise ValueError(f"{name} has a grid of {axes} axes: expected 1 to 3 to be drawn")
    patch = list(view.patch or [1] * axes)
    own = content.flatten(0, -2)[index]
    if len(patch) != axes or own.shape[-1] % int(np.prod(patch)):
        raise ValueError(f"{name} has {axes} axes and {own.shape[-1]} channels: expected a patch of those, not {patch}")
    own = unpatched(own, patch)
    is_sound = any(word in name.lower() for word in OF_SOUND)
    by_axes: list[Kind] = ["waveform", "spectrogram" if is_sound else "image", "video"]
    kind = view.kind or by_axes[axes - 1]
    if own.shape[-1] == 0 or own.shape[-1] not in {"waveform": (1, 2), "spectrogram": (1,)}.get(kind, (1, 3)):
        own = own.sum(-1, keepdim=True) / max(own.shape[-1], 1)  # no colours, so the mean
    picture = own / own.abs().max().clamp(min=1e-9) if kind == "waveform" else colours(own, view)
    return Shown(kind, picture.numpy(), index.numpy(), patch)


def filled_grid(positions: Tensor) -> Tensor | None:
    """Of points (M, A) that fill a grid, the number of the one at each place, (*grid); else None."""
    flat = torch.zeros(len(positions), dtype=torch.long)
    sizes: list[int] = []
    for column in positions.unbind(-1):
        places, number = column.unique(return_inverse=True)
        flat = flat * len(places) + number
        sizes.append(len(places))
    is_filled = len(positions) > 1 and torch.Size(sizes).numel() == len(positions) == len(flat.unique())
    return flat.argsort().view(sizes) if is_filled else None


def unpatched(content: Tensor, patch: Sequence[int]) -> Tensor:
    """Content (*grid, product of patch * C) as (*finer grid, C): undoes `datamodules.common.patches.patches`."""
    axes, grid = len(patch), content.shape[:-1]
    channels = content.shape[-1] // torch.Size(patch).numel()
    order = [axis for pair in zip(range(axes), range(axes, 2 * axes), strict=True) for axis in pair]
    places = content.reshape(*grid, *patch, channels).permute(*order, 2 * axes)
    return places.reshape(*(size * many for size, many in zip(grid, patch, strict=True)), channels)


def colours(content: Tensor, view: View) -> Tensor:
    """Content (*grid, 1 or 3) as colours (*grid, 3) in [0, 1]."""
    if view.mean is not None and view.std is not None and len(view.mean) == len(view.std) == content.shape[-1]:
        content = (content * torch.tensor(view.std) + torch.tensor(view.mean)).clamp(0, 1)
    else:
        low, high = content.min(), content.max()
        content = (content - low) / (high - low).clamp(min=1e-9)
    return content.expand(*content.shape[:-1], 3)


def heat_of(weights: np.ndarray) -> np.ndarray:
    """Weights as heat in [0, 1]: 0 up to what each would have if all had the same, 1 for the greatest.

    In between by their logarithm: attention of trained models has peaks a hundred times above the mean, beside which
    nothing else would show.
    """
    even, most = weights.mean(), weights.max()
    if not most > even * (1 + 1e-6):
        return np.zeros_like(weights)
    return np.log(np.maximum(weights, even) / even) / np.log(most / even)


def blend(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as pale greys, with heat (...) in [0, 1] over them."""
    grey = 0.4 + 0.6 * picture @ np.array([0.299, 0.587, 0.114])
    opacity = (0.9 * heat**0.8)[..., None]
    mixed = (1 - opacity) * grey[..., None] + opacity * HEAT(0.2 + 0.8 * heat)[..., :3]
    return mixed.clip(0, 1)  # rounding may have passed 1


def paint(axes: Any, shown: Shown, values: Tensor | None = None) -> None:
    """Draw into matplotlib's axes (3-D ones for points of three axes): what was given, or weights (*grid) over it."""
    heat = None if values is None else heat_of(shown.arranged(values))
    axes.set(xticks=[], yticks=[])
    if shown.kind == "waveform":
        length = len(shown.picture)
        if heat is not None:
            stripes = blend(np.ones((1, length, 3)), heat[None])
            axes.imshow(stripes, extent=(0, length, -1.8, 1.15), aspect="auto")
        alpha = 1 if heat is None else 0.5  # so that dense lines let the stripes through
        axes.plot(np.arange(length) + 0.5, shown.picture, color="0.2", alpha=alpha, linewidth=0.6)
        axes.set(xlim=(0, length), ylim=(-1.15 if heat is None else -1.8, 1.15))  # stripes without lines below
    elif shown.kind == "points":
        _points(axes, shown.picture, heat)
    else:
        picture = shown.picture if heat is None else blend(shown.picture, heat)
        if shown.kind == "spectrogram":
            axes.imshow(picture.swapaxes(0, 1), origin="lower", aspect="auto")
        else:
            axes.imshow(in_a_row(picture) if shown.kind == "video" else picture)
            axes.set_frame_on(False)
    if heat is None and shown.kind != "image":
        axes.set_xlabel(
            {
                "waveform": "time",
                "spectrogram": "time (up: frequency)",
                "video": f"frames {', '.join(str(frame + 1) for frame in some_frames(len(shown.picture)))}",
                "points": f"{len(shown.picture):,} points",
            }[shown.kind]
        )


def some_frames(count: int) -> list[int]:
    """The frames of a video that are drawn: evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int)).tolist()


def in_a_row(frames: np.ndarray) -> np.ndarray:
    """Some frames of a video (T, H, W, 3) side by side, with white between them."""
    gap = np.ones((frames.shape[1], max(1, frames.shape[2] // 12), 3))
    row = [piece for frame in some_frames(len(frames)) for piece in (frames[frame], gap)]
    return np.concatenate(row[:-1], 1)


def _points(axes: Any, positions: np.ndarray, heat: np.ndarray | None) -> None:
    """Points (M, A), hot ones larger, all axes on one scale."""
    count, dimensions = positions.shape
    small = float(np.clip(600 / count, 0.6, 8))
    if heat is None:
        colour, size = np.full((count, 3), 0.35), np.full(count, 1.5 * small)
    else:
        colour, size = blend(np.full((count, 3), 0.5), heat), small * (1 + 5 * heat)
    flat = positions if dimensions > 1 else np.concatenate([positions, 0 * positions], 1)
    options = {"depthshade": False} if dimensions == 3 else {}
    axes.scatter(*flat.T, c=colour, s=size, linewidths=0, **options)
    middle, reach = (flat.max(0) + flat.min(0)) / 2, (flat.max(0) - flat.min(0)).max() / 2 * 1.05 + 1e-9
    for axis, centre in zip("xyz", middle, strict=False):
        axes.set(**{f"{axis}lim": (centre - reach, centre + reach)})
    if dimensions == 3:
        axes.set_axis_off()
        axes.set_box_aspect((1, 1, 1), zoom=1.5)
        axes.view_init(elev=20, azim=-60)
    else:
        axes.set_aspect("equal")
