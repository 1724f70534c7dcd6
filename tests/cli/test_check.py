"""`check`, and the line about the data at the start of each run."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import TINY, fails
from image_files import write_images
from sound_files import write_sound

from perceiver_lightning.cli import main
from perceiver_lightning.cli.check import equal_items

PETS = ["--config=tiny.yaml", "--data=ImageFolder", "--data.init_args.root=pets", "--data.init_args.size=8"]


@pytest.fixture
def pets(here) -> Path:
    """40 images of noise in four folders, and what is not read beside them."""
    for place, folder in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        write_images(here / "pets" / folder, 10, size=(8, 8))
        for i, path in enumerate(sorted((here / "pets" / folder).glob("*.png"))):
            path.write_bytes(path.read_bytes() + bytes([place, i]))  # of equal size, but not of equal content
    (here / "pets" / "train" / "cat" / "notes.md").touch()
    (here / "pets" / "train" / ".hidden").mkdir()
    return here / "pets"


def test_check_says_what_each_split_holds(pets, capsys):
    main(["check", *PETS])
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert rows == [
        ["train", "18", "18 .png", "9 cat, 9 dog"],
        ["val", "2", "2 .png", "1 cat, 1 dog"],
        ["test", "20", "20 .png", "10 cat, 10 dog"],
    ]
    assert [line for line in said.splitlines() if line][-2:] == [
        "left out: 1 .md, 1 hidden",
        "no file is in two of train, val, test",
    ]
    assert not Path("runs").exists()


def test_check_finds_a_copy_in_another_split(pets, capsys):
    shutil.copy(pets / "train" / "dog" / "3.png", pets / "test" / "dog" / "copied.png")
    with pytest.raises(SystemExit) as stop:
        main(["check", *PETS])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "in two splits: 1 of equal content" in said and "= test: test/dog/copied.png" in said


def test_check_without_a_test_split_says_so(pets, capsys):
    shutil.rmtree(pets / "test")
    main(["check", *PETS])
    assert "test: pets: expected a folder for test (test_dir), found folders for train" in capsys.readouterr().out


def test_arrays_are_compared_too_and_what_is_neither_is_counted():
    class Source:
        def __init__(self, *items):
            self.items, self.names = items, [str(i) for i in range(len(items))]

    one, other = np.arange(6), np.arange(6.0)
    splits = {"train": [Source(one, other)], "val": [Source(one.reshape(2, 3), 5)], "test": [Source(other.copy())]}
    assert equal_items(splits) == ([("train: 1", "test: 0")], 4)


def test_check_reads_pairs_by_their_key(here, capsys):
    """Pictures and sounds of the same names: cut once, by name, and what has no counterpart left out."""
    for k, name in enumerate(("cat", "dog")):
        write_images(here / "seen" / name, 20, 100 * k, size=(8, 8))
        for i in range(3, 20):
            write_sound(here / "heard" / name / f"{i}.wav", pitch=200.0 + i + 50 * k)
    parts = {
        "seen": {"class_path": "ImageFolder", "init_args": {"root": "seen", "size": 8}},
        "heard": {"class_path": "AudioFolder", "init_args": {"root": "heard", "val_fraction": 0.5}},
    }
    config = {**TINY, "data": {"class_path": "Paired", "init_args": {"datamodules": parts, "key": "[^.]+"}}}
    Path("pairs.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(SystemExit):  # the images of a class are all alike
        main(["check", "--config=pairs.yaml"])
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    counts = [(split.strip(), int(count)) for split, count in rows]
    assert counts == [("train", 27), ("train", 27), ("val", 3), ("val", 3), ("test", 4), ("test", 4)]


def test_data_that_cannot_be_checked_are_named(here, capsys):
    Path("waves.py").write_text(
        "from datamodules.base import DataModule\n"
        "class Waves(DataModule):\n"
        "    def __init__(self):\n"
        "        super().__init__({'wave': {'channels': 1, 'resolution': [9]}}, num_classes=2)\n"
    )
    sys.path.insert(0, str(here))
    try:
        sentence = fails(capsys, "check", "--config=tiny.yaml", "--data=waves.Waves")
    finally:
        sys.path.remove(str(here))
    assert sentence == "check: expected a datamodule of files, found Waves"


def test_each_run_says_on_stderr_what_it_found(pets, capsys):
    options = [*PETS, "--data.init_args.batch_size=2", "--model.init_args.self_attends=0"]
    main(["fit", *options, "--trainer.max_steps=1"])
    said = capsys.readouterr().err
    assert "data: 18 in train, 2 in val; left out: 1 .md, 1 hidden\n" in said
    few = "data: val has 1 of 'cat', 1 of 'dog': it says little of them; a greater val_fraction takes more\n"
    assert few in said
    main(["fit", *options, "--trainer.max_steps=1", "--data.init_args.val_fraction=0.3"])
    assert "it says little" not in capsys.readouterr().err
    checkpoint = "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt"
    main(["test", checkpoint])
    assert "data: 20 in test\n" in capsys.readouterr().err
    main(["predict", checkpoint, "--data.init_args.predict_dir=pets"])
    assert "data: 40 in predict; left out: 1 .md, 1 hidden\n" in capsys.readouterr().err
