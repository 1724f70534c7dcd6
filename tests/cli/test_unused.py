"""Settings that do nothing are said in a line."""

import math
from pathlib import Path

import pytest
import yaml
from word_files import WordFolder

from datamodules import Paired
from datamodules.multimodal.keys import split_by_key
from perceiver_lightning.cli import main
from perceiver_lightning.cli.renamed import Translation
from perceiver_lightning.cli.unused import beyond_the_end, not_cut, without_effect

CONFIGS = [path for path in sorted(Path("configs").rglob("*.yaml")) if path.parent.name != "sweeps"]


def of_model(**given) -> dict:
    return {"model": {"class_path": "ClassificationTask", "init_args": given}}


def of_data(name: str, **given) -> dict:
    return {"data": {"class_path": name, "init_args": given}}


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (of_model(flat=0.3), "model.init_args.flat: 0.3 has no effect without schedule flat_cosine"),
        (of_model(flat=0.3, schedule="flat_cosine"), None),
        (of_model(flat=0.5), None),
        (of_model(milestones=[0.5]), "model.init_args.milestones: [0.5] has no effect without schedule step"),
        (of_model(milestones=[0.7, 0.85, 0.95]), None),
        (of_model(decoder_heads=2), "model.init_args.decoder_heads: 2 has no effect without decoder query"),
        (of_model(num_queries=2, decoder="query"), None),
        (of_model(self_heads=2, self_attends=0), "model.init_args.self_heads: 2 has no effect without self_attends"),
        (of_model(position_width=8, positions="learned"), None),
        (of_model(position_width=8), "model.init_args.position_width: 8 has no effect without positions learned or"),
        (of_data("Digits", cache_dir="x"), "data.init_args.cache_dir: 'x' has no effect without cache disk"),
        (of_data("Digits", cache_dir="x", cache="disk"), None),
        (of_data("AudioFolder", spectrogram={"mels": None, "hop": 80}),
         "data.init_args.spectrogram.hop: 80 has no effect without spectrogram.mels"),
        (of_data("AudioTable", fold_column=None, test_fold="3"),
         "data.init_args.test_fold: '3' has no effect without fold_column"),
        ({"trainer": {"gradient_clip_algorithm": "norm", "gradient_clip_val": None}},
         "trainer.gradient_clip_algorithm: has no effect without gradient_clip_val"),
        ({"early_stopping": {"min_delta": 0.1}}, "early_stopping.min_delta: 0.1 has no effect without patience"),
        ({"early_stopping": {"min_delta": 0.1, "patience": 3}}, None),
        (of_model() | {"early_stopping": {"monitor": "val/loss", "mode": "max"}},
         "early_stopping.monitor: 'val/loss' has no effect without patience"),
        (of_model() | {"early_stopping": {"monitor": "val/accuracy", "mode": "max", "patience": None}}, None),
        (of_model() | {"early_stopping": {"mode": "min", "patience": 2}}, None),
        ({"early_stopping": {"verbose": True}}, "early_stopping.verbose: True has no effect without patience"),
    ],
)  # fmt: skip
def test_an_option_that_needs_another(config, line):
    (found,) = list(without_effect(config)) or [None]
    assert found == line or found.startswith(line)


def test_late_fusion_of_one_modality():
    late = of_model(fusion="late")
    line = "model.init_args.fusion: 'late' has no effect on one modality, image"
    assert list(without_effect(late, ["image"])) == [line]
    assert not [*without_effect(late, ["image", "audio"]), *without_effect(of_model(fusion="early"), ["image"])]


def word_files(root: Path, *folders: str) -> None:
    """60 files of each of two classes, divided among the folders."""
    for name in ("cat", "dog"):
        for i in range(60):
            path = root / folders[i * len(folders) // 60] / name / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize(
    ("folders", "splits"), [([], []), (["train", "test"], ["test"]), (["train", "val", "test"], ["test", "val"])]
)
def test_a_share_of_a_split_that_is_there(tmp_path, folders, splits):
    word_files(tmp_path, *(folders or [""]))
    given = {"root": str(tmp_path), "val_fraction": 0.2, "test_fraction": 0.3}
    data = WordFolder(**given)
    data.files("fit")
    assert list(not_cut({"init_args": given}, data)) == [
        f"data.init_args.{split}_fraction: {given[f'{split}_fraction']} has no effect, as these data are split already"
        for split in splits
    ]
    assert not list(not_cut({"init_args": {"val_fraction": 0.1}}, data))  # as if it were not given


def test_shares_of_those_that_are_paired_by_key(tmp_path):
    """The first one's are taken, and those of none if another one is split already."""
    for name, folders in {"flat": [""], "split": ["train", "val", "test"]}.items():
        word_files(tmp_path / name, *folders)
    given = {"val_fraction": 0.2, "test_fraction": 0.3}

    def lines(*names: str) -> list[str]:
        data = {f"{place}": WordFolder(str(tmp_path / name), **given) for place, name in enumerate(names)}
        split_by_key(data, lambda name, text: "/".join(Path(text).parts[-2:]))
        config = {"init_args": {"datamodules": {name: {"init_args": given} for name in data}}}
        found = [line.split(":")[0] for line in not_cut(config, Members(data))]
        return [key.removeprefix("data.init_args.datamodules.") for key in found]

    class Members(Paired):
        def __init__(self, datamodules):
            self.datamodules = datamodules

    keys = [f"{place}.init_args.{split}_fraction" for place in "01" for split in ("test", "val")]
    assert lines("flat", "flat") == keys[2:]
    assert lines("flat", "split") == lines("split", "flat") == keys


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_config_has_a_setting_without_effect(path):
    config = Translation({}).config(yaml.safe_load(path.read_text()))
    epochs = config.get("trainer", {}).get("max_epochs") or math.inf
    assert [*without_effect(config), *beyond_the_end(config, epochs, math.inf)] == []


EMA = {"class_path": "EMAWeightAveraging", "init_args": {"update_starting_at_step": 30, "decay": 0.9}}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (of_data("ImageFolder", augment={"mixup_off_epoch": 9}), []),
        (of_data("ImageFolder", augment={"mixup_off_epoch": 10}), ["data.init_args.augment.mixup_off_epoch"]),
        ({"trainer": {"check_val_every_n_epoch": 10, "max_epochs": 10, "log_every_n_steps": 99}}, []),
        ({"trainer": {"check_val_every_n_epoch": 11}}, ["trainer.check_val_every_n_epoch"]),
        ({"trainer": {"min_epochs": 11, "min_steps": 31}}, ["trainer.min_epochs", "trainer.min_steps"]),
        ({"trainer": {"callbacks": [EMA]}}, ["trainer.callbacks.0.init_args.update_starting_at_step"]),
        ({"checkpoint": {"every_n_train_steps": 31}}, ["checkpoint.every_n_train_steps"]),
        ({"checkpoint": {"every_n_epochs": None, "save_on_train_epoch_end": True}}, []),
    ],
)
def test_a_step_beyond_the_end(config, keys):
    lines = list(beyond_the_end(config, 10, 30))
    assert [line.split(":")[0] for line in lines] == keys


def test_what_a_training_says(here, capsys):
    main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=1", "--data.init_args.mixup=0.2",
          "--model.init_args.fusion=late", "--data.init_args.mixup_off_epoch=1",
          "--model.init_args.flat=0.1"])  # fmt: skip
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if not line.startswith("data: ")] == [
        "model.init_args.fusion: 'late' has no effect on one modality, image",
        "model.init_args.flat: 0.1 has no effect without schedule flat_cosine",
        "data.init_args.augment.mixup_off_epoch: 1 is not reached, as the training has 1 epochs",
    ]
