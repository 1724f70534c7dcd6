"""Settings that do nothing are said in a line."""

import math
from pathlib import Path

import pytest
import yaml

from perceiver_lightning.cli import main
from perceiver_lightning.cli.renamed import Translation
from perceiver_lightning.cli.unused import beyond_the_end, without_effect

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
    ],
)  # fmt: skip
def test_an_option_that_needs_another(config, line):
    (found,) = list(without_effect(config)) or [None]
    assert found == line or found.startswith(line)


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
          "--data.init_args.mixup_off_epoch=1", "--model.init_args.flat=0.1"])  # fmt: skip
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if not line.startswith("data: ")] == [
        "model.init_args.flat: 0.1 has no effect without schedule flat_cosine",
        "data.init_args.augment.mixup_off_epoch: 1 is not reached, as the training has 1 epochs",
    ]
