"""Lists of sound files that are not read yet: the names and folders of known sets."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.audio_files import CLIPS
from datamodules.base import require
from datamodules.splits import Split
from datamodules.tables import check_present, read_csv
from perceiver_lightning.errors import InputError

SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]

# fmt: off
ESC50 = [
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind", "pouring_water",
    "toilet_flush", "thunderstorm", "crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps",
    "laughing", "brushing_teeth", "snoring", "drinking_sipping", "door_wood_knock", "mouse_click", "keyboard_typing",
    "door_wood_creaks", "can_opening", "washing_machine", "vacuum_cleaner", "clock_alarm", "clock_tick",
    "glass_breaking", "helicopter", "chainsaw", "siren", "car_horn", "engine", "train", "church_bells", "airplane",
    "fireworks", "hand_saw",
]
ESC10 = [  # in the order of its own release's folders, 001 to 010
    "dog", "rain", "sea_waves", "crying_baby", "clock_tick", "sneezing", "helicopter", "chainsaw", "rooster",
    "crackling_fire",
]
WORDS = [
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy",
    "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
]
# fmt: on


def select(split: Split, rows: Sequence[int], key: str) -> Split:
    """Some clips of a list; InputError that names `key` if there are none."""
    require(len(rows) > 0, key, f"clips of it in {split.where}", "none")
    return split.take(rows)


def list_fsdd(folder: Path) -> Split:
    """All files of the spoken digits, with (digit, speaker) as strata.

    Raises:
        InputError: no such folder or files, or one whose name is not `<digit>_<speaker>_<index>.wav`.
    """
    names = sorted(path.name for path in folder.glob("*.wav"))
    require(len(names) > 0, "root", "a folder of <digit>_<speaker>_<index>.wav", f"none in {folder}")
    strata = []
    for name in names:
        found = re.fullmatch(r"(\d)_([a-z]+)_\d+\.wav", name)
        if not found or found[2] not in SPEAKERS:
            of = ", ".join(SPEAKERS)
            raise InputError(f"{folder / name}: expected <digit>_<speaker>_<index>.wav of {of}, found another name")
        strata.append((found[1], found[2]))
    labels = [int(digit) for digit, _ in strata]
    return Split([str(folder / name) for name in names], names, labels, str(folder), CLIPS, strata=strata)


def list_esc(folder: Path, class_names: Sequence[str], skip_absent: bool) -> tuple[Split, list[int]]:
    """All files of ESC-50 or ESC-10 with their recordings as groups; and the fold of each.

    Raises:
        InputError: neither `meta/esc50.csv` nor, of ESC-10, its folders are there; a name without fold and source; a
            file of the table is absent, unless `skip_absent`.
    """
    table = folder / "meta" / "esc50.csv"
    if table.is_file():
        lines = read_csv(table, ["filename", "category"])
        found = [(folder / "audio" / line["filename"], line["category"]) for line in lines]
        check_present([str(path) for path, name in found if name in class_names], table, skip_absent)
    elif len(class_names) == len(ESC10):
        paths = sorted(path for path in folder.rglob("*") if path.suffix in CLIPS.extensions)
        numbered = [(path, re.match(r"\d+", path.parent.name)) for path in paths]
        found = [(path, ESC10[int(number[0]) - 1]) for path, number in numbered if number and 0 < int(number[0]) <= 10]
    else:
        found = []
    found = [(path, name) for path, name in found if name in class_names]
    layouts = "meta/esc50.csv and audio/" + ("" if len(class_names) > 10 else ", or <number> - <class>/*.ogg")
    require(len(found) > 0, "root", layouts, f"neither in {folder}")
    parts = [re.match(r"([1-5])-(\d+)-", path.name) for path, _ in found]
    for (path, _), part in zip(found, parts, strict=True):
        require(part is not None, str(path), "a name that begins with <fold>-<source>-", "another")
    folds, sources = zip(*((int(part[1]), part[2]) for part in parts if part), strict=True)
    labels = [class_names.index(name) for _, name in found]
    names = [os.path.relpath(path, folder) for path, _ in found]
    return Split([str(path) for path, _ in found], names, labels, str(folder), CLIPS, groups=sources), list(folds)
