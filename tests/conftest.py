"""What all tests share: one thread a process, profiles of hypothesis, a tiny run of the command line.

The process that hands out the tests imports this, too, but none of what takes seconds to import.
"""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, settings

# Tests run in a process for each core, and so do the processes that they start.
os.environ["OMP_NUM_THREADS"] = "1"

# `--hypothesis-profile=thorough` tries more examples.
for profile, examples in {"default": 25, "thorough": 200}.items():
    settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("default")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with the config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UV", raising=False)
    from command_line import TINY

    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of two epochs, made once: its folder. Tests that write take a copy."""
    from command_line import TINY

    from perceiver_lightning.cli import main

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with contextlib.chdir(folder):
        main(["fit", "--config=tiny.yaml"])
    return folder / "runs" / "tiny" / "version_0"


@pytest.fixture
def run(trained, here) -> Path:
    """A copy of that run, moved to `runs/tiny/version_0` of the working folder."""
    return Path(shutil.copytree(trained, here / "runs" / "tiny" / "version_0"))


@pytest.fixture
def photos(here):
    from image_files import write_images

    for i in range(5):
        write_images(here / "photos" / str(i), 1, 50 * i, size=(8, 8))
    return here / "photos"
