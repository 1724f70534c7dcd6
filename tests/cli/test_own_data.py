"""The commands of docs/own_data.md, on folders of five kinds of files that were never seen before."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trimesh
from PIL import Image
from sklearn.datasets import load_digits
from video_clips import write_clip

from datamodules.synthetic.generate import draw_films, draw_tones
from perceiver_lightning.cli import main

PAGE = Path("docs/own_data.md")
COMMANDS = [
    shlex.split(line)[3:]
    for line in PAGE.read_text().splitlines()
    if line.startswith("    python -m perceiver_lightning")
]
SHORT = {
    "fit": ["--trainer.limit_train_batches=2", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"],
    "check": [],
    "baseline": [],
}
PER_CLASS = 12


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """PHOTOS, SOUNDS, SHAPES, VIDEOS, NEW and two tables, in two classes each."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "configs").symlink_to(Path("configs").resolve())
    digits, rng = load_digits(), np.random.default_rng(0)
    for k in (0, 1):
        images = (digits.images[digits.target == k][:PER_CLASS] * 15.9).astype(np.uint8)
        for i, image in enumerate(images):
            side = (8, 20, 33)[i % 3]
            place = folder / "PHOTOS" / "abc"[k]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((side, side)).save(place / f"{i}.png")
            if i == 0:
                (folder / "NEW").mkdir(exist_ok=True)
                Image.fromarray(image).save(folder / "NEW" / f"{k}.png")
        for i in range(PER_CLASS):
            rate = (8000, 44100)[i % 2]
            sound = draw_tones(rng, np.array([k]), rate // 4, rate)[0].reshape(-1) / 32767
            (folder / "SOUNDS" / "ab"[k]).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / "SOUNDS" / "ab"[k] / f"{i}.flac", sound, rate)
            mesh = (trimesh.creation.box((1, 1, 1 + i / 9)), trimesh.creation.cone(1, 1 + i / 9))[k]
            (folder / "SHAPES" / "ab"[k]).mkdir(parents=True, exist_ok=True)
            if i % 2:
                mesh.export(folder / "SHAPES" / "ab"[k] / f"{i}.off")
            else:
                np.savetxt(folder / "SHAPES" / "ab"[k] / f"{i}.xyz", mesh.sample(100, seed=i))
            film = draw_films(rng, np.array([k]), 10, (24, 24))[0].reshape(10, 24, 24, -1)
            pictures = np.broadcast_to(film, (10, 24, 24, 3)).astype(np.uint8)
            clip_sound = draw_tones(rng, np.array([k]), 8000, 8000)[0].reshape(-1, 1) / 32767
            write_clip(folder / "VIDEOS" / "ab"[k] / f"{i}.mp4", pictures, sound=clip_sound, rate=8000)
    for name, ending, place in (("photos", "png", "PHOTOS"), ("sounds", "flac", "SOUNDS")):
        rows = [f"{place}/{c}/{i}.{ending},{c}" for c in "ab" for i in range(PER_CLASS)]
        (folder / f"{name}.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return folder


@pytest.fixture
def there(own, monkeypatch) -> Path:
    monkeypatch.chdir(own)
    monkeypatch.setenv("PERCEIVER_DATA", "data")
    return own


FITS = [command for command in COMMANDS if command[0] == "fit"]


def test_the_page_has_a_command_for_each_kind():
    assert {Path(command[2]).as_posix() for command in FITS} == {
        path.as_posix() for path in Path("configs").glob("*/*.yaml") if path.stem in ("folder", "table")
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", FITS, ids=lambda command: command[2].removeprefix("configs/"))
def test_a_training_on_own_files(command, there, capsys):
    run = main([*command, *SHORT["fit"]])
    assert run.trainer.global_step >= 1 and run.datamodule.class_names == ["a", "b"]
    assert re.search(r"data: \d+ in train, \d+ in val", (said := capsys.readouterr()).err)
    assert "max_time: the learning rate comes to the end" in said.out
    assert run.trainer.callback_metrics["val/loss"].isfinite()


@pytest.mark.slow
def test_the_other_commands_follow(there, capsys):
    for name in ("check", "baseline", "fit", "test", "predict"):
        command = next(one for one in COMMANDS if one[0] == name)
        main([*command, *SHORT.get(name, []), *(["--name=images"] if name == "fit" else [])])
    assert (there / "runs" / "baseline" / "images" / "metrics.csv").is_file()
    assert (there / "runs" / "images" / "version_0" / "predictions.csv").read_text().count("\n") == 3
