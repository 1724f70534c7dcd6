"""The Free Spoken Digit Dataset."""

import os
import re
from pathlib import Path
from typing import Any

from datamodules.audio.base import Audio
from datamodules.audio.reading import CLIPS
from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.listing import list_files
from datamodules.common.splits import Split, select
from perceiver_lightning.errors import InputError, require

SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]


class FSDD(Audio):
    """Free Spoken Digit Dataset: 3,000 files `<digit>_<speaker>_<index>.wav` of six speakers, 8 kHz, 0.1 to 2.3 s.

    The official test split is the first five of each speaker's fifty of each digit; or whole speakers are the test.
    Validation is cut from the rest with the same share of each digit of each speaker, or is whole speakers, too.

    Args:
        root: the folder of the files, from here or below the folder of all data.
        test_speakers: the speakers that are held out for test; the official split if not given.
        val_speakers: the speakers that are held out for validation, to choose settings for unheard speakers.
        seconds: as all sound has it.
        sample_rate: as all sound has it; 8000 is their own.
        options: as all sound has them.

    Source: https://github.com/Jakobovski/free-spoken-digit-dataset
    """

    def __init__(
        self,
        root: str = "audio/fsdd/recordings",
        test_speakers: list[str] | None = None,
        val_speakers: list[str] | None = None,
        seconds: float = 1.0,
        sample_rate: int = 8000,
        **options: Any,
    ) -> None:
        for key, names in (("test_speakers", test_speakers), ("val_speakers", val_speakers)):
            for name in names or []:
                require(name in SPEAKERS, key, f"names of {', '.join(SPEAKERS)}", name)
        both = sorted(set(test_speakers or []) & set(val_speakers or []))
        require(not both, "val_speakers", "none of test_speakers", both)
        super().__init__(class_facts(10), seconds=seconds, sample_rate=sample_rate, **options)
        self.folder = located(root)
        self.test_speakers = test_speakers
        self.val_speakers = val_speakers or []

    def find_train(self) -> tuple[Split, Split | None]:
        """What is not test; of that, the speakers for validation if there are any."""
        whole = list_fsdd(self.folder)
        speakers = whole.strata or []
        rest = [row for row in range(len(whole.items)) if not self._is_test(whole, row)]
        val = [row for row in rest if speakers[row][1] in self.val_speakers]
        train = [row for row in rest if speakers[row][1] not in self.val_speakers]
        return select(whole, train, "train"), select(whole, val, "val_speakers") if self.val_speakers else None

    def find_test(self) -> Split:
        """The first five of each speaker and digit, or the speakers that are held out."""
        whole = list_fsdd(self.folder)
        return select(whole, [row for row in range(len(whole.items)) if self._is_test(whole, row)], "test")

    def _is_test(self, whole: Split, row: int) -> bool:
        assert whole.strata is not None
        if self.test_speakers:
            return whole.strata[row][1] in self.test_speakers
        return int(whole.names[row].removesuffix(".wav").split("_")[2]) < 5


def list_fsdd(folder: Path) -> Split:
    """All files of the spoken digits, with (digit, speaker) as strata.

    Raises:
        InputError: no such folder or files, or one whose name is not `<digit>_<speaker>_<index>.wav`.
    """
    paths, left_out = list_files(folder, (".wav",), deep=False) if folder.is_dir() else ([], {})
    names = [os.path.basename(path) for path in paths]
    require(len(names) > 0, "root", "a folder of <digit>_<speaker>_<index>.wav", f"none in {folder}")
    strata = []
    for name in names:
        found = re.fullmatch(r"(\d)_([a-z]+)_\d+\.wav", name)
        if not found or found[2] not in SPEAKERS:
            known = ", ".join(SPEAKERS)
            raise InputError(f"{folder / name}: expected <digit>_<speaker>_<index>.wav of {known}, found another name")
        strata.append((found[1], found[2]))
    labels = [int(digit) for digit, _ in strata]
    return Split(paths, names, labels, str(folder), CLIPS, strata=strata, left_out=left_out)
