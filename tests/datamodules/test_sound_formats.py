"""Sound files of many formats, by writers of their own, against what was written and other decoders."""

import logging
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile
from sound_files import tone, write_by_pyav

from datamodules.audio import reading
from datamodules.audio.reading import decode, resampled
from perceiver_lightning.errors import InputError

EXACT = 32768


def sines(samples: int, rate: int = 8000) -> np.ndarray:
    """(T,) of two pitches, within [-1, 1]."""
    time = np.arange(samples) / rate
    return (0.5 * np.sin(2 * np.pi * 440 * time) + 0.3 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)


def wav(data: bytes, size: int | None = None, tail: bytes = b"", bits: int = 16, channels: int = 1) -> bytes:
    """A WAV file by hand: its `data`, what its header says of their size, and what follows."""
    block = channels * bits // 8
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, channels, 8000, 8000 * block, block, bits)
    body = head + b"data" + struct.pack("<I", len(data) if size is None else size) + data + tail
    return b"RIFF" + struct.pack("<I", len(body)) + body


LIST = b"LIST" + struct.pack("<I", 18) + b"INFOISFT" + struct.pack("<I", 6) + b"abcde\0"


# ---------------------------------------------------------------- values


@given(st.data())
def test_pcm_of_any_width_is_what_was_written(tmp_path_factory, data):
    """soundfile, scipy and wave write whole numbers; 16 bits of them are read."""
    folder = tmp_path_factory.mktemp("a")
    channels, samples = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 50))
    seed = data.draw(st.integers(0, 2**16))
    whole = np.random.default_rng(seed).integers(-(2**31), 2**31, (samples, channels), np.int32)
    writer = data.draw(st.sampled_from(["wave 8", "wave 16", "wave 24", "wave 32", "scipy 16", "scipy 32", "scipy 64"]))
    name, bits = writer.split()
    bits = int(bits)
    kept = whole >> (32 - bits) if bits < 32 else whole
    if name == "wave":
        octets = kept.astype("<i4").view(np.uint8).reshape(samples, channels, 4)[..., : bits // 8]
        octets = (kept + 128).astype(np.uint8) if bits == 8 else octets
        with wave.open(str(folder / "a.wav"), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(bits // 8)
            file.setframerate(8000)
            file.writeframes(octets.tobytes())
    else:
        values = kept.astype(f"i{bits // 8}") << (32 if bits == 64 else 0)
        wavfile.write(folder / "a.wav", 8000, values)
    expected = (kept / 2.0 ** (min(bits, 32) - 1))[:, :2]
    expected = expected if channels > 1 else expected.repeat(2, 1)
    found = decode(folder / "a.wav", 8000, 2)
    assert np.abs(found - (expected * EXACT).clip(-32767, 32767)).max() <= 0.51


CODECS = [  # by soundfile: ending, its format, its subtype, how far a sample may be off, in 16 bits
    *((".wav", "WAV", kind, off) for kind, off in {"FLOAT": 1, "DOUBLE": 1, "PCM_U8": 257, "ULAW": 700}.items()),
    *((".wav", "WAV", kind, off) for kind, off in {"ALAW": 700, "IMA_ADPCM": 4000, "MS_ADPCM": 4000}.items()),
    *((".wav", "WAV", kind, 9000) for kind in ("GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_32")),
    *((".wav", "WAVEX", kind, 1) for kind in ("PCM_24", "PCM_32", "FLOAT")),
    *((".rf64", "RF64", kind, 1) for kind in ("PCM_16", "PCM_24", "FLOAT")),
    *((".w64", "W64", kind, 1) for kind in ("PCM_16", "PCM_24", "DOUBLE")),
    *((".aif", "AIFF", kind, 1) for kind in ("PCM_16", "PCM_24", "FLOAT", "DOUBLE")),
    (".aiff", "AIFF", "PCM_S8", 257),
    (".aifc", "AIFF", "ULAW", 800),
    *((".au", "AU", kind, 1) for kind in ("PCM_16", "PCM_32", "FLOAT")),
    (".au", "AU", "G721_32", 9000),
    (".snd", "AU", "ALAW", 700),
    *((".caf", "CAF", kind, 1) for kind in ("PCM_16", "PCM_24", "FLOAT", "ALAC_16", "ALAC_24")),
    *((".flac", "FLAC", kind, off) for kind, off in {"PCM_16": 1, "PCM_24": 1, "PCM_S8": 257}.items()),
    (".sph", "NIST", "PCM_16", 1),
    (".wav", "NIST", "ULAW", 800),
    (".oga", "OGG", "VORBIS", 3000),
    (".opus", "OGG", "OPUS", 3000),
    (".mp3", "MP3", "MPEG_LAYER_III", 3000),
]


@pytest.mark.parametrize("ending, form, kind, off", CODECS)
def test_each_codec_of_soundfile(tmp_path, ending, form, kind, off):
    path, sound = tmp_path / f"a{ending.upper()}", sines(8003)
    soundfile.write(path, sound, 8000, format=form, subtype=kind)
    found = decode(path, 8000, 1)[:, 0]
    # Codecs of blocks fill the last one up.
    assert 0 <= len(found) - len(sound) < (1100 if off > 3000 else 1)
    expected = (sound.astype(float) * EXACT)[200:7500]
    if off > 3000:
        assert np.corrcoef(found[200:7500], expected)[0, 1] > 0.9
    else:
        assert np.abs(found[200:7500] - expected).max() <= off
    whole = path.read_bytes()
    for share in (0.3, 0.8):
        path.write_bytes(whole[: round(share * len(whole))])
        with pytest.raises(InputError, match=f"^{path}: expected .*, found "):
            decode(path, 8000, 1)


CONTAINERS = [  # by PyAV: ending, codec, its format, how far a sample may be off, whether a cut can be told
    (".m4a", "aac", None, 3000, True),
    (".m4a", "alac", None, 0.51, True),
    (".m4b", "aac", "ipod", 3000, True),
    (".mp4", "aac", None, 3000, True),
    (".mp4", "flac", None, 0.51, True),
    (".aac", "aac", None, 3000, False),
    (".wma", "wmav2", None, 3000, True),
    (".mka", "flac", None, 0.51, True),
    (".mka", "pcm_s24le", None, 0.51, True),
    (".weba", "libopus", "webm", 3000, True),
    (".webm", "libopus", None, 3000, True),
    (".ac3", "ac3", None, 3000, False),
    (".eac3", "eac3", None, 3000, False),
    (".wv", "wavpack", None, 0.51, True),
    (".tta", "tta", None, 0.51, True),
    (".mp2", "mp2", None, 3000, False),
    (".mpga", "libmp3lame", "mp3", 3000, True),
    (".oga", "flac", "oga", 0.51, True),
    (".opus", "libopus", None, 3000, True),
    (".wav", "pcm_s64le", None, 0.51, False),
    (".wav", "adpcm_yamaha", None, 4000, True),
    (".wav", "ac3", None, 3000, True),
    (".aiff", "pcm_s24be", None, 0.51, True),
    (".caf", "pcm_s16be", None, 0.51, True),
    (".w64", "pcm_f32le", None, 0.51, True),
]


@pytest.mark.parametrize("ending, codec, form, off, tells", CONTAINERS)
def test_each_container_of_pyav(tmp_path, ending, codec, form, off, tells):
    path = tmp_path / f"a{ending}"
    sound = sines(96001, 48000)
    write_by_pyav(path, sound, 48000, codec, form)
    found = decode(path, 48000, 1)[:, 0].astype(float)
    expected = sound.astype(float) * EXACT
    assert abs(len(found) - len(sound)) <= (1 if off < 1 else 4096)
    if off < 1:
        assert np.abs(found[: len(sound)] - expected).max() <= off
    else:  # codecs that begin with some silence: at the place where it fits
        shifts = range(-3000, 3000)
        piece = expected[20000:20500]
        errors = [np.abs(found[20000 + k : 20500 + k] - piece).max() for k in shifts]
        assert min(errors) <= off
    whole = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(whole[: round(share * len(whole))])
        if tells:
            with pytest.raises(InputError, match=f"^{path}: expected .*, found "):
                decode(path, 48000, 1)
