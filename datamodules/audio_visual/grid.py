"""GRID's spoken sentences."""

import re
from typing import Any, Literal

from datamodules.audio_visual.base import AudioVisual
from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.splits import Split
from datamodules.common.tables import check_present
from datamodules.common.text import read_csv
from datamodules.video.reading import VIDEOS
from perceiver_lightning.errors import require

SENTENCES = {
    "command": ["bin", "lay", "place", "set"],
    "color": ["blue", "green", "red", "white"],
    "preposition": ["at", "by", "in", "with"],
    "letter": list("abcdefghijklmnopqrstuvxyz"),  # no w, whose name is too long
    "digit": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "adverb": ["again", "now", "please", "soon"],
}
ALIGNMENT = "alignment_video_frames"


class GRID(AudioVisual):
    """Sentences of the GRID corpus, "bin blue at f two now": clips of 3 s of a face, and one of the six words to tell.

    Reads `index.csv` (columns clip, split, and the six words) and `clips/<clip>.mp4`; for `centred` clips also its
    column alignment_video_frames, as "sil:0-23;bin:23-29;blue:29-34", in frames of 1/25 s. The splits are train and
    test; validation is cut from train with the same share of each class.

    Args:
        label: the word that is to be told: command, color, preposition, adverb (4 classes each), letter (25), digit.
        root: the folder, from here or below the folder of all data.
        seconds: as all clips have it; 3 is their own.
        centred: the clip lies about the middle of the word, in training and in evaluation, as the corpus' alignment of
            words has it and as data of single words are cut (Lip Reading in the Wild, Chung and Zisserman 2016). So
            pictures alone, too, know when a word is said; which one is left to tell. If not, training takes a random
            piece, evaluation `eval_clips`.
        options: as all clips have them.

    Source: https://doi.org/10.1121/1.2229005 (Cooke, Barker, Cunningham, Shao 2006)
    """

    def __init__(
        self,
        label: Literal["command", "color", "preposition", "letter", "digit", "adverb"],
        root: str = "audiovisual/grid-s1",
        seconds: float = 3.0,
        centred: bool = True,
        **options: Any,
    ) -> None:
        names = SENTENCES[label]
        super().__init__(class_facts(len(names), list(names)), seconds=seconds, **options)
        require(not centred or self.eval_clips == 1, "eval_clips", "1 for clips that are centred", self.eval_clips)
        self.label = label
        self.centred = centred
        self.folder = located(root)

    def find_train(self) -> tuple[Split, None]:
        """The clips of train."""
        return self._list("train"), None

    def find_test(self) -> Split:
        """The clips of test."""
        return self._list("test")

    def _list(self, split: str) -> Split:
        table = self.folder / "index.csv"
        columns = ["clip", "split", self.label, *[ALIGNMENT] * self.centred]
        lines = [line for line in read_csv(table, columns) if line["split"] == split]
        require(len(lines) > 0, str(table), f"clips of the split {split}", "none")
        for line in lines:
            word = line[self.label]
            require(word in self.class_names, f"{table}, {line['clip']}", f"a {self.label} of GRID's", repr(word))
        paths = [str(self.folder / "clips" / f"{line['clip']}.mp4") for line in lines]
        check_present(paths, table, self.skip_broken)
        labels = [self.class_names.index(line[self.label]) for line in lines]
        middles = None
        if self.centred:
            middles = [middle_of(line, self.label, f"{table}, {line['clip']}") for line in lines]
        return Split(paths, [line["clip"] for line in lines], labels, str(self.folder), VIDEOS, middles=middles)


def middle_of(line: dict[str, str], label: str, where: str) -> float:
    """The second in the middle of one of the six words of a sentence, as a line of GRID's table has it; see `GRID`.

    Raises:
        InputError: the alignment has not six words, or another one in that place.
    """
    spans = re.findall(r"([a-z]+):(\d+)-(\d+)", line[ALIGNMENT])
    words = [span for span in spans if span[0] not in ("sil", "sp")]  # silence, and a short pause
    place = list(SENTENCES).index(label)
    fits = len(words) == len(SENTENCES) and words[place][0] == line[label]
    expected = f"{ALIGNMENT} of {len(SENTENCES)} words, with {line[label]!r} as number {place + 1}"
    require(fits, where, expected, repr(line[ALIGNMENT]))
    _, begin, end = words[place]
    return (int(begin) + int(end)) / 2 / 25
