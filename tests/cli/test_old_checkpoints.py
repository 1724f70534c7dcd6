"""Checkpoints of an earlier version load, test and resume with their own settings, and find what they found then."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from command_line import column
from old_checkpoints import KINDS

from perceiver_lightning.cli import main

FOLDER = Path(__file__).parent.parent / "old_checkpoints"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


@pytest.fixture(params=KINDS)
def kind(request, here) -> str:
    """The data of a kind, made up in the working folder, and its checkpoint."""
    KINDS[request.param][0]()
    shutil.copy(FOLDER / f"{request.param}.ckpt", "old.ckpt")
    return request.param


def test_an_old_checkpoint_tests_as_it_did(kind):
    found = main(["test", "--ckpt_path=old.ckpt"]).trainer.callback_metrics
    assert {name: float(value) for name, value in found.items()} == pytest.approx(EXPECTED[kind]["test"], rel=1e-4)


@pytest.mark.slow
def test_an_old_checkpoint_resumes_as_it_did(kind):
    resumed = main(["fit", "--ckpt_path=old.ckpt", "--trainer.max_epochs=3"])
    expected = dict(EXPECTED[kind]["resumed"])
    assert resumed.trainer.global_step == expected.pop("step")
    run = Path("runs") / kind / "version_0"
    found = {name: list(column(run, name).values()) for name in expected}
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-3), name


def test_its_settings_are_its_own(here):
    KINDS["image"][0]()
    main(["fit", f"--ckpt_path={FOLDER / 'image.ckpt'}", "--trainer.max_epochs=3", "--trainer.limit_train_batches=1"])
    config = yaml.safe_load(Path("runs/image/version_0/config.yaml").read_text())
    assert config["data"]["class_path"] == "datamodules.ImageFolder"
    data = config["data"]["init_args"]
    assert data["augment"]["mixup"] == 0.2 and data["augment"]["random_resized_crop"] == [0.5, 1.0]
    assert data["cache"] == "memory" and data["balanced_sampling"] is True
    assert config["trainer"]["gradient_clip_val"] is None  # it did not clip, whatever the default is now
    assert config["early_stopping"]["patience"] == 10
