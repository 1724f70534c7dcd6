"""Lists of sound files that are not read yet: the names and folders of known sets, and tables of paths and labels."""

import csv
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.audio_files import CLIPS
from datamodules.base import located, require
from datamodules.splits import Split
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


def list_esc(folder: Path, class_names: Sequence[str]) -> tuple[Split, list[int]]:
    """All files of ESC-50 or ESC-10 with their recordings as groups; and the fold of each.

    Raises:
        InputError: neither `meta/esc50.csv` nor, of ESC-10, its folders are there; a name without fold and source.
    """
    table = folder / "meta" / "esc50.csv"
    if table.is_file():
        lines = read_csv(table, ["filename", "category"])
        found = [(folder / "audio" / line["filename"], line["category"]) for line in lines]
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


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV by its columns' names.

    Raises:
        InputError: it is absent or no text, lacks a column, has no line, or a line with another number of columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            lines, found = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file, found one that cannot be read ({error})") from error
    require(set(columns) <= set(found), str(path), f"the columns {', '.join(columns)}", ", ".join(found) or "none")
    require(len(lines) > 0, str(path), "a line for each clip", "none")
    for number, line in enumerate(lines, 2):
        uneven = None in line or None in line.values()
        require(not uneven, f"{path}, line {number}", f"{len(found)} columns, as the first line has", "another number")
    return lines


class Table:
    """A CSV of paths, labels and folds; see `datamodules.audio.AudioTable` for the arguments.

    Attributes:
        class_names: all labels, sorted; None if the CSV is absent.
        num_classes: how many there are, or, if the CSV is absent, how many are said to be.
    """

    def __init__(
        self,
        table: str,
        path_column: str,
        label_column: str,
        label_separator: str | None,
        fold_column: str | None,
        num_classes: int | None,
    ) -> None:
        self.path = Path(table) if Path(table).is_file() else located(None) / table
        self.path_column, self.label_column, self.fold_column = path_column, label_column, fold_column
        self.separator = label_separator
        self.class_names: list[str] | None = None
        self.num_classes = num_classes or 0
        if self.path.is_file() or num_classes is None:
            self.class_names = sorted({name for line in self._lines() for name in self._labels(line)})
            self.num_classes = len(self.class_names)
            counts = (None, self.num_classes)
            require(num_classes in counts, "num_classes", f"{self.num_classes}, the labels in {self.path}", num_classes)

    def split(self, wanted: Callable[[str], bool], key: str, skip_absent: bool) -> Split:
        """The clips of the folds that are wanted, not read yet.

        Raises:
            InputError: there are none, naming `key`; a file is absent, unless that is to be skipped when it is read.
        """
        lines = self._lines()
        chosen = [line for line in lines if self.fold_column is None or wanted(line[self.fold_column])]
        folds = sorted({line[self.fold_column] for line in lines}) if self.fold_column else []
        require(len(chosen) > 0, key, f"clips of it in {self.path}", f"the folds {', '.join(folds)}")
        names = [line[self.path_column] for line in chosen]
        paths = [str(self.path.parent / name) for name in names]
        absent = [] if skip_absent else [path for path in paths if not os.path.isfile(path)]
        if absent:
            raise InputError(
                f"{self.path}: expected the files it names, found {len(absent)} of {len(paths)} absent, as {absent[0]}"
            )
        classes = {name: label for label, name in enumerate(self.class_names or [])}
        several = [tuple(classes[name] for name in self._labels(line)) for line in chosen]
        if self.separator is None:
            return Split(paths, names, [label for (label,) in several], str(self.path), CLIPS)
        return Split(paths, names, several, str(self.path), CLIPS, strata=[0] * len(paths))  # no shares to keep

    def _lines(self) -> list[dict[str, str]]:
        columns = [self.path_column, self.label_column, self.fold_column]
        return read_csv(self.path, [column for column in columns if column is not None])

    def _labels(self, line: dict[str, str]) -> list[str]:
        text = line[self.label_column]
        if self.separator is not None:
            return [name.strip() for name in text.split(self.separator) if name.strip()]
        require(text.strip() != "", f"{self.path}, {line[self.path_column]}", "a label", "none")
        return [text.strip()]
