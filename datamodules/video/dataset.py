"""The dataset that cuts clips out of videos: pictures, sound, or both from the same seconds.

Legend: T pictures or samples, H height, W width, C channels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.audio.reading import piece
from datamodules.common.collate import LATER
from datamodules.common.file_set import FileSet
from datamodules.common.splits import Split


def cut_pictures(pictures: np.ndarray, start: float, shift: float, fps: float, frames: int, seconds: float) -> Any:
    """The pictures (T, H, W, C) of the `frames` equal parts of `seconds` from `start` on, in the middle of each.

    Fewer where the file ends early, but one at the least if it has any. A `shift` moves the clip without changing how
    many there are: the first and the last picture stay on.
    """
    middles = start + (np.arange(frames) + 0.5) * (seconds / frames)
    count = max(int((middles * fps < len(pictures)).sum()), min(1, len(pictures)))
    rows = np.floor((middles[:count] + shift) * fps).astype(int)
    return pictures[rows.clip(0, max(0, len(pictures) - 1))]


def cut_sound(sound: np.ndarray, start: float, shift: float, sample_rate: int, seconds: float) -> Any:
    """The samples (T, C) of `seconds` from `start` on; fewer where the file ends early.

    A `shift` moves the clip without changing how many there are: zeros come in.
    """
    first = round(start * sample_rate)
    length = min(round(seconds * sample_rate), max(0, len(sound) - first))
    return piece(sound, first + round(shift * sample_rate), length)


class Track(NamedTuple):
    """What is read of a file: pictures or sound.

    Attributes:
        decode: of a path, all there is, (T, *tail); its keywords tell caches apart. T = 0 if the file has none.
        cut: of that, a start and a shift in seconds, the clip.
        rate: of T, a second.
    """

    decode: "partial[np.ndarray]"
    cut: Callable[[np.ndarray, float, float], np.ndarray]
    rate: float


class VideoSet(FileSet):
    """Clips of the files of a split, each of their tracks a modality, cut from the same seconds.

    Content is as decoded, (T, *tail), or (clips, T, *tail) for several clips. A track that a clip lacks is left out; a
    file that has none of them is broken.

    Args:
        split: the files; where it has `middles`, the clip of a file lies about its own, within the file.
        tracks: name of each modality -> how it is read.
        seconds: length of a clip.
        training: whether the clip is a random one; else they are evenly spread, a single one in the middle.
        shift: seconds by which a clip of the training split is moved either way, at most.
        clips: of each file, in evaluation.
        finish: what is done to an example last, which has its name.
    """

    def __init__(
        self,
        split: Split,
        tracks: Mapping[str, Track],
        seconds: float,
        training: bool,
        shift: float = 0.0,
        clips: int = 1,
        finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(split, {name: {"track": name, **track.decode.keywords} for name, track in tracks.items()})
        self.tracks = tracks
        self.seconds = seconds
        self.training = training
        self.shift = shift
        self.clips = clips
        self.finish = finish

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The clip of one file, or its clips."""
        whole = self.content(row)
        length = max(len(array) / self.tracks[name].rate for name, array in whole.items())
        spare = max(0.0, length - self.seconds)
        drawn, moved = torch.rand(2).tolist() if self.training else (0.5, 0.5)
        shift = self.shift * (2 * moved - 1)
        if self.split.middles is not None:
            starts = [min(max(self.split.middles[row] - self.seconds / 2, 0.0), spare)]
        elif self.training:
            starts = [spare * drawn]
        else:
            # The middles of equal shares: one clip lies in the middle, many reach from end to end.
            starts = [spare * s for s in (np.linspace(0, 1, self.clips).tolist() if self.clips > 1 else [0.5])]
        inputs = {}
        for name, array in whole.items():
            clips = [self.tracks[name].cut(array, start, shift) for start in starts]
            if any(map(len, clips)):
                part = _stacked(clips) if len(clips) > 1 else {"content": torch.from_numpy(clips[0])}
                inputs[name] = {**part, "positions": LATER}
        example = self.example(row, inputs)
        return example if self.finish is None else self.finish(example)

    def read(self, name: str, row: int) -> np.ndarray:
        """Decode one track of one file: (T, *tail), T = 0 if it has none."""
        return self.tracks[name].decode(self.split.items[row])


def _stacked(clips: list[np.ndarray]) -> dict[str, Tensor]:
    """The clips of one file as one part of an example, masked where they end early."""
    lengths = torch.tensor([len(clip) for clip in clips])
    content = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    if len(lengths.unique()) == 1:
        return {"content": content}
    there = torch.arange(content.shape[1]) < lengths[:, None]
    return {"content": content, "mask": there.view(*there.shape, *[1] * (content.ndim - 3)).expand(content.shape[:-1])}
