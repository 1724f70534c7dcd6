"""The pictures themselves: compared with stored ones, and their panels with the maps."""

import matplotlib
import numpy as np
import pytest
import torch
from pictures_compared import TOLERANCE, difference
from PIL import Image, ImageSequence
from randomly import randomise

from datamodules.audio.spectrogram import LogMel, normalise
from datamodules.common.patches import patches
from datamodules.synthetic.generate import draw_films, draw_shapes, draw_solids, draw_tones
from perceiver_lightning.analysis.attention.drawing import draw, one_example, turn
from perceiver_lightning.analysis.attention.maps import attention_maps, record
from perceiver_lightning.analysis.attention.overview import draw_latents, mosaic, overview
from perceiver_lightning.analysis.attention.panels import View, blend, heat_of
from perceiver_lightning.analysis.attention.rollout import rollout, usage
from perceiver_lightning.model import Perceiver


@pytest.fixture(autouse=True)
def plain_matplotlib():
    """Whatever a person's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def model(modalities, **options) -> Perceiver:
    small = {"num_latents": 8, "latent_width": 16, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2}
    made = Perceiver(modalities, 4, **{**small, "bands": 3, "cross_heads": 2, "cross_qk_width": 12, **options})
    randomise(made)
    with torch.no_grad():
        for cross in made.cross_attends:  # softer, as trained ones are
            cross.attention.query.weight *= 0.5
    return made.double()


def image(count: int = 1) -> torch.Tensor:
    drawn = draw_shapes(np.random.default_rng(3), np.arange(count) % 4, (24, 24), 3)
    return torch.from_numpy(drawn).double() / 127.5 - 1


def sound() -> torch.Tensor:
    drawn = draw_tones(np.random.default_rng(0), np.array([1]), 1000, 8000)
    return torch.from_numpy(drawn.astype(np.float32)) / 32767


def spectrogram() -> torch.Tensor:
    mel = LogMel(8000, 16, 128, 32, [0, 4000])(sound())
    return normalise(mel, torch.ones(mel.shape[:2], dtype=torch.bool)).double()


def film() -> torch.Tensor:
    drawn = draw_films(np.random.default_rng(2), np.array([0]), 8, (16, 16))
    return torch.from_numpy(drawn).double() / 127.5 - 1


def examples() -> dict:
    """By name: modalities, inputs, and how to draw them."""
    solid = torch.from_numpy(draw_solids(np.random.default_rng(1), np.array([3]), 256)).double()
    wave = patches(sound().double(), [4])
    facts = {
        "image": ([24, 24], 3), "waveform": ([250], 4), "audio": ([32, 16], 1), "points": ([16, 16, 16], 0),
        "video": ([4, 4, 4], 96),
    }  # fmt: skip
    modalities = {name: {"resolution": grid, "channels": channels} for name, (grid, channels) in facts.items()}
    inputs = {
        "image": {"content": image()},
        "waveform": {"content": wave, "mask": torch.arange(250)[None] < 220},
        "audio": {"content": spectrogram()},
        "points": {"content": solid[..., :0], "positions": solid},
        "video": {"content": patches(film(), [2, 4, 4])},
    }
    views = {"waveform": View(patch=[4]), "video": View(patch=[2, 4, 4])}
    return {name: ({name: modalities[name]}, {name: inputs[name]}, views) for name in facts}


@pytest.mark.parametrize("name", ["image", "waveform", "audio", "points", "video"])
def test_pictures_are_as_stored(name, tmp_path):
    modalities, inputs, views = examples()[name]
    perceiver = model(modalities)
    drawn = draw(perceiver, inputs, latents=2, views=views, title=f"{name}: a title")
    assert list(drawn) == [name]
    assert difference(drawn[name], name, tmp_path) < TOLERANCE
    if name == "image":  # the tolerance tells maps of other latents
        other = draw(perceiver, inputs, latents=[6, 7], views=views, title=f"{name}: a title")[name]
        assert difference(other, name, tmp_path) > 2 * TOLERANCE


def test_the_picture_of_all_latents_is_as_stored(tmp_path):
    modalities, inputs, _ = examples()["image"]
    perceiver = model(modalities)
    drawn = overview(perceiver, inputs, cross_attends=[0, 1], title="a title")["image"]
    assert difference(drawn, "overview", tmp_path) < TOLERANCE
    assert difference(draw_latents(perceiver, inputs, title="a title"), "latents", tmp_path) < TOLERANCE


def test_an_even_map_is_one_over_what_is_there():
    modalities, inputs, _ = examples()["image"]
    masked = {"image": {**inputs["image"], "mask": torch.arange(24 * 24).view(1, 24, 24) < 64}}
    for given, bits in ((inputs, 9.2), (masked, 6.0)):
        titles = [axes.get_title() for axes in draw_latents(model(modalities), given).axes]
        assert f"in bits (even: {bits})" in titles[0]


def panels(figure) -> dict[str, np.ndarray]:
    """The colours of each panel with a picture, by "row column" of the grid."""
    found = {}
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is not None and axes.images:
            found[f"{place.rowspan.start} {place.colspan.start}"] = axes.images[0].get_array()
    return found


def test_each_panel_has_its_own_map():
    modalities, inputs, _ = examples()["image"]
    perceiver = model(modalities)
    inputs = {"image": {"content": image(3)}}
    figure = draw(perceiver, inputs, example=2, cross_attends=[1, 0], latents=[5, 2], heads=[1])["image"]
    found = panels(figure)
    assert set(found) == {"0 0", "1 0", *(f"{row} {column}" for row in range(3) for column in range(1, 5))}
    content = image(3)[2]
    picture = ((content - content.min()) / (content.max() - content.min())).numpy()
    np.testing.assert_allclose(found["0 0"], picture, atol=1e-6)
    own = {"image": {"content": image(3)[2:]}}
    expected = {"1 0": rollout(record(perceiver, own))["image"][0]}
    column = 1
    for number in (1, 0):
        maps = attention_maps(perceiver, own, number)["image"]
        for latent in (5, 2):
            rows = (maps.weights, maps.alone("content"), maps.alone("position"))
            expected |= {f"{row} {column}": values[0, 1, latent] for row, values in enumerate(rows)}
            column += 1
    for place, values in expected.items():
        np.testing.assert_allclose(found[place], blend(picture, heat_of(values.numpy())), atol=1e-5, err_msg=place)
    texts = [axes.get_title() for axes in figure.axes]
    assert "cross-attend 2 of 2\nlatent 5" in texts and "cross-attend 1 of 2\nlatent 2" in texts


def test_the_most_used_latents_are_drawn():
    modalities, inputs, _ = examples()["image"]
    perceiver = model(modalities)
    used = usage(record(perceiver, inputs))[0, 1]
    figure = draw(perceiver, inputs, cross_attends=[1], latents=3)["image"]
    titles = [axes.get_title() for axes in figure.axes if "latent" in axes.get_title()]
    expected = sorted(range(8), key=lambda row: -used[row])[:3]
    assert titles == [f"cross-attend 2 of 2\nlatent {row}" for row in expected]


def test_each_modality_has_a_figure_unless_it_is_not_there():
    parts = {name: examples()[name] for name in ("image", "points")}
    modalities = {name: facts[name] for name, (facts, _, _) in parts.items()}
    inputs = {name: dict(given[name]) for name, (_, given, _) in parts.items()}
    perceiver = model(modalities)
    both = draw(perceiver, inputs, latents=1)
    assert list(both) == ["image", "points"]
    shares = [
        float(text.get_text().split("%")[0])
        for figure in both.values()
        for axes in figure.axes
        if axes.get_title() == "rollout to the output"
        for text in axes.texts
        if "%" in text.get_text()
    ]
    assert len(shares) == 2 and sum(shares) == pytest.approx(100, abs=1)
    inputs["image"]["mask"] = torch.zeros(1, 24, 24, dtype=torch.bool)
    assert list(draw(perceiver, inputs, latents=1)) == ["points"]


def test_one_example_has_what_it_has_in_the_batch():
    batch = {
        "a": {"content": torch.rand(3, 4, 5, 1), "positions": [torch.rand(4), torch.rand(3, 5)]},
        "b": {"content": torch.rand(3, 6, 0), "positions": torch.rand(6, 2), "mask": torch.ones(3, 6).bool()},
        "c": {"content": torch.rand(3, 6, 0), "positions": torch.rand(3, 6, 2)},
    }
    own = one_example(batch, 1)
    assert own["a"]["content"].equal(batch["a"]["content"][1:2])
    assert own["a"]["positions"][0] is batch["a"]["positions"][0]
    assert own["a"]["positions"][1].equal(batch["a"]["positions"][1][1:2])
    assert own["b"]["positions"] is batch["b"]["positions"] and own["b"]["mask"].shape == (1, 6)
    assert own["c"]["positions"].equal(batch["c"]["positions"][1:2])


def test_points_turn(tmp_path):
    modalities, inputs, _ = examples()["points"]
    figure = draw(model(modalities), inputs, latents=1)["points"]
    before = figure.dpi, figure.get_layout_engine(), figure.canvas
    turn(figure, tmp_path / "points.gif", frames=3, dpi=40)
    assert (figure.dpi, figure.get_layout_engine(), figure.canvas) == before
    assert {(axes.elev, axes.azim) for axes in figure.axes if axes.name == "3d"} == {(20, -60)}
    with Image.open(tmp_path / "points.gif") as file:
        frames = [np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(file)]
        assert (len(frames), file.info["loop"]) == (3, 0)
    assert np.abs(frames[0] - frames[1]).mean() > 0.5 < np.abs(frames[1] - frames[2]).mean()
    modalities, inputs, _ = examples()["image"]
    with pytest.raises(ValueError, match=r"no 3-D panel: expected one of points with three axes"):
        turn(draw(model(modalities), inputs, latents=1)["image"], tmp_path / "image.gif")


def test_a_mosaic_has_its_tiles_in_rows():
    tiles = [np.full((2, 3), value) for value in range(5)]
    found = mosaic(tiles, 3)
    assert found.shape == (5, 11)
    assert [found[0, 0], found[0, 4], found[0, 8], found[3, 0], found[3, 4]] == [0, 1, 2, 3, 4]
    assert np.isnan(found[2]).all() and np.isnan(found[3:, 8:]).all() and np.isnan(found[0, 3])


def test_no_cross_attend_of_that_number_and_no_image():
    modalities, inputs, _ = examples()["waveform"]
    with pytest.raises(ValueError, match="cross_attend is 2: expected 0 to 1"):
        draw(model(modalities), inputs, cross_attends=[2])
    with pytest.raises(ValueError, match="inputs has the modalities waveform: expected one that is drawn as an image"):
        overview(model(modalities), inputs)
