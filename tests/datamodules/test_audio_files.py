"""Sound files decoded, and cut into clips."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from sound_files import tone, write_sound

from datamodules.audio.dataset import ClipSet
from datamodules.audio.reading import CLIPS, decode, faster, piece
from datamodules.common.splits import Split
from perceiver_lightning.errors import InputError

# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    "name, subtype, tolerance",
    [
        ("a.wav", "PCM_16", 0),
        ("a.wav", "PCM_24", 1),
        ("a.wav", "PCM_U8", 260),
        ("a.wav", "FLOAT", 1),
        ("a.flac", None, 0),
        ("a.ogg", None, 2000),
        ("a.mp3", None, 2000),
    ],
)
def test_each_format_is_read(tmp_path, name, subtype, tolerance):
    path = write_sound(tmp_path / name, subtype=subtype, seconds=0.5)
    expected = np.round(tone(0.5) * 32768) if subtype != "PCM_16" else soundfile.read(path, dtype="int16")[0][:, None]
    found = decode(path, 8000, 1)
    assert (found.dtype, found.shape) == (np.int16, (4000, 1))
    difference = np.abs(found - expected)[500:-500]  # lossy formats are off at the ends
    if name == "a.flac":
        expected = soundfile.read(path, dtype="int16")[0][:, None]
        difference = np.abs(found - expected)
    assert difference.max() <= tolerance


@pytest.mark.parametrize("own, wanted", [(8000, 16000), (44100, 16000), (48000, 8000), (22050, 44100)])
def test_another_rate_is_resampled(tmp_path, own, wanted):
    path = write_sound(tmp_path / "a.wav", rate=own, seconds=0.5)
    found = decode(path, wanted, 1) / 32768
    expected = tone(0.5, wanted)
    assert abs(len(found) - len(expected)) <= 1
    middle = slice(wanted // 10, len(expected) - wanted // 10)
    assert np.abs(found[middle] - expected[middle]).max() < 2e-3


def test_a_header_with_an_absurd_rate_is_named(tmp_path):
    path = write_sound(tmp_path / "a.wav", seconds=0.1)
    header = bytearray(path.read_bytes())
    header[24:28] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(header)
    with pytest.raises(InputError, match=r"a.wav: expected a sample rate up to 1000000 Hz, found 2147483647$"):
        decode(path, 8000, 1)


def test_channels_are_averaged_doubled_or_the_first_two(tmp_path):
    files = {count: write_sound(tmp_path / f"{count}.wav", channels=count) for count in (1, 2, 6)}
    own = {count: soundfile.read(path, dtype="int16", always_2d=True)[0] for count, path in files.items()}
    for count, path in files.items():
        assert np.abs(decode(path, 8000, 1) - own[count].mean(1, keepdims=True)).max() <= 0.51
        expected = own[count][:, :2] if count > 1 else own[count].repeat(2, 1)
        np.testing.assert_array_equal(decode(path, 8000, 2), expected)


def test_a_silent_clip_is_sound(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), 8000)
    assert decode(tmp_path / "silent.wav", 16000, 1).tolist() == [[0]] * 200


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, name, share):
    path = write_sound(tmp_path / name, seconds=2)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=f"^{path}: expected .*, found .*"):
        decode(path, 8000, 1)


def test_a_truncated_wav_says_how_much_is_missing(tmp_path):
    path = write_sound(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(InputError, match=f"^{path}: expected 1600 bytes of sound, as its header says, found 1000$"):
        decode(path, 8000, 1)


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\xf0\xff\x7f"])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path, size):
    path = write_sound(tmp_path / "a.wav")
    expected, content = decode(path, 8000, 1), path.read_bytes()
    place = content.index(b"data") + 4
    path.write_bytes(content[:place] + size + content[place + 4 :])
    np.testing.assert_array_equal(decode(path, 8000, 1), expected)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.999])
def test_a_truncated_ogg_is_named_and_a_whole_one_is_not(tmp_path, share):
    path = write_sound(tmp_path / "a.ogg", seconds=8)
    assert len(decode(path, 8000, 1)) == 64000
    whole = path.read_bytes()
    path.write_bytes(whole + b"\r\n")
    assert len(decode(path, 8000, 1)) == 64000
    path.write_bytes(whole[: round(share * len(whole))])
    with pytest.raises(InputError, match=f"{path}: expected (a whole Ogg file|sound), found"):
        decode(path, 8000, 1)


def test_no_sound_is_named(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 8000, "FLOAT")
    (tmp_path / "text.wav").write_text("no sound at all" * 100)
    for name, found in (
        ("empty.wav", "expected sound, found a clip without samples"),
        ("nan.wav", "expected finite samples, found NaN or infinity"),
        ("text.wav", "expected sound, found a file that cannot be decoded"),
        ("absent.wav", "expected a sound file, found none"),
    ):
        with pytest.raises(InputError, match=f"^{tmp_path / name}: {found}"):
            decode(tmp_path / name, 8000, 1)


# ---------------------------------------------------------------- clips


@given(st.integers(1, 20), st.integers(-30, 30), st.integers(1, 30))
def test_a_piece_is_the_sound_with_zeros_around(samples, start, length):
    sound = np.arange(1, samples + 1, dtype=np.int16)[:, None]
    expected = [i + 1 if 0 <= i < samples else 0 for i in range(start, start + length)]
    assert piece(sound, start, length)[:, 0].tolist() == expected


def test_faster_is_higher_and_shorter():
    sound = (tone(0.5, pitch=400.0) * 20000).astype(np.int16)
    for factor in (0.8, 1.25):
        found = faster(sound, factor)
        expected = tone(0.5 / factor, pitch=400.0 * factor) * 20000
        assert found.dtype == np.int16 and len(found) == len(expected)
        assert np.abs(found - expected)[:-2].max() < 400  # linear: 2 % off
    np.testing.assert_array_equal(faster(sound, 1.0), sound)


@given(st.integers(1, 300), st.integers(1, 2), st.floats(0.3, 3.0))
def test_faster_is_linear_between_samples(samples, channels, factor):
    sound = np.random.default_rng(samples).integers(-30000, 30000, (samples, channels), np.int16)
    found = faster(sound, factor)
    assert found.shape == (round(samples / factor), channels)
    for own, heard in zip(sound.T, found.T, strict=True):
        expected = np.interp(np.arange(len(found)) * factor, np.arange(samples), own)
        np.testing.assert_allclose(heard, expected, atol=0.51)


@pytest.fixture
def ramp(tmp_path) -> Split:
    """One file of 100 samples that count up, and one of 7."""
    for name, samples in (("long", 100), ("short", 7)):
        soundfile.write(tmp_path / f"{name}.wav", np.arange(1, samples + 1, dtype=np.int16), 8000)
    return Split([str(tmp_path / "long.wav"), str(tmp_path / "short.wav")], ["long", "short"], [0, 1], "here", CLIPS)


def clip(clips: ClipSet, row: int) -> list:
    return clips[row]["inputs"]["audio"]["content"].squeeze(-1).tolist()


def test_training_takes_a_random_piece_and_short_files_whole(ramp):
    torch.manual_seed(0)
    clips = ClipSet(ramp, 8000, 1, 10, training=True)
    starts = set()
    for _ in range(600):
        found = clip(clips, 0)
        assert found == list(range(found[0], found[0] + 10))
        starts.add(found[0])
        assert clip(clips, 1) == list(range(1, 8))
    assert (min(starts), max(starts)) == (1, 91) and len(starts) > 80


def test_a_shift_brings_zeros_past_the_ends_only(ramp):
    torch.manual_seed(0)
    clips = ClipSet(ramp, 8000, 1, 10, training=True, shift=3)
    found = {tuple(clip(clips, 1)) for _ in range(200)}
    assert found == {tuple(i if 1 <= i <= 7 else 0 for i in range(1 + s, 8 + s)) for s in range(-3, 4)}
    assert any(clip(clips, 0)[0] == 0 for _ in range(300))


def test_speed_changes_the_length_of_short_files_alone(ramp):
    torch.manual_seed(0)
    clips = ClipSet(ramp, 8000, 1, 10, training=True, speed=0.5)
    assert {len(clip(clips, 0)) for _ in range(50)} == {10}
    lengths = {len(clip(clips, 1)) for _ in range(200)}
    assert min(lengths) == 5 and max(lengths) == 10
    evaluated = ClipSet(ramp, 8000, 1, 10, training=False, speed=0.5)
    assert clip(evaluated, 1) == list(range(1, 8))


def test_evaluation_takes_the_middle_or_pieces_from_end_to_end(ramp):
    one, several = (ClipSet(ramp, 8000, 1, 10, training=False, clips=count) for count in (1, 4))
    assert clip(one, 0) == list(range(46, 56))
    assert [row[0] for row in clip(several, 0)] == [1, 31, 61, 91]
    assert clip(several, 1) == [list(range(1, 8))] * 4


def test_labels_one_or_several(ramp):
    assert ClipSet(ramp, 8000, 1, 10, training=False)[1]["labels"] == 1
    several = ClipSet(
        Split(ramp.items, ramp.names, [(0, 2), ()], "here", CLIPS, several=3), 8000, 1, 10, training=False
    )
    assert several[0]["labels"].tolist() == [1, 0, 1]
    assert several[1]["labels"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_cache_changes_nothing_and_needs_no_files(ramp, tmp_path, on_disk):
    plain = ClipSet(ramp, 16000, 2, 10, training=False)
    clips = ClipSet(ramp, 16000, 2, 10, training=False)
    expected = [clip(plain, row) for row in range(2)]
    assert clips.prepare(skip_broken=False, cache=True, folder=tmp_path / "cache" if on_disk else None) == []
    for path in ramp.items:
        (tmp_path / path).unlink()
    assert [clip(clips, row) for row in range(2)] == expected


@pytest.mark.parametrize("cache", [True, False])
def test_broken_files_are_left_out_when_asked(ramp, tmp_path, cache):
    (tmp_path / "long.wav").write_bytes(b"")
    clips = ClipSet(ramp, 8000, 1, 10, training=False)
    assert clips.prepare(skip_broken=True, cache=cache) == ["long"]
    assert len(clips) == 1 and clip(clips, 0) == list(range(1, 8)) and clips[0]["labels"] == 1
    assert clips.prepare(skip_broken=True, cache=cache) == []
