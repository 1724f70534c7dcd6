"""Pictures of where a Perceiver looks, for every modality: matplotlib figures, for a notebook, a file or a log.

    draw(model, inputs)["image"]                        one example: input, rollout, maps of some latents
    draw(model, inputs, cross_attends=[0, 1, 7])        maps of several cross-attends, side by side
    turn(draw(model, inputs)["points"], "points.gif")   a 3-D view that turns

`overview.py` has the pictures of all latents at once, Perceiver's Fig. 3 among them. Cross-attends are given by their
numbers from 0, as everywhere, and counted from 1 in the pictures ("1 of 8"); latents are named by their rows, from 0.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from perceiver_lightning.analysis.attention.maps import Maps, Record, maps_of, record
from perceiver_lightning.analysis.attention.panels import Shown, View, blend, paint, show, some_frames
from perceiver_lightning.analysis.attention.rollout import rollout, usage
from perceiver_lightning.analysis.labels import as_label
from perceiver_lightning.model import Perceiver

Inputs = Mapping[str, Mapping[str, Any]]

STYLE: dict[Any, float] = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 6.5,
    "axes.linewidth": 0.5,
    "figure.titlesize": 9,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
}


def draw(
    perceiver: Perceiver,
    inputs: Inputs,
    example: int = 0,
    cross_attends: Sequence[int] = (0,),
    latents: int | Sequence[int] = 3,
    heads: Sequence[int] | None = None,
    views: Mapping[str, View] | None = None,
    title: str | None = None,
) -> dict[str, Figure]:
    """Where the model looks in one example: a figure for each modality that the example has.

    At the left the input and the rollout to the output; then a column for each latent of each cross-attend: its
    weights, and what they would be by content alone and by position alone (not for bare points, which have but that).
    Colours go, by the logarithm, from an even share of the weight to the greatest one of each panel; what is written
    below says how much that is, and of several modalities, how much of all the weight is in this one.

    Args:
        perceiver: the model; its mode (training or not) stays unchanged.
        inputs: of a batch.
        example: which row of the batch.
        cross_attends: which ones, from 0.
        latents: which rows of the latent array; or how many, of those that most of the output's attention goes
            through at the first of these cross-attends.
        heads: which heads; maps are their mean. All when not given.
        views: how modalities are to be drawn, where their content does not say.
        title: of each figure.

    Raises:
        ValueError: when there is no such cross-attend, latent or head, or a modality cannot be drawn.
    """
    own = one_example(inputs, example)
    seen = record(perceiver, own)
    rows = chosen_latents(seen, latents, cross_attends[0])
    output = rollout(seen)
    maps = [maps_of(seen, number, rows, heads) for number in cross_attends]
    count = len(seen.cross_attends)
    headers = [
        (f"cross-attend {number + 1} of {count}\n" if count > 1 else "") + f"latent {row}"
        for number in cross_attends
        for row in rows
    ]
    figures = {}
    for name in seen.names:
        shown = show(name, own[name], (views or {}).get(name))
        if shown is not None:
            columns = [column for one in maps for column in columns_of(one[name], own[name]["content"].shape[-1] > 0)]
            figures[name] = _panels(shown, output[name][0], columns, headers, len(seen.names) > 1, title)
    return figures


def columns_of(maps: Maps, has_content: bool) -> list[dict[str, Tensor]]:
    """For each latent of one example: its weights, and those by content and by position alone, (*grid) each."""
    rows = {"weights": maps.weights}
    if has_content:
        rows |= {f"{share} alone": maps.alone(share) for share in ("content", "position")}
    count = maps.weights.shape[2]
    return [{label: values.mean(1)[0, number] for label, values in rows.items()} for number in range(count)]


def one_example(inputs: Inputs, example: int) -> dict[str, dict[str, Any]]:
    """The inputs of one row of a batch, as a batch of one."""

    def own(key: str, value: Any, axes: int) -> Any:
        if isinstance(value, Tensor):
            return value if key == "positions" and value.ndim < axes else value[example : example + 1]
        return value if value is None else [own(key, along, 2) for along in value]

    return {name: {key: own(key, value, 3) for key, value in part.items()} for name, part in inputs.items()}


def chosen_latents(seen: Record, latents: int | Sequence[int], cross_attend: int) -> list[int]:
    """Those rows, or so many of those that are used most at a cross-attend."""
    if not isinstance(latents, int):
        return list(latents)
    used = usage(seen)[0]
    if not 0 <= cross_attend < len(used):
        raise ValueError(f"cross_attend is {cross_attend}: expected 0 to {len(used) - 1}, as the model has {len(used)}")
    return used[cross_attend].topk(min(latents, used.shape[1])).indices.tolist()


def panel_size(shown: Shown) -> tuple[float, float]:
    """Width and height of a panel, in inches."""
    if shown.kind in ("image", "video"):
        height, width = shown.picture.shape[-3:-1]
        if shown.kind == "video":
            width *= 1.08 * len(some_frames(len(shown.picture)))
        area = 2.6 if shown.kind == "image" else 2.4
        ratio = min(max(width / height, 0.4), 5.0)
        return math.sqrt(area * ratio), math.sqrt(area / ratio)
    return {"waveform": (2.3, 0.9), "spectrogram": (2.0, 1.3), "points": (1.8, 1.8)}[shown.kind]


def _panels(
    shown: Shown,
    output: Tensor,
    columns: list[dict[str, Tensor]],
    headers: list[str],
    several: bool,
    title: str | None,
) -> Figure:
    width, height = panel_size(shown)
    is_3d = shown.kind == "points" and shown.picture.shape[1] == 3
    rows = len(columns[0])
    # Beside three rows of maps the input, the rollout and the scale stand below each other, else in the one row.
    of_output, of_scale, first = ((1, 0), (2, 0), 1) if rows > 1 else ((0, 1), (0, 2 + len(columns)), 2)
    across = first + len(columns) + (rows == 1)
    with rc_context(STYLE):
        size = (across * (width + 0.1) + 0.3, rows * (height + 0.2) + (0.8 if title else 0.5))
        figure = Figure(figsize=size, layout="constrained")
        apart = 0.09 if shown.kind == "video" else 0.03  # more than its frames are
        figure.get_layout_engine().set(w_pad=apart, h_pad=0.06)  # type: ignore[union-attr, call-arg]
        grid = figure.add_gridspec(rows, across)

        def panel(place: tuple[int, int], weights: Tensor | None, is_share: bool = False) -> Any:
            axes: Any = figure.add_subplot(grid[place], projection="3d" if is_3d else None)
            paint(axes, shown, weights)
            if weights is not None:
                here = shown.arranged(weights)
                most = here.max() / max(here.mean(), 1e-30)
                text = f"up to {most:.{0 if most >= 10 else 1}f} \N{MULTIPLICATION SIGN} even"
                _beside(axes, f"{weights.sum():.0%}, {text}" if is_share else text, "below", fontsize=6, color="0.4")
            return axes

        panel((0, 0), None).set_title("input")
        panel(of_output, output, several).set_title("rollout to the output")
        _scale(figure.add_subplot(grid[of_scale]))
        for column, (header, maps) in enumerate(zip(headers, columns, strict=True), start=first):
            for row, (label, weights) in enumerate(maps.items()):
                axes = panel((row, column), weights, several and label == "weights")
                if row == 0:
                    axes.set_title(header)
                if column == first and rows > 1:
                    _beside(axes, label, "left")
        if title:
            figure.suptitle(as_label(title))
    return figure


def _beside(axes: Any, text: str, side: str, **style: Any) -> None:
    """Text below or left of a panel: a label of the axes, which 3-D ones have elsewhere."""
    if side == "below":
        place: dict[str, Any] = {"xy": (0.5, 0), "xytext": (0, -2), "ha": "center", "va": "top"}
    else:
        place = {"xy": (0, 0.5), "xytext": (-4, 0), "ha": "right", "va": "center", "rotation": 90}
    axes.annotate(text, textcoords="offset points", xycoords="axes fraction", **place, **style)


def _scale(axes: Any) -> None:
    """The scale of the colours, in a panel of its own."""
    axes.set_axis_off()
    bar = axes.inset_axes((0.12, 0.55, 0.76, 0.09))
    bar.imshow(blend(np.full((1, 256, 3), 0.7), np.linspace(0, 1, 256)[None]), aspect="auto", extent=(0, 1, 0, 1))
    bar.set(yticks=[], xticks=[0, 1], xticklabels=["even", "greatest"])
    bar.tick_params(length=0)
    bar.set_title("weight (logarithmic)")


def turn(figure: Figure, file: str | Path, frames: int = 24, seconds: float = 4.0, dpi: int = 70) -> None:
    """Write a figure with 3-D panels as an animated GIF, in which they turn once about the upright axis, for ever.

    Raises:
        ValueError: when no panel is one of three dimensions.
        OSError: when the file cannot be written.
    """
    turning: list[Any] = [axes for axes in figure.axes if axes.name == "3d"]
    if not turning:
        raise ValueError("figure has no 3-D panel: expected one of points with three axes, as draw(...)['points'] is")
    before = figure.dpi, figure.get_layout_engine(), figure.canvas
    canvas, pictures = FigureCanvasAgg(figure), []
    try:
        figure.set_dpi(dpi)
        for frame in range(frames):
            for axes in turning:
                axes.view_init(elev=20, azim=-60 + 360 * frame / frames)
            canvas.draw()
            figure.set_layout_engine("none")  # as it stays after the first
            pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64))
    finally:
        figure.set_dpi(before[0])
        figure.set_layout_engine(before[1])
        figure.set_canvas(before[2])
        for axes in turning:
            axes.view_init(elev=20, azim=-60)
    step = round(1000 * seconds / frames)
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=step, loop=0)
