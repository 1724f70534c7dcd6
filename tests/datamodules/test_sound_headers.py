"""Sound files with odd headers: whole ones are read, cut ones are named."""

import numpy as np
import pytest
import soundfile
from sound_files import DATA, EXACT, LIST, SOUND16, sines, wav, write_by_pyav

from datamodules.audio.reading import decode
from perceiver_lightning.errors import InputError

# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "content",
    [
        wav(DATA + b"x"),
        wav(DATA, len(DATA) + 1),
        wav(DATA + b"x", len(DATA) + 1, b"\0" + LIST),
        wav(DATA, tail=LIST),
        wav(DATA, tail=b"\r\n"),
        wav(DATA, 0),
        wav(DATA, 2**32 - 1),
        wav(DATA, 0x7FFFF000),
        wav(DATA)[:4] + bytes(4) + wav(DATA)[8:],
        wav(DATA)[:4] + b"\xff" * 4 + wav(DATA)[8:],
    ],
    ids=["odd", "odd and cut", "odd, filled up", "chunk", "junk", "size 0", "size -1", "sox", "RIFF 0", "RIFF -1"],
)
def test_a_whole_wav_with_an_odd_header(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    assert decode(tmp_path / "a.wav", 8000, 1)[:, 0].tolist() == SOUND16.clip(-32767).tolist()


def test_a_wav_that_lacks_a_sample_is_named_and_an_empty_one_has_none(tmp_path):
    path = tmp_path / "a.wav"
    for lacking in (1, 2, 3, 200):
        path.write_bytes(wav(DATA)[:-lacking])
        with pytest.raises(InputError, match=f"a.wav: expected 800 bytes of sound, as .*, found {800 - lacking}$"):
            decode(path, 8000, 1)
    path.write_bytes(wav(b"", tail=LIST))
    with pytest.raises(InputError, match=r"a.wav: expected sound, found a clip without samples"):
        decode(path, 8000, 1)


def test_bw64_and_a_flac_of_unknown_length(tmp_path):
    soundfile.write(tmp_path / "a.wav", SOUND16, 8000, "PCM_16", format="RF64")
    (tmp_path / "a.wav").write_bytes(b"BW64" + (tmp_path / "a.wav").read_bytes()[4:])
    assert decode(tmp_path / "a.wav", 8000, 1)[:, 0].tolist() == SOUND16.tolist()
    soundfile.write(tmp_path / "a.flac", SOUND16, 8000, "PCM_16")
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(b"ID3\x03\0\0\0\0\0\x05abcde" + content)
    assert decode(tmp_path / "a.flac", 8000, 1)[:, 0].tolist() == SOUND16.tolist()


def test_two_ogg_files_in_one(tmp_path):
    for name, samples in (("a", 8000), ("b", 4000)):
        soundfile.write(tmp_path / f"{name}.ogg", sines(samples), 8000)
    (tmp_path / "c.ogg").write_bytes((tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes())
    with pytest.raises(InputError, match=r"c.ogg: expected one Ogg file, found 2 that were joined"):
        decode(tmp_path / "c.ogg", 8000, 1)


# ---------------------------------------------------------------- MP3


def mp3(folder, sound, xing: bool, bit_rate: int | None = None) -> bytes:
    path = write_by_pyav(folder / "made.mp3", sound, 44100, "libmp3lame", bit_rate=bit_rate, write_xing=str(int(xing)))
    return path.read_bytes()


@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize("bit_rate", [None, 64_000])
def test_an_mp3_without_a_count_is_read_to_its_end(tmp_path, loud_first, bit_rate):
    """A guess from the first frame would be far off, either way."""
    noise = 0.5 * np.random.default_rng(0).standard_normal(60000).clip(-1.9, 1.9)
    sound = np.concatenate([noise, np.zeros(60000)] if loud_first else [np.zeros(60000), noise])
    content = mp3(tmp_path, sound, False, bit_rate)
    path = tmp_path / "a.mp3"
    tag = b"ID3\x03\0\0\0\0\x08\x00" + bytes(1024)
    for other in (content, tag + tag + content, content + b"TAG" + bytes(125)):
        path.write_bytes(other)
        found = decode(path, 44100, 1)[:, 0] / EXACT
        assert 0 <= len(found) - len(sound) < 4000
        first, last = found[3000:55000].std(), found[65000:-4000].std()
        assert (first > 0.3 and last < 0.01) if loud_first else (first < 0.01 and last > 0.3)


def test_an_mp3_with_a_count_is_whole_or_cut(tmp_path):
    content, path = mp3(tmp_path, sines(60000, 44100), True), tmp_path / "a.mp3"
    tag = b"ID3\x03\0\0\0\0\x08\x00" + bytes(1024)
    for other in (content, tag + content, bytes(3000) + content, content + b"TAG" + bytes(125)):
        path.write_bytes(other)
        found = decode(path, 44100, 1)[:, 0]
        assert len(found) == 60000
        assert np.abs(found - sines(60000, 44100) * EXACT)[2000:-2000].max() < 3000
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: round(share * len(content))])
        with pytest.raises(InputError, match=r"a.mp3: expected"):
            decode(path, 44100, 1)
