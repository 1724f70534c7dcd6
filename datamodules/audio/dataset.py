"""The dataset that cuts clips out of sound files."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from datamodules.audio.reading import SPEEDS, decode, faster, piece
from datamodules.common.collate import LATER
from datamodules.common.file_set import FileSet
from datamodules.common.splits import Split


class ClipSet(FileSet):
    """Clips of the sound files of a split, as examples with int16 content (T, C), or (clips, T, C) for several.

    T is `length`, or less where a file has less.

    Args:
        split: the files.
        sample_rate: that files are brought to.
        channels: that files are brought to.
        length: samples of a clip.
        training: whether the clip is a random one; else they are evenly spread, a single one in the middle.
        shift: samples by which a clip of the training split is moved either way, at most; past the ends of the file
            zeros come in.
        speed: share by which a clip of the training split gets faster and higher, or slower and lower, at most;
            one of `SPEEDS` by chance.
        clips: of each file, in evaluation.
    """

    def __init__(
        self,
        split: Split,
        sample_rate: int,
        channels: int,
        length: int,
        training: bool,
        shift: int = 0,
        speed: float = 0.0,
        clips: int = 1,
    ) -> None:
        self.decode = partial(decode, sample_rate=sample_rate, channels=channels)
        super().__init__(split, {"audio": {"sound": "int16", **self.decode.keywords}})
        self.length = length
        self.training = training
        self.shift = shift
        self.speed = speed
        self.clips = clips

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The clip of one file, or its clips."""
        sound = self.content(row)["audio"]
        factor = 1.0
        if self.training and self.speed:
            factor += self.speed * (2 * torch.randint(SPEEDS, (1,)).item() / (SPEEDS - 1) - 1)
        spare = max(0, len(sound) - math.ceil(self.length * factor))
        if self.training:
            starts = (torch.randint(spare + 1, (1,)) + torch.randint(-self.shift, self.shift + 1, (1,))).tolist()
        else:
            # The middles of equal shares: one clip lies in the middle, many reach from end to end.
            starts = [round(spare * s) for s in (np.linspace(0, 1, self.clips) if self.clips > 1 else [0.5])]
        clips = [piece(sound, start, len(sound) - spare) for start in starts]
        if factor != 1.0:
            clips = [faster(clip, factor)[: self.length] for clip in clips]
        content = torch.from_numpy(np.stack(clips) if len(clips) > 1 else clips[0])
        return self.example(row, {"audio": {"content": content, "positions": LATER}})

    def read(self, name: str, row: int) -> np.ndarray:
        """Decode one file: int16 (T, C)."""
        return self.decode(self.split.items[row])
