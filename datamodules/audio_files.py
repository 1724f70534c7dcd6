"""Sound from files: decoded, brought to one sample rate and number of channels, cut into clips of one length."""

import math
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from datamodules.cache import Arrays, cached
from datamodules.collate import LATER
from datamodules.file_base import FileSet
from datamodules.splits import Kind, Split
from perceiver_lightning.errors import InputError

CLIPS = Kind("clips", (".wav", ".flac", ".ogg", ".mp3"), soundfile.SoundFile)
FULL_SCALE = 32768
SPEEDS = 33  # that a clip is played at, from the slowest to the fastest in even steps
PAGE = 27 + 255 + 255 * 255  # bytes of the longest page of an Ogg file (RFC 3533)
HIGHEST_RATE = 1_000_000  # Hz; a broken header promises billions, and resampling from there would eat all memory


def decode(path: str | Path, sample_rate: int, channels: int) -> np.ndarray:
    """Decode a file: int16 (T, channels) at `sample_rate`.

    Whatever its channels, mono is their mean, and stereo its first two, or its only one twice. What lies beyond full
    scale is clipped.

    Raises:
        InputError: the file is absent, cannot be decoded, is cut short (where its format tells), or has no samples.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: expected a sound file, found none")
    try:
        with CLIPS.open(path) as file:
            frames, own_rate, log, form = file.frames, file.samplerate, file.extra_info, file.format
            sound = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{path}: expected sound, found a file that cannot be decoded ({error})") from error
    # libsndfile corrects a wav's header that promises more than there is, in its log alone. Where it promises all that
    # fits into 32 bits, or half of that, the writer could not go back to fill it in, and the end is the end.
    short = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if short and int(short[1]) < 0x7FFFF000:
        raise InputError(f"{path}: expected {short[1]} bytes of sound, as its header says, found {short[2]}")
    if len(sound) < frames:
        raise InputError(f"{path}: expected {frames} samples, as its header says, found {len(sound)}")
    if form == "OGG" and _ends_in_a_page(Path(path)):
        raise InputError(f"{path}: expected a whole Ogg file, found one that is cut short")
    if own_rate > HIGHEST_RATE:
        raise InputError(f"{path}: expected a sample rate up to {HIGHEST_RATE} Hz, found {own_rate}")
    if not len(sound):
        raise InputError(f"{path}: expected sound, found a clip without samples")
    if not np.isfinite(sound).all():
        raise InputError(f"{path}: expected finite samples, found NaN or infinity")

    if channels == 1:
        sound = sound.mean(1, keepdims=True)
    else:
        sound = sound[:, :channels] if sound.shape[1] >= channels else sound[:, :1].repeat(channels, 1)
    if own_rate != sample_rate:
        sound = _resampler(own_rate, sample_rate)(torch.from_numpy(sound.T.copy())).numpy().T
    return (sound * FULL_SCALE).round().clip(1 - FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _ends_in_a_page(path: Path) -> bool:
    """Whether an Ogg file is cut short: of what is before the end of its last page libsndfile says nothing."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - PAGE))
        rest = file.read()
    page = rest[rest.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(lengths)


@lru_cache
def _resampler(own_rate: int, sample_rate: int) -> Resample:
    return Resample(own_rate, sample_rate)


def piece(sound: np.ndarray, start: int, length: int) -> np.ndarray:
    """A copy of a piece (length, C) of sound (T, C), zero where it reaches past an end."""
    first, last = (min(max(0, place), len(sound)) for place in (start, start + length))
    copy = np.zeros((length, *sound.shape[1:]), sound.dtype)
    copy[first - start : last - start] = sound[first:last]
    return copy


def faster(sound: np.ndarray, factor: float) -> np.ndarray:
    """Sound (T, C) played `factor` times as fast, and as high: (T / factor, C), linear between samples."""
    # NumPy and a table: for a single clip torch would wake all its threads, which takes longer than the work.
    count = round(len(sound) / factor)
    before, share = (table[:count] for table in _places(1 << max(0, count - 1).bit_length(), factor))
    left, right = sound.take(before, 0), (sound[1:] if len(sound) > 1 else sound).take(before, 0, mode="clip")
    heard = np.subtract(right, left, dtype=np.float32)
    heard *= share
    heard += left
    return np.rint(heard, out=heard).astype(sound.dtype)


@lru_cache(4 * SPEEDS)
def _places(count: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each of `count` samples heard: the own one at or before it, and how far it is past that, (count, 1)."""
    places = np.arange(count) * factor
    before = places.astype(np.intp)
    return before, (places - before).astype(np.float32)[:, None]


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
