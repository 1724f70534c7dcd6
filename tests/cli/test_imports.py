"""What the start of a command loads: no data set's own library, unless a data set of its kind is named."""

import subprocess
import sys

import pytest
import yaml

import datamodules
from perceiver_lightning.cli import main
from perceiver_lightning.cli.classes import find_class, known_classes

# What only some commands need. Lightning itself loads matplotlib, scipy and torchvision, by way of torchmetrics.
HEAVY = (
    *("av", "trimesh", "h5py", "soundfile", "torchaudio", "sklearn"),
    *("timm", "optuna", "wandb", "tensorboard", "transformers.models.perceiver"),
)


PROGRAM = f"""
import sys

def loaded():
    print(*[name for name in {HEAVY!r} if name in sys.modules])

import perceiver_lightning.cli
loaded()
from perceiver_lightning.cli.classes import import_named
import_named(["fit", "--data", "PointFolder"])
loaded()
import_named(["data: {{class_path: Digits}}"])
loaded()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_command_loads_nothing_that_only_others_need():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    start, points, digits = (set(line.split()) for line in done.stdout.splitlines())
    assert start == set()
    assert not points & {"av", "soundfile", "torchaudio"}
    assert not digits & {"av", "soundfile", "torchaudio"}


@pytest.mark.parametrize("name", datamodules.__all__)
def test_every_data_set_has_a_short_name(name):
    assert find_class("data", name) is find_class("data", f"datamodules.{name}") is getattr(datamodules, name)
    assert name in known_classes("data")


@pytest.mark.slow
def test_short_and_long_names_come_out_as_the_public_path(here, capsys):
    for data in ("Digits", "datamodules.Digits", "datamodules.image.digits.Digits", "datamodules.images.Digits"):
        for task in ("ClassificationTask", "perceiver_lightning.tasks.classification.ClassificationTask"):
            with pytest.raises(SystemExit) as stop:
                main(["fit", "--config=tiny.yaml", f"--data={data}", f"--model={task}", "--print_config"])
            assert stop.value.code == 0
            whole = yaml.safe_load(capsys.readouterr().out)
            assert whole["data"]["class_path"] == "datamodules.Digits"
            assert whole["model"]["class_path"] == "perceiver_lightning.tasks.ClassificationTask"
