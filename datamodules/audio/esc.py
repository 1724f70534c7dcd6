"""ESC-50 and ESC-10: environmental sounds."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.audio.base import Audio
from datamodules.audio.reading import CLIPS
from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.listing import list_files
from datamodules.common.splits import Split, select
from datamodules.common.tables import check_present
from datamodules.common.text import read_csv
from perceiver_lightning.errors import require

ESC50 = [
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind", "pouring_water",
    "toilet_flush", "thunderstorm", "crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps",
    "laughing", "brushing_teeth", "snoring", "drinking_sipping", "door_wood_knock", "mouse_click", "keyboard_typing",
    "door_wood_creaks", "can_opening", "washing_machine", "vacuum_cleaner", "clock_alarm", "clock_tick",
    "glass_breaking", "helicopter", "chainsaw", "siren", "car_horn", "engine", "train", "church_bells", "airplane",
    "fireworks", "hand_saw",
]  # fmt: skip
# In the order of its own release's folders, 001 to 010.
ESC10 = [
    "dog", "rain", "sea_waves", "crying_baby", "clock_tick", "sneezing", "helicopter", "chainsaw", "rooster",
    "crackling_fire",
]  # fmt: skip


class ESC(Audio):
    """ESC-50, 2,000 environmental sounds of 5 s in 50 classes, or ESC-10, 400 in 10; five folds, one of them the test.

    Reads ESC-50's `meta/esc50.csv` and `audio/`, or, of ESC-10 alone, its own release: a folder a class,
    `<number> - <class>/<fold>-<source>-<take>.ogg`. Validation is cut from the other four folds by recording, so that
    the clips of one recording stay together, the same share of each class as near as that allows; or is a whole fold.

    Args:
        root: the folder, from here or below the folder of all data.
        classes: 50 or 10.
        test_fold: the fold, 1 to 5, that is the test.
        val_fold: the fold that is the validation; null cuts `val_fraction`.
        seconds: as all sound has it.
        options: as all sound has them.

    Source: https://github.com/karolpiczak/ESC-50
    """

    def __init__(
        self,
        root: str = "audio/esc50",
        classes: int = 50,
        test_fold: int = 5,
        val_fold: int | None = None,
        seconds: float = 5.0,
        **options: Any,
    ) -> None:
        require(classes in (10, 50), "classes", "10 or 50", classes)
        require(test_fold in range(1, 6), "test_fold", "a fold from 1 to 5", test_fold)
        others = [fold for fold in range(1, 6) if fold != test_fold]
        require(val_fold in (None, *others), "val_fold", f"null, or one of {others}, as test_fold is not", val_fold)
        names = ESC10 if classes == 10 else ESC50
        super().__init__(class_facts(classes, list(names)), seconds=seconds, **options)
        self.folder = located(root)
        self.test_fold = test_fold
        self.val_fold = val_fold

    def find_train(self) -> tuple[Split, Split | None]:
        """The folds that are neither test nor validation, and the validation fold if there is one."""
        whole, folds = list_esc(self.folder, self.class_names, self.skip_broken)
        train = [row for row, fold in enumerate(folds) if fold not in (self.test_fold, self.val_fold)]
        val = [row for row, fold in enumerate(folds) if fold == self.val_fold]
        return select(whole, train, "train"), select(whole, val, "val_fold") if self.val_fold else None

    def find_test(self) -> Split:
        """The test fold."""
        whole, folds = list_esc(self.folder, self.class_names, self.skip_broken)
        return select(whole, [row for row, fold in enumerate(folds) if fold == self.test_fold], "test_fold")


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
        paths = sorted(map(Path, list_files(folder, CLIPS.extensions)[0]))
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
