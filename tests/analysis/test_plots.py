"""Pictures of runs; `tests/test_runs.py` looks at the colours of curves.png."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_lightning.analysis.confusion import draw_confusion_matrix
from perceiver_lightning.analysis.plots import POINTS, plot, svg
from perceiver_lightning.analysis.runs import Run

SVG = "{http://www.w3.org/2000/svg}"


def make(name="a/version_0", **metrics) -> Run:
    return Run(name, Path(name), {}, metrics)


def text_of(picture: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ET.fromstring(picture).iter(f"{SVG}text")]


def test_curves_of_all_metrics_under_their_names():
    line = [(0, 1.0), (9, 0.5)]
    picture = svg([make(**{"train/loss": line, "val/loss": line, "lr-AdamW/pg1": line, "val/f1": line, "epoch": line})])
    titles = [text for text in text_of(picture) if any(c.isalpha() for c in text) and text != "step"]
    assert titles == ["loss", "f1", "lr-AdamW/pg1"]
    assert svg([make(**{"test/loss": [(9, 1.0)]})]) == ""
    assert picture == svg([make(**{"train/loss": line, "val/loss": line, "lr-AdamW/pg1": line, "val/f1": line})])


def test_a_long_training_makes_no_long_picture():
    def size(count: int) -> int:
        rng = np.random.default_rng(0)
        return len(svg([make(**{"train/loss": [(step, float(rng.random())) for step in range(count)]})]))

    assert size(50 * POINTS) < 1.5 * size(POINTS)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), min_size=1, max_size=12))
def test_any_name_can_be_drawn(tmp_path_factory, name):
    run = make(f"_{name}$", **{f"val/{name}": [(0, 1.0), (1, math.nan), (2, 3.0)], "train/loss": [(0, 1.0), (1, 2.0)]})
    assert ET.fromstring(svg([run])).tag == f"{SVG}svg"
    plot([run], tmp_path_factory.mktemp("plot") / "curves.png")


@pytest.mark.parametrize(("classes", "texts"), [(3, 3 + 3 + 5), (40, 0)])
def test_a_confusion_matrix_shows_counts_and_names_while_they_are_few(classes, texts):
    counts = [[5 if i == j else (i == 0) * 2 for j in range(classes)] for i in range(classes)]
    figure = draw_confusion_matrix(counts, [f"$class_{k}" for k in range(classes)])
    axes = figure.axes[0]
    shown = [label.get_text() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]] if texts else []
    assert len(shown) + len(axes.texts) == texts
    shares = np.asarray(axes.images[0].get_array())
    assert shares.shape == (classes, classes)
    assert np.allclose(shares.sum(1), 1) and shares[1, 1] == 1 and shares[0, 1] == 2 / (5 + 2 * (classes - 1))
    figure.savefig("/dev/null", format="png")
