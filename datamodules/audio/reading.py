"""Sound files decoded, brought to one sample rate and number of channels."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.transforms import Resample

from datamodules.common.splits import Kind
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
