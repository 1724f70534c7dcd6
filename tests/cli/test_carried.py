"""Another class in the place of a config's: what is taken over, and what is said of the rest."""

from pathlib import Path

import pytest
import yaml

import datamodules
from perceiver_lightning.cli import main
from perceiver_lightning.cli.carried import carry, carry_all, forgotten
from perceiver_lightning.tasks import ClassificationTask, RegressionTask

GRID_COLOR = yaml.safe_load(Path("configs/video/grid_color.yaml").read_text())["data"]["init_args"]
OF_THE_WHOLE = {"seconds": 0.96, "batch_size": 16, "val_fraction": 0.15, "cache": "disk"}


def test_a_recipe_of_two_modalities_with_a_class_of_one():
    taken, dropped = carry(GRID_COLOR, datamodules.GRID, datamodules.VideoFolder)
    assert taken == OF_THE_WHOLE | GRID_COLOR["video"]
    assert dropped == ["label", "modalities", "noise", "time_shift", "audio"]
    taken, dropped = carry(GRID_COLOR, datamodules.GRID, datamodules.AudioTable)
    assert taken == OF_THE_WHOLE | GRID_COLOR["audio"]
    assert dropped == ["label", "modalities", "noise", "time_shift", "video"]
    again, dropped = carry(taken, datamodules.AudioTable, datamodules.GRID)
    assert again == OF_THE_WHOLE | {"audio": GRID_COLOR["audio"]} and dropped == []


@pytest.mark.parametrize(
    ("given", "old", "new", "taken", "dropped"),
    [
        ({"augment": {"random_crop": 2, "mixup": 0.3}}, "ImageFolder", "VideoFolder",
         {"augment": {"random_crop": 2}}, ["augment.mixup"]),
        ({"augment": {"mixup": 0.3}}, "ImageFolder", "AudioFolder", {"augment": {"mixup": 0.3}}, []),
        ({"augment": {"mixup": 0.0, "cutmix": 0.0}, "size": 224}, "ImageFolder", "PointFolder",
         {"augment": {"cutmix": 0.0}}, []),
        ({"mean": [0.1, 0.2, 0.3], "root": "x"}, "ImageFolder", "Digits", {"mean": [0.1, 0.2, 0.3]}, ["root"]),
        ({"noise": [10, 20]}, "AudioFolder", "GRID", {}, ["noise"]),  # another type, another meaning
        ({"no_such": 1}, "ImageFolder", "Digits", {}, ["no_such"]),
    ],
)  # fmt: skip
def test_equal_names_of_a_valid_type_are_taken_over(given, old, new, taken, dropped):
    assert carry(given, getattr(datamodules, old), getattr(datamodules, new)) == (taken, dropped)


def test_tasks_too():
    given = {"num_latents": 4, "label_smoothing": 0.1}
    assert carry(given, ClassificationTask, RegressionTask) == ({"num_latents": 4}, ["label_smoothing"])


def test_one_line_of_a_command(here, capsys):
    Path("more.yaml").write_text("data: {init_args: {augment: {random_crop: 1}, permute_pixels: 3}}\n")
    command = ["fit", "--config=tiny.yaml", "--config=more.yaml", "--data=VideoFolder", "--data.init_args.root=x"]
    with pytest.raises(SystemExit):
        main([*command, "--print_config"])
    said = capsys.readouterr()
    assert said.err == (
        "data: VideoFolder in the place of Digits keeps augment.random_crop; "
        "drops what it cannot take: permute_pixels\n"
    )
    whole = yaml.safe_load(said.out)["data"]
    assert whole["class_path"] == "datamodules.VideoFolder"
    assert whole["init_args"]["batch_size"] == 32 and whole["init_args"]["augment"]["random_crop"] == 1


def test_what_a_checkpoint_s_class_was_given_is_named():
    given = {"batch_size": 8, "size": 8, "augment": {"random_crop": 0, "mixup": 0.2}, "mean": 0.5, "val_fraction": 0.1}
    old = {"class_path": "datamodules.ImageFolder", "init_args": given | {"root": "x"}}
    assert list(forgotten("data", old, "datamodules.Digits")) == [
        "data: Digits takes over nothing of the checkpoint's ImageFolder, as size, augment.mixup, root"
    ]
    assert list(forgotten("data", {"class_path": "Digits", "init_args": {"batch_size": 8}}, "Tones")) == []


def test_what_is_kept_of_a_set_is_named_as_it_may_be_right_for_that_set_alone():
    config = {"grid.yaml": {"data": {"class_path": "GRID", "init_args": GRID_COLOR}}}
    (line,) = carry_all("data", config, "VideoFolder")
    kept, dropped = line.split("; ")
    assert kept.startswith("data: VideoFolder in the place of GRID keeps seconds, val_fraction, frames, fps, patch, ")
    assert "pictures.centre_crop, pictures.centre, pictures.mean, pictures.std" in kept and "batch_size" not in kept
    assert dropped == "drops what it cannot take: label, modalities, noise, time_shift, audio"
    config = {"a.yaml": {"model": {"class_path": "ClassificationTask", "init_args": {"num_latents": 4}}}}
    assert list(carry_all("model", config, "RegressionTask")) == []


PARTS = {"a": {"class_path": "ImageFolder", "init_args": {"root": "a"}},
         "b": {"class_path": "AudioFolder", "init_args": {"root": "b", "seconds": 2, "sample_rate": 8000}}}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "given", "flag", "replaced", "dropped"),
    [
        ("data", {"class_path": "Paired", "init_args": {"datamodules": PARTS}},
         "--data.init_args.datamodules.b=VideoFolder", "VideoFolder in the place of AudioFolder", "sample_rate"),
        ("logger", {"class_path": "Wandb", "init_args": {"project": "p", "offline": True}},
         "--trainer.logger=TensorBoard", "TensorBoard in the place of Wandb", "project, offline"),
        ("callbacks", {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}},
         "--config=more.yaml", "ModelSummary in the place of EMAWeightAveraging", "decay"),
        ("callbacks", {"class_path": "ModelSummary", "init_args": {"max_depth": 2}},
         "--trainer.callbacks=RichModelSummary", "", ""),
    ],
)  # fmt: skip
def test_a_class_inside_of_another_or_of_the_trainer(here, capsys, key, given, flag, replaced, dropped):
    part = {"data": given} if key == "data" else {"trainer": {key: given}}
    Path("part.yaml").write_text(yaml.safe_dump(part, sort_keys=False))
    Path("more.yaml").write_text("trainer: {callbacks: {class_path: ModelSummary}}\n")
    with pytest.raises(SystemExit):
        main(["fit", "--config=tiny.yaml", "--config=part.yaml", flag, "--print_config"])
    said = [one for one in capsys.readouterr().err.splitlines() if not one.startswith("data: Paired")]
    assert said == ([f"{replaced} drops what it cannot take: {dropped}"] if dropped else [])
