"""Runs of W&B that are read without it; `tests/test_wandb.py` reads back what the command line wrote."""

import math

import pytest

from perceiver_lightning.analysis.runs import Incomplete, read_run
from perceiver_lightning.analysis.wandb_files import numbers, parts, wandb_file
from perceiver_lightning.compare import main
from perceiver_lightning.errors import InputError


def test_numbers_without_pictures_tables_and_wandb_s_own():
    item = {
        "_step": 7,
        "_runtime": 1.5,
        "trainer/global_step": 20,
        "val/loss": 2,
        "val/nan": "NaN",
        "val/far": "-Infinity",
        "val/map._type": "image-file",
        "val/map.height": 32,
        "val/map.path": "media/x.png",
        "val/mapped": 0.5,
        "words": "abc",
    }
    found = numbers(item)
    assert math.isnan(found.pop("val/nan"))
    assert found == {"step": 20, "val/loss": 2, "val/far": -math.inf, "val/mapped": 0.5}
    assert numbers({"_step": 7, "loss": 1.0}) == {"step": 7, "loss": 1.0}  # not Lightning's


def test_a_run_is_found_by_file_or_folder_and_with_all_its_parts(tmp_path):
    names = ["offline-run-20260102_000000-abc", "run-20260101_000000-abc", "offline-run-20260101_000000-xyz"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"run-{name[-3:]}.wandb").touch()
    file = tmp_path / names[0] / "run-abc.wandb"
    (tmp_path / "latest-run").symlink_to(file.parent)
    assert wandb_file(file) == wandb_file(file.parent) == file
    assert wandb_file(tmp_path) is wandb_file(tmp_path / "none") is wandb_file(tmp_path / "none.wandb") is None
    assert parts(tmp_path / "latest-run" / "run-abc.wandb") == [tmp_path / names[1] / "run-abc.wandb", file]


def test_a_broken_file_is_named_and_an_empty_one_is_no_run_yet(tmp_path, capsys):
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    file = folder / "run-abc.wandb"
    file.write_text("nonsense")
    with pytest.raises(InputError, match=f"{file}: expected a run of Weights & Biases, found another or a broken file"):
        read_run(folder)
    file.write_text("")
    with pytest.raises(Incomplete, match=f"{file}: expected metrics, found none"):
        read_run(folder)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "wandb")])
    assert f"did you mean {folder}?" in capsys.readouterr().err
