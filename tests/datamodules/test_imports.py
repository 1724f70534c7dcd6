"""What importing the datamodules loads, and that their names are said alike wherever they are said."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import datamodules

HEAVY = ["av", "trimesh", "h5py", "torchaudio", "sklearn", "soundfile", "torchvision", "scipy", "PIL"]


def loaded_by(*imports: str) -> set[str]:
    """Those of the heavy libraries that these modules load, in a new process."""
    script = f"import sys, {', '.join(imports)}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_the_package_and_its_contract_load_no_heavy_library():
    assert loaded_by("datamodules") == set()
    # Lightning's metrics load some by themselves.
    assert loaded_by("datamodules.base", "datamodules") == loaded_by("pytorch_lightning")
    assert not loaded_by("pytorch_lightning") & {"av", "trimesh", "h5py", "torchaudio", "sklearn", "soundfile"}


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_class_loads_what_it_needs_alone():
    assert not loaded_by("datamodules.image.folder") & {"av", "trimesh", "h5py", "torchaudio", "soundfile"}
    assert not loaded_by("datamodules.points.folder") & {"av", "h5py", "torchaudio", "soundfile"}
    assert not loaded_by("datamodules.audio.folder") & {"av", "trimesh", "h5py"}


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
