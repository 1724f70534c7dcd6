"""Draws a confusion matrix."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from perceiver_lightning.analysis.labels import as_label
from perceiver_lightning.analysis.plots import STYLE


def draw_confusion_matrix(counts: Sequence[Sequence[float]], names: Sequence[str] | None = None) -> Figure:
    """Counts (K, K), a row for each true class, as shares of their rows; the counts themselves where they are few."""
    many = len(counts) > 30
    with rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        size = 5 if many else 1.8 + 0.35 * len(counts)
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.subplots()
        shares = [[count / max(sum(row), 1) for count in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted", ylabel="true")
        if many:
            return figure
        labels = [as_label(name) for name in names] if names else [str(k) for k in range(len(counts))]
        axes.set_xticks(range(len(counts)), labels, rotation=90)
        axes.set_yticks(range(len(counts)), labels)
        axes.tick_params(length=0)
        for true, row in enumerate(counts):
            for predicted, count in enumerate(row):
                if count:
                    dark = shares[true][predicted] > 0.5
                    text = f"{count:.0f}"
                    axes.text(
                        predicted, true, text, ha="center", va="center", color="white" if dark else "0.2", fontsize=8
                    )
    return figure
