"""Sound files decoded, brought to one sample rate and number of channels."""

import logging
from functools import lru_cache
from math import ceil
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torchaudio.transforms import Resample

from datamodules.audio.sndfile import read_samples
from datamodules.common.say import say_once
from datamodules.common.splits import Kind
from perceiver_lightning.errors import InputError, require

log = logging.getLogger(__name__)

# What libsndfile reads, and from .m4a on what PyAV reads.
CLIPS = Kind(
    "clips",
    (
        *(".wav", ".flac", ".ogg", ".mp3", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64"),
        *(".rf64", ".bw64", ".wave", ".sph", ".mp2", ".mpga"),
        *(".m4a", ".m4b", ".aac", ".wma", ".mka", ".weba", ".ac3", ".eac3", ".wv", ".tta"),
    ),
    soundfile.SoundFile,
)
FULL_SCALE = 32768
SPEEDS = 33  # that a clip is played at, from the slowest to the fastest in even steps
HIGHEST_RATE = 1_000_000  # Hz; a broken header promises billions, and resampling from there would eat all memory
LONGEST = 2**31  # samples at the rate that is asked for
KERNEL = 2**20  # values of torchaudio's largest kernel; that of 44101 to 16000 Hz would have 700 million
STEP = 1000  # between the rates that soxr is given, at most
MIXED = 128.0  # what sums of sound in [-1, 1] stay below; what is beyond has another scale
LOST = 1e-3  # share of a sound's peak that is next to nothing
QUIET = 4.0  # steps of 16 bits; a peak below is next to nothing where a file has finer ones
OVERSHOT = 2.0  # what lossy codecs stay below that are given sound in [-1, 1]


def decode(path: str | Path, sample_rate: int, channels: int) -> np.ndarray:
    """Decode a file: int16 (T, channels) at `sample_rate`.

    Whatever its channels, mono is their mean, and stereo its first two, or its only one twice. Floats beyond [-1, 1]
    are scaled as `scale_of` says.

    Raises:
        InputError: the file is absent, cannot be decoded, is cut short (where its format tells), or has no samples.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: expected a sound file, found none")
    try:
        sound, own_rate, is_float = read_samples(Path(path)) or _by_pyav(path)
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of many kinds
        found = f"a file that cannot be decoded ({error or type(error).__name__})"
        raise InputError(f"{path}: expected sound, found {found}") from error
    rates = f"a sample rate up to {HIGHEST_RATE} Hz"
    require(1 <= own_rate <= HIGHEST_RATE, str(path), rates, own_rate)
    if not len(sound):
        raise InputError(f"{path}: expected sound, found a clip without samples")
    if len(sound) * sample_rate > LONGEST * own_rate:
        raise InputError(f"{path}: expected up to {LONGEST} samples, found {len(sound)} at {own_rate} Hz")
    sound = scaled(sound, 1.0 if is_float else OVERSHOT, str(path))

    if channels == 1:
        taken = sound.mean(1, keepdims=True)
    else:
        taken = sound[:, :channels] if sound.shape[1] >= channels else sound[:, :1].repeat(channels, 1)
    heard = resampled(taken, own_rate, sample_rate)
    _say_lost(sound, taken, heard, f"{path}", f"the frequencies above {sample_rate / 2:g} Hz (sample_rate)")
    return to_int16(heard)


def _say_lost(sound: np.ndarray, taken: np.ndarray, heard: np.ndarray, path: str, above: str) -> None:
    """Say once that next to nothing is left of a sound: of its channels, at the new rate, or in 16 bits.

    Args:
        sound: all its channels, as floats.
        taken: the channels that are made of them.
        heard: these at the new rate.
        path: the file.
        above: the frequencies that the new rate lacks, for the message.
    """
    whole, kept, last = (float(np.abs(values).max(initial=0)) for values in (sound, taken, heard))
    if kept < LOST * whole:
        made = "mono, the mean of its" if taken.shape[1] == 1 else f"the first {taken.shape[1]} of its"
        line = f"next to nothing is left of its sound in {made} {sound.shape[1]} channels (channels)"
        say_once(log, "silent channels", f"{path}: {line}")
    elif last < LOST * kept:
        say_once(log, "silent rate", f"{path}: next to nothing is left of its sound without {above}")
    else:
        say_quiet(sound, path)


def say_quiet(sound: np.ndarray, path: str) -> None:
    """Say once that next to nothing is left of a sound of floats in 16 bits, unless it has no finer steps itself."""
    steps = sound * np.float32(FULL_SCALE)
    if 0 < (peak := float(np.abs(steps).max(initial=0))) < QUIET and (steps != steps.round()).any():
        line = f"its peak is {peak / FULL_SCALE:.2g} of full scale, of which 16 bits leave next to nothing"
        say_once(log, "quiet", f"{path}: {line}: make files like it louder")


def _by_pyav(path: str | Path) -> tuple[np.ndarray, int, bool]:
    """What `read_samples` cannot read."""
    from datamodules.common.containers import chosen, frames, join_sound, opened, times  # which take PyAV

    with opened(path, "sound") as container:
        stream = chosen(container, "audio")
        if stream is None:
            raise InputError(f"{path}: expected sound, found a file without")
        is_float = stream.codec_context.name.startswith("pcm_f")
        sound, rate, _ = join_sound(times(frames(container, stream, str(path)), 0.0), "flt")
        if container.format.name.startswith("mov") and stream.duration:  # the last packet of a codec is filled up
            sound = sound[: ceil(stream.duration * stream.time_base * rate)]
    return sound, rate, is_float


def scaled(sound: np.ndarray, most: float, where: str) -> np.ndarray:
    """Sound that is scaled to [-1, 1] where floats reach beyond, each file by itself; one line says so.

    Up to `MIXED`, as a sum of several sounds is, it is divided by its peak. Whole numbers, and what is beyond, are
    integers that were stored as floats: they are divided by the full scale of 16, 24 or 32 bits.

    Args:
        sound: any floats.
        most: up to here it is left as it is; `to_int16` clips it.
        where: the file, for messages.

    Raises:
        InputError: a value is not finite.
    """
    peak = float(np.abs(sound).max())
    if not np.isfinite(peak):
        raise InputError(f"{where}: expected finite samples, found NaN or infinity")
    if peak <= most:
        return sound
    divisor, what = peak, "their peak"
    if peak > MIXED or (sound == sound.round()).all():
        full = next((2.0**bits for bits in (15, 23, 31) if peak <= 2.0**bits * 1.5), peak)
        divisor, what = (full, f"{full:.0f}") if peak < full else (peak, "their peak")
    line = f"found samples up to {peak:g}, where full scale is 1: files like it are divided by {what}"
    say_once(log, f"beyond full scale, {what}", f"{where}: {line}")
    return sound / np.float32(divisor)


def to_int16(sound: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as int16; what is beyond is clipped."""
    return (sound * FULL_SCALE).round().clip(1 - FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def resampled(sound: np.ndarray, own_rate: int, sample_rate: int) -> np.ndarray:
    """Sound (T, C) at another rate: (ceil(T * sample_rate / own_rate), C).

    By torchaudio; where its kernel would be too large, as for rates without a common divisor, by soxr.
    """
    if own_rate == sample_rate:
        return sound
    common = np.gcd(own_rate, sample_rate)
    own, new = own_rate // common, sample_rate // common
    width = ceil(6 * own / (0.99 * min(own, new)))  # torchaudio's defaults: 6 zero crossings, 0.99 of the lower rate
    if new * (own + 2 * width) <= KERNEL:
        return _resampler(own_rate, sample_rate)(torch.from_numpy(sound.T.copy())).numpy().T
    length = -(-len(sound) * new // own)
    behind = np.zeros((own // new + 1, sound.shape[1]), sound.dtype)  # soxr rounds down, torchaudio up
    sound = np.concatenate([sound, behind])
    # In two steps where rates are far apart: in one soxr takes minutes.
    for rate in (own * STEP, new) if new > STEP * own else (new * STEP, new) if own > STEP * new else (new,):
        sound, own = soxr.resample(sound, own, rate), rate
    return sound[:length]


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
