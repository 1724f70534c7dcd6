"""The dataset that cuts clips out of sound files."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.audio.reading import SPEEDS, decode, faster, piece
from datamodules.common.cache import Arrays, cached
from datamodules.common.collate import LATER
from datamodules.common.files import FileSet
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
        num_classes: of several labels, which become (num_classes,); None for one label.
        cache_dir: the folder of caches on disk; None to cache in memory, if at all.
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
        num_classes: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__(split)
        self.decode = partial(decode, sample_rate=sample_rate, channels=channels)
        self.length = length
        self.training = training
        self.shift = shift
        self.speed = speed
        self.clips = clips
        self.num_classes = num_classes
        self.cache_dir = cache_dir
        self.arrays: Arrays | None = None

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The clip of one file, or its clips."""
        sound = self.decode(self.split.items[row]) if self.arrays is None else self.arrays[row]
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
        example = self.example(row, {"audio": {"content": content, "positions": LATER}})
        if self.num_classes is not None and "labels" in example:
            labels = torch.zeros(self.num_classes)
            labels[list(example["labels"])] = 1
            example["labels"] = labels
        return example

    def read(self, row: int) -> Tensor:
        """Decode one file: int16 (T, C)."""
        return torch.from_numpy(self.decode(self.split.items[row]))

    def prepare(self, skip_broken: bool, cache: bool) -> list[str]:
        """Decode all files once, as `FileSet.prepare`; if they are cached, into one array, in memory or on disk."""
        if self.prepared or not cache:
            return super().prepare(skip_broken, cache=False)
        title = f"Decoding {self.split.kind.name} of {self.split.where}"
        settings = {"sound": "int16", **self.decode.keywords}
        self.arrays = cached(self.split.items, self.decode, settings, title, skip_broken, self.cache_dir)
        broken = [self.split.names[row] for row in self.arrays.broken]
        self.split = self.split.take([row for row in range(len(self)) if row not in self.arrays.broken])
        self.prepared = True
        return broken
