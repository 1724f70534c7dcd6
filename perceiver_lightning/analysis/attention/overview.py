"""Pictures of all latents at once: their maps, as Perceiver's Fig. 3 has them, and what becomes of them.

overview(model, inputs, cross_attends=[0, 1, 7])["image"]   Fig. 3, with the ImageNet model
draw_latents(model, inputs)                                 entropy, usage and similarity
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perceiver_lightning.analysis.attention.drawing import STYLE, Inputs, one_example
from perceiver_lightning.analysis.attention.maps import maps_of, record
from perceiver_lightning.analysis.attention.panels import Shown, View, heat_of, show
from perceiver_lightning.analysis.attention.rollout import entropy, similarity, usage
from perceiver_lightning.analysis.labels import as_label
from perceiver_lightning.model import Perceiver


def overview(
    perceiver: Perceiver,
    inputs: Inputs,
    example: int = 0,
    cross_attends: Sequence[int] = (0,),
    latents: int | Sequence[int] = 48,
    heads: Sequence[int] | None = None,
    views: Mapping[str, View] | None = None,
    title: str | None = None,
) -> dict[str, Figure]:
    """The maps of many latents, as in Perceiver's Fig. 3: a figure for each modality that is an image.

    Above the input and one map of each cross-attend, close up; below, for each cross-attend, the maps of all these
    latents, from black, an even share of the weight, to white, the greatest one of each, by the logarithm.

    Args: as those of `draw`; `latents` as a number takes the first so many rows.

    Raises:
        ValueError: as `draw`, and when no modality is an image or a spectrogram.
    """
    own = one_example(inputs, example)
    seen = record(perceiver, own)
    rows = list(range(min(latents, seen.latents.shape[1]))) if isinstance(latents, int) else list(latents)
    shown = {name: show(name, own[name], (views or {}).get(name)) for name in seen.names}
    flat = {name: one for name, one in shown.items() if one is not None and one.kind in ("image", "spectrogram")}
    if not flat:
        raise ValueError(f"inputs has the modalities {', '.join(seen.names)}: expected one that is drawn as an image")
    tiles: dict[str, list[np.ndarray]] = {name: [] for name in flat}
    for number in cross_attends:
        maps = maps_of(seen, number, rows, heads)
        for name, one in flat.items():
            tiles[name].append(np.stack([heat_of(one.arranged(weights)) for weights in maps[name].weights.mean(1)[0]]))
    count = len(seen.cross_attends)
    return {name: _overview(one, tiles[name], rows, cross_attends, count, title) for name, one in flat.items()}


def _overview(
    shown: Shown, tiles: list[np.ndarray], rows: list[int], numbers: Sequence[int], count: int, title: str | None
) -> Figure:
    def upright(picture: np.ndarray) -> np.ndarray:
        return picture.swapaxes(0, 1)[::-1] if shown.kind == "spectrogram" else picture

    high, wide = upright(shown.picture).shape[:2]
    about = math.sqrt(len(rows) * 5 * high / wide)
    some = range(max(1, round(0.75 * about)), min(len(rows), round(1.35 * about)) + 1)
    across = min(some, key=lambda count: (-len(rows) % count, abs(count - about)), default=len(rows))
    mosaics = [mosaic([upright(tile) for tile in row], across) for row in tiles]
    width = 7.0
    mosaic_height = width * mosaics[0].shape[0] / mosaics[0].shape[1]
    close_up = min(1.7, width / (1 + len(tiles)) * high / wide)
    with rc_context(STYLE):
        heights = [close_up, *[mosaic_height] * len(tiles)]
        size = (width + 0.2, sum(heights) + 0.3 * (len(tiles) + 1) + (0.3 if title else 0))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(1 + len(tiles), 1 + len(tiles), height_ratios=heights)
        names = [f"cross-attend {number + 1} of {count}" for number in numbers]
        pictures = [upright(shown.picture), *(upright(row[0]) for row in tiles)]
        headers = ["input", *(f"{name}, latent {rows[0]}" for name in names)]
        for column, (picture, header) in enumerate(zip(pictures, headers, strict=True)):
            axes = figure.add_subplot(grid[0, column], title=header, xticks=[], yticks=[], frame_on=False)
            axes.imshow(picture, cmap="gray")
        for row, (picture, name) in enumerate(zip(mosaics, names, strict=True), start=1):
            axes = figure.add_subplot(grid[row, :], xticks=[], yticks=[], frame_on=False)
            axes.set_title(f"{name}: {len(rows)} latents")
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        if title:
            figure.suptitle(as_label(title))
    return figure


def mosaic(tiles: Sequence[np.ndarray], across: int) -> np.ndarray:
    """Tiles (H, W) in rows of so many, with white between them: NaN, which is not drawn."""
    high, wide = tiles[0].shape
    gap = max(1, wide // 12)
    down = -(-len(tiles) // across)
    whole = np.full((down * (high + gap) - gap, across * (wide + gap) - gap), np.nan)
    for number, tile in enumerate(tiles):
        top, left = number // across * (high + gap), number % across * (wide + gap)
        whole[top : top + high, left : left + wide] = tile
    return whole


def draw_latents(perceiver: Perceiver, inputs: Inputs, example: int = 0, title: str | None = None) -> Figure:
    """What the latents do with one example, a column of the picture each: three panels.

    The entropy of each one's attention (mean of the heads) at each cross-attend, in bits; how much of the output's
    attention goes through it, as a multiple of an even share; and how similar the latents are after the last layer.
    """
    seen = record(perceiver, one_example(inputs, example))
    crosses, count = len(seen.cross_attends), seen.latents.shape[1]
    bits = torch.stack([entropy(seen, number)[0].mean(0) for number in range(crosses)])
    elements = sum(
        part.content.shape[1:-1].numel() if part.mask is None else int(part.mask[0].sum()) for part in seen.array.parts
    )
    panels = [
        (f"entropy of the attention\nin bits (even: {math.log2(max(elements, 1)):.1f})", bits, "viridis", None),
        ("usage by the output\nas multiple of an even share", usage(seen)[0] * count, "viridis", None),
        ("cosine similarity\nafter the last layer", similarity(seen.latents)[0], "RdBu_r", (-1, 1)),
    ]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.7 + (0.2 if title else 0)), layout="constrained")
        for axes, (header, values, colour, limits) in zip(figure.subplots(1, 3), panels, strict=True):
            low, high = limits or (None, None)
            square = values.shape[0] == count and limits is not None
            first = 0 if square else 1
            picture = axes.imshow(
                values.float().cpu().numpy(), cmap=colour, vmin=low, vmax=high, aspect="equal" if square else "auto",
                extent=(-0.5, count - 0.5, len(values) + first - 0.5, first - 0.5), interpolation="nearest",
            )  # fmt: skip
            axes.set(title=header, xlabel="latent", ylabel="latent" if square else "cross-attend")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True))
            figure.colorbar(picture, ax=axes, orientation="horizontal", shrink=0.8, aspect=30, pad=0.03)
        if title:
            figure.suptitle(as_label(title))
    return figure
