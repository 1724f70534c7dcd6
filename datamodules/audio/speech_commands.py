"""Speech Commands: spoken words."""

from pathlib import Path
from typing import Any

import torchaudio

from datamodules.audio.base import Audio
from datamodules.audio.reading import CLIPS
from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.listing import is_hidden
from datamodules.common.splits import Split
from perceiver_lightning.errors import InputError, require

WORDS = [
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy",
    "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop",
    "three", "tree", "two", "up", "visual", "wow", "yes", "zero",
]  # fmt: skip


class SpeechCommands(Audio):
    """Speech Commands v2: 105,829 spoken words of at most a second, 16 kHz, in 35 classes, with its own three splits.

    torchaudio lists the files, and downloads them if asked to.

    Args:
        root: the folder that holds `SpeechCommands/speech_commands_v0.02/`, from here or below the folder of all data.
        download: fetch the files if they are missing.
        options: as all sound has them.

    Source: https://arxiv.org/abs/1804.03209
    """

    def __init__(self, root: str = "audio", download: bool = False, **options: Any) -> None:
        super().__init__(class_facts(len(WORDS), list(WORDS)), **options)
        self.folder = located(root)
        self.download = download

    def prepare_data(self) -> None:
        """Download the set if asked to; on one process of each machine."""
        if self.download:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._list("testing", download=True)

    def find_train(self) -> tuple[Split, Split | None]:
        """The official train and validation splits."""
        return self._list("training"), self._list("validation")

    def find_test(self) -> Split:
        """The official test split."""
        return self._list("testing")

    def _list(self, subset: str, download: bool = False) -> Split:
        try:
            files = torchaudio.datasets.SPEECHCOMMANDS(self.folder, subset=subset, download=download)
        # RuntimeError for a folder or checksum, OSError for a list of files that is missing or for the network.
        except (RuntimeError, OSError) as error:
            raise InputError(
                f"root: expected SpeechCommands/speech_commands_v0.02 in {self.folder}, or download: true and a "
                f"network, found: {error}"
            ) from error
        about = [files.get_metadata(row) for row in range(len(files))]
        about = [one for one in about if not any(map(is_hidden, Path(one[0]).parts))]
        for path, _, word, *_ in about:
            require(word in WORDS, str(self.folder / path), "a folder named by one of the 35 words", word)
        paths = [str(self.folder / "SpeechCommands" / path) for path, *_ in about]
        labels = [WORDS.index(word) for _, _, word, *_ in about]
        return Split(paths, [path for path, *_ in about], labels, str(self.folder), CLIPS)
