"""Sound files of many formats, by writers of their own, against what was written and other decoders."""

import logging
import os
import struct
import time
import wave

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile
from sound_files import DATA, EXACT, sines, wav, write_by_pyav

from datamodules.audio import reading
from datamodules.audio.reading import decode, resampled
from perceiver_lightning.errors import InputError

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
    path, sound = tmp_path / f"a{ending.upper()}", sines(8004)
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


@pytest.mark.slow
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


# ---------------------------------------------------------------- floats beyond full scale


@pytest.fixture
def said(caplog, monkeypatch):
    """What is logged, as in a process that has said nothing yet."""
    monkeypatch.setattr("datamodules.common.say._said", set())
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("peak, divisor", [(1.0, 1), (1.3, 1.3), (5.7, 5.7), (9830.4, 32768), (40000.0, 40000)])
def test_floats_are_read_on_their_scale(tmp_path, said, dtype, peak, divisor):
    sound = sines(4000)
    sound *= peak / np.abs(sound).max()
    wavfile.write(tmp_path / "a.wav", 8000, sound.astype(dtype))
    for _ in range(2):
        found = decode(tmp_path / "a.wav", 8000, 1)[:, 0]
        assert np.abs(found - (sound / divisor * EXACT).clip(-32767, 32767)).max() <= 0.51
    assert len(said.messages) == (peak > 1)
    if peak > 1:
        sentence = f"found samples up to {peak:g}, where full scale is 1: files like it are divided by"
        assert f"a.wav: {sentence} {'32768' if divisor == 32768 else 'their peak'}" in said.messages[0]


@pytest.mark.parametrize(
    "form, kind, bits", [("WAV", "FLOAT", 15), ("CAF", "DOUBLE", 23), ("AIFF", "DOUBLE", 31), ("AU", "FLOAT", 23)]
)
def test_whole_numbers_in_floats_are_of_their_bits(tmp_path, said, form, kind, bits):
    sound = (sines(4000) * 2**bits).round()
    for level in (1.0, 2.0**-12):  # a soft file, too
        if bits > 15 and level < 1:
            continue
        soundfile.write(tmp_path / "a", (sound * level).round(), 8000, kind, format=form)
        found = decode(tmp_path / "a", 8000, 1)[:, 0]
        assert np.abs(found - (sound * level).round() / 2.0 ** (bits - 15)).max() <= 0.51
    assert len(said.messages) == 1 and f"divided by {2**bits}" in said.messages[0]


def test_what_lossy_codecs_overshoot_is_clipped(tmp_path, said):
    sound = np.sign(sines(8000)) * 0.99
    soundfile.write(tmp_path / "a.ogg", sound, 8000)
    own = soundfile.read(tmp_path / "a.ogg")[0]
    assert 1 < np.abs(own).max() < 2
    assert np.abs(decode(tmp_path / "a.ogg", 8000, 1)[:, 0] - (own * EXACT).clip(-32767, 32767)).max() <= 0.51
    assert not said.messages


# ---------------------------------------------------------------- what 16 bits, few channels or a low rate lose


@pytest.mark.parametrize("form, kind", [("WAV", "FLOAT"), ("WAV", "PCM_24"), ("FLAC", "PCM_24"), ("AIFF", "DOUBLE")])
@pytest.mark.parametrize("level, says", [(1e-5, True), (8e-5, True), (1e-3, False)])
def test_a_sound_too_quiet_for_16_bits_is_told(tmp_path, said, form, kind, level, says):
    for name in "ab":
        soundfile.write(tmp_path / name, sines(4000) * level, 8000, kind, format=form)
        assert np.abs(decode(tmp_path / name, 8000, 1)).max() <= level * EXACT
    assert len(said.messages) == says
    if says:
        assert "a: its peak is" in said.messages[0] and "of full scale, of which 16 bits leave" in said.messages[0]


def test_a_quiet_sound_of_16_bits_is_exact_and_silence_is_silence(tmp_path, said):
    steps = np.random.default_rng(0).integers(-2, 3, (2000, 2), np.int16)
    for sound in (steps, 0 * steps):
        soundfile.write(tmp_path / "a.wav", sound, 8000)
        assert np.array_equal(decode(tmp_path / "a.wav", 8000, 2), sound)
        decode(tmp_path / "a.wav", 16000, 1)
    assert not said.messages


@pytest.mark.parametrize("off", [0.0, 1e-4])
@pytest.mark.parametrize("kind", ["PCM_16", "FLOAT"])
def test_channels_that_cancel_out_are_told(tmp_path, said, kind, off):
    one = sines(4000)
    soundfile.write(tmp_path / "a.wav", np.stack([one, -one * (1 - off)], 1), 8000, kind)
    assert decode(tmp_path / "a.wav", 8000, 2).any() and not said.messages
    decode(tmp_path / "a.wav", 8000, 1)
    sentence = "next to nothing is left of its sound in mono, the mean of its 2 channels (channels)"
    assert said.messages == [f"{tmp_path / 'a.wav'}: {sentence}"]


def test_channels_that_are_left_out_and_high_frequencies_are_told(tmp_path, said):
    centre = np.zeros((4000, 6))
    centre[:, 2] = sines(4000)
    soundfile.write(tmp_path / "a.wav", centre, 8000)
    assert not decode(tmp_path / "a.wav", 8000, 2).any()
    assert "a.wav: next to nothing is left of its sound in the first 2 of its 6 channels" in said.messages[0]
    bat = 0.5 * np.sin(2 * np.pi * 45000 * np.arange(20000) / 250000) * np.hanning(20000)
    soundfile.write(tmp_path / "b.wav", bat, 250000)
    decode(tmp_path / "b.wav", 16000, 1)
    sentence = "b.wav: next to nothing is left of its sound without the frequencies above 8000 Hz (sample_rate)"
    assert sentence in said.messages[1]


# ---------------------------------------------------------------- rates


@given(st.integers(1, 1_000_000), st.integers(1, 1_000_000), st.integers(1, 3000))
def test_any_pair_of_rates_is_resampled_in_time(own, new, samples):
    samples = max(1, min(samples, 2_000_000 * own // new))
    began = time.perf_counter()
    found = resampled(np.zeros((samples, 1), np.float32), own, new)
    assert found.shape == (-(-samples * new // own), 1) and not found.any()
    assert time.perf_counter() - began < 2


RATES = st.one_of(st.integers(4000, 200_000), st.sampled_from([8000, 16000, 22050, 44100, 48000, 44101, 22254]))


@given(RATES, RATES, st.floats(0.02, 0.25))
def test_a_sine_keeps_its_pitch_level_and_phase(own, new, share):
    pitch = share * min(own, new)
    sound = 0.5 * np.sin(2 * np.pi * pitch * np.arange(own // 10) / own).astype(np.float32)
    found = resampled(sound[:, None], own, new)[:, 0]
    expected = 0.5 * np.sin(2 * np.pi * pitch * np.arange(len(found)) / new)
    middle = slice(len(found) // 4, -len(found) // 4)
    assert np.abs(found - expected)[middle].max() < 0.01


# ---------------------------------------------------------------- several streams, other trouble


def test_of_several_sounds_the_default_one(tmp_path):
    for default in (0, 1):
        path = tmp_path / f"{default}.mka"
        with av.open(str(path), "w") as container:
            streams = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(2)]
            for i, stream in enumerate(streams):
                stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition.comment
            for i, stream in enumerate(streams):
                frame = av.AudioFrame.from_ndarray(np.full((1, 800), 1000 * (i + 1), np.int16), "s16", "mono")
                frame.sample_rate, frame.pts = 8000, 0
                container.mux([*stream.encode(frame), *stream.encode(None)])
        assert set(decode(path, 8000, 1)[:, 0].tolist()) == {1000 * (default + 1)}


@pytest.mark.parametrize(
    "error", [MemoryError, OverflowError("far too long"), UnicodeError, RuntimeError, struct.error]
)
def test_every_error_of_a_decoder_names_the_file(tmp_path, monkeypatch, error):
    (tmp_path / "a.wav").write_bytes(wav(DATA))

    def fails(path):
        raise error

    monkeypatch.setattr(reading, "read_samples", fails)
    with pytest.raises(InputError, match=r"a.wav: expected sound, found a file that cannot be decoded \(\S"):
        decode(tmp_path / "a.wav", 8000, 1)


@given(st.data())
def test_a_damaged_header_is_read_or_named(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("a") / "a.wav"
    content = bytearray(wav(DATA, channels=2))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(4, 43))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert decode(path, 8000, 1).dtype == np.int16
    except InputError as error:
        assert str(error).startswith(f"{path}: expected ")


def test_names_that_are_odd(tmp_path):
    for name in (b"\xff.wav", "ä:b.m4a".encode(), b"a%03d.wav"):
        path = tmp_path / os.fsdecode(name)
        if path.suffix == ".wav":
            path.write_bytes(wav(DATA))
        else:
            write_by_pyav(path, sines(8000), 8000, "alac")
        assert len(decode(path, 8000, 1))
