"""What importing the datamodules loads, and that their names are said alike wherever they are said."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import datamodules

HEAVY = ["av", "trimesh", "h5py", "torchaudio", "sklearn", "soundfile", "torchvision", "scipy", "PIL"]

# Each module is imported by a process of its own, forked from one that has Lightning already: that takes seconds.
PROGRAM = f"""
import os, sys

def loaded(module):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        __import__(module)
        print(module, *[name for name in {HEAVY} if name in sys.modules], flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

loaded("datamodules")
loaded("pytorch_lightning")
import pytorch_lightning
for module in ("base", "image.folder", "points.folder", "audio.folder"):
    loaded(f"datamodules.{{module}}")
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_class_loads_what_it_needs_alone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    found = {name: set(heavy) for name, *heavy in map(str.split, done.stdout.splitlines())}
    assert found["datamodules"] == set()
    # Lightning's metrics load some by themselves.
    assert found["datamodules.base"] == found["pytorch_lightning"]
    assert not found["pytorch_lightning"] & {"av", "trimesh", "h5py", "torchaudio", "sklearn", "soundfile"}
    assert not found["datamodules.image.folder"] & {"av", "trimesh", "h5py", "torchaudio", "soundfile"}
    assert not found["datamodules.points.folder"] & {"av", "h5py", "torchaudio", "soundfile"}
    assert not found["datamodules.audio.folder"] & {"av", "trimesh", "h5py"}


def test_every_name_is_said_alike():
    tree = ast.parse(Path(datamodules.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]  # for type checkers
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == {name: f"datamodules.{module}" for name, module in datamodules.MODULES.items()}
    assert sorted(datamodules.__all__) == sorted(datamodules.MODULES) and set(datamodules.__all__) <= set(
        dir(datamodules)
    )


@pytest.mark.parametrize("name", datamodules.__all__)
def test_every_name_is_a_datamodule(name):
    found = getattr(datamodules, name)
    assert issubclass(found, datamodules.DataModule) and found.__name__ == name
    with pytest.raises(AttributeError, match="'datamodules' has no attribute"):
        getattr(datamodules, f"{name}s")
