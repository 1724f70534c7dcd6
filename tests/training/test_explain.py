"""Pictures beside predictions."""

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from datamodules import Moving, Paired, Shapes, Solids, Tones
from datamodules.audio.spectrogram import Spectrogram
from datamodules.audio_visual.base import AudioVisual
from datamodules.base import DataModule
from datamodules.common.classes import class_facts
from datamodules.points.dataset import Sampling
from datamodules.video.base import Pictures
from perceiver_lightning.analysis.attention.panels import View
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks.classification import ClassificationTask, most_probable
from perceiver_lightning.training.explain import Explain, figures, first_rows, view_of

TINY = {"num_latents": 4, "latent_width": 8, "cross_attends": [1, 1, 1], "self_attends": 1, "self_heads": 2, "bands": 2}


class Clips(DataModule):
    """Waves by name, several rows of some."""

    def __init__(self, names: list[str], examples: list[int] | None = None) -> None:
        super().__init__({"wave": {"channels": 1, "resolution": [30]}}, 3, num_classes=2, class_names=["slow", "fast"])
        self.names, self.examples = names, examples

    def setup(self, stage: str) -> None:
        self.predict_set = []
        for row, name in enumerate(self.names):
            content = torch.sin(torch.linspace(0, 5 + row, 30))[:, None]
            example = {"inputs": {"wave": {"content": content}}, "name": name}
            self.predict_set.append(example | ({"example": self.examples[row]} if self.examples else {}))


class Films(AudioVisual):
    """Of which only the facts are asked."""

    find_train = find_test = None


def predict(tmp_path, data, explain) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(data.modalities, data.num_classes, data.class_names, **TINY)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(default_root_dir=tmp_path, callbacks=[explain], enable_checkpointing=False, **quiet).predict(task, data)


def files(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_picture_for_each_file_up_to_a_number(tmp_path, capsys):
    names = ["b.wav", "a/b.wav", "../../outside.wav", "/abs/olute.wav", "not drawn.wav"]
    predict(tmp_path, Clips(names), Explain(tmp_path / "pictures", most=4, latents=1))
    expected = ["a/b.wav.wave.png", "abs/olute.wav.wave.png", "b.wav.wave.png", "outside.wav.wave.png"]
    assert files(tmp_path) == [f"pictures/{name}" for name in expected]
    for name in expected:
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.width > 300
    assert capsys.readouterr().out == f"pictures {tmp_path}/pictures, of 4 of 5 examples\n"


def test_several_clips_of_a_file_have_one_picture(tmp_path, capsys, monkeypatch):
    drawn = []

    def spy(perceiver, batch, rows, *args, **options):
        drawn.append((rows, args[-1]))
        return figures(perceiver, batch, rows, *args, **options)

    monkeypatch.setattr("perceiver_lightning.training.explain.figures", spy)
    predict(tmp_path, Clips(["x", "x", "y"], [7, 7, 3]), Explain(tmp_path, latents=1))
    assert files(tmp_path) == ["x.wave.png", "y.wave.png"]
    assert [rows for rows, _ in drawn] == [[2], [0]]  # by rising number of the example, as predictions are
    assert [titles[0].split(":")[0] for _, titles in drawn] == ["y", "x"]
    assert capsys.readouterr().out.endswith(", of 2 of 2 examples\n")


def test_the_first_rows_of_examples():
    inputs = {"x": {"content": torch.zeros(5, 2, 1)}}
    assert first_rows({"inputs": inputs}) == [0, 1, 2, 3, 4]
    assert first_rows({"inputs": inputs, "example": torch.tensor([4, 4, 1, 9, 1])}) == [2, 0, 3]


def test_figures_of_a_batch_show_the_first_and_the_last_cross_attend():
    data = Solids(sizes=(4, 4, 4), sampling=Sampling(num_points=32))
    task = ClassificationTask(data.modalities, data.num_classes, data.class_names, **TINY)
    positions = torch.rand(2, 32, 3)
    batch = {"inputs": {"points": {"content": positions[..., :0], "positions": positions}}}
    both = figures(task.perceiver, batch, datamodule=data, latents=1)
    assert [list(figure) for figure in both] == [["points"], ["points"]]
    titles = [axes.get_title().split("\n")[0] for axes in both[0]["points"].axes]
    assert [title for title in titles if "cross" in title] == ["cross-attend 1 of 3", "cross-attend 3 of 3"]


def test_points_turn(tmp_path, monkeypatch):
    monkeypatch.setattr("perceiver_lightning.training.explain.turn", lambda figure, file: open(file, "w").close())
    axes = SimpleNamespace(name="3d")
    figure = SimpleNamespace(axes=[axes], savefig=lambda file, dpi: open(file, "w").close())
    Explain(tmp_path).write("cloud.ply", {"points": figure})
    assert files(tmp_path) == ["cloud.ply.points.gif", "cloud.ply.points.png"]


def test_a_datamodule_says_how_its_modalities_are_drawn():
    shapes, tones = Shapes(mean=0.4, std=0.3), Tones(patch=[2, 4])
    assert view_of(shapes, "image") == View(mean=[0.4] * 3, std=[0.3] * 3)
    assert view_of(tones, "audio") == View(patch=[2, 4])
    assert view_of(Moving(), "video").patch == (2, 4, 4)
    assert view_of(Moving(), "audio").patch is None  # its patches are not to be known by that name
    assert view_of(None, "image") == View()
    both = Films(
        class_facts(2),
        video={"pictures": Pictures(size=8), "patch": [2, 4, 4]},
        audio={"spectrogram": Spectrogram(mels=None), "patch": [40]},
    )
    assert view_of(both, "video") == View(patch=[2, 4, 4], mean=[0.5] * 3, std=[0.5] * 3)
    assert view_of(both, "audio") == View(patch=[40])
    four = Tones(patch=[2, 4])
    four.facts = shapes.facts
    assert view_of(Paired({"see": shapes, "hear": four}), "audio") == View(patch=[2, 4])


@pytest.mark.parametrize(
    ("probabilities", "multilabel", "text"),
    [
        ([0.2, 0.7, 0.1], False, "b (70%)"),
        ([0.9, 0.7, 0.1], True, "a (90%), b (70%)"),
        ([0.2, 0.3, 0.1], True, "b (30%)"),
    ],
)
def test_what_is_said_of_probabilities(probabilities, multilabel, text):
    assert most_probable(probabilities, ["a", "b", "c"], multilabel) == text
    assert math.isclose(float(most_probable(probabilities, "abc").split()[1].strip("()%")) / 100, max(probabilities))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"explain: expected a folder that can be written, found .*file/below"):
        predict(tmp_path, Clips(["x"]), Explain(tmp_path / "file" / "below"))
    (tmp_path / "x.wave.png").mkdir()
    with pytest.raises(InputError, match=r"explain: expected files that can be written, found .*x"):
        predict(tmp_path, Clips(["x"]), Explain(tmp_path, latents=1))


@pytest.mark.slow
def test_beside_the_predictions_of_the_command_line(run, photos):
    (photos / "0").rename(photos / "from $5 to $10_")  # mathematics, to matplotlib
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    main(["predict", best, "--data.init_args.predict_dir=photos", "--explain=pictures"])
    with open(run / "predictions.csv") as rows:
        names = [row.split(",")[0] for row in rows][1:]
    assert len(names) == 5 and any("$" in name for name in names)
    assert sorted(f"{name}.image.png" for name in names) == files(photos.parent / "pictures")
