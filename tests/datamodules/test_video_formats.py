"""Videos of many formats and oddities, written by PyAV, against the levels that were written."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sound_files import tone
from video_clips import CODECS, greys, write_clip, write_pictures

from datamodules.common import containers
from datamodules.video.reading import decode_pictures, decode_sound
from perceiver_lightning.errors import InputError

LEVELS = np.arange(20, 240, 20)
COVER = np.full((32, 32, 3), [255, 0, 255], np.uint8)


def seen(path: Path, fps: float = 10) -> np.ndarray:
    """The middle of each picture, (T, 3)."""
    return decode_pictures(path, fps, [8, 8], 3, 1.0)[:, 4, 4].astype(int)


def are_levels(path: Path, levels=LEVELS, fps: float = 10) -> None:
    found = seen(path, fps)
    assert len(found) == len(levels) and np.abs(found - np.asarray(levels)[:, None]).max() <= 6


FORMATS = [  # ending, codec, pixels, its format, pictures a second, whether a cut can be told
    (".wmv", "wmv2", "yuv420p", None, 10, True),
    (".asf", "msmpeg4v3", "yuv420p", None, 10, True),
    (".flv", "flv", "yuv420p", None, 10, True),
    (".f4v", "libx264", "yuv420p", None, 10, True),
    (".3gp", "mpeg4", "yuv420p", None, 10, True),
    (".3g2", "libx264", "yuv420p", None, 10, True),
    (".m4v", "libx264", "yuv420p", None, 10, True),
    (".mov", "prores_ks", "yuv422p10le", None, 10, True),
    (".mov", "qtrle", "rgb24", None, 10, True),
    (".mkv", "ffv1", "yuv420p10le", None, 10, True),
    (".mkv", "ffv1", "gray16le", None, 10, True),
    (".webm", "libvpx-vp9", "yuv444p", None, 10, True),
    (".avi", "mjpeg", "yuvj420p", None, 10, True),
    (".avi", "rawvideo", "bgr24", None, 10, True),
    (".ogv", "libvpx", "yuv420p", "ogg", 10, True),
    (".gif", "gif", "rgb8", None, 10, True),
    (".ts", "libx264", "yuv420p", "mpegts", 10, False),
    (".mts", "libx264", "yuv420p", "mpegts", 25, False),
    (".m2ts", "mpeg2video", "yuv420p", "mpegts", 25, False),
    (".mpg", "mpeg1video", "yuv420p", None, 25, False),
    (".mpeg", "mpeg2video", "yuv420p", "mpeg", 25, False),
    (".vob", "mpeg2video", "yuv420p", None, 25, False),
    (".m4v", "mpeg4", "yuv420p", "m4v", 25, False),  # bare frames without times
]


@pytest.mark.parametrize("ending, codec, pixels, form, fps, tells", FORMATS)
@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=["even", "odd"])
def test_each_format(tmp_path, ending, codec, pixels, form, fps, tells, size):
    if size[0] % 2 and codec not in ("ffv1", "qtrle", "rawvideo", "gif", "mpeg4", "mpeg2video"):
        pytest.skip("a codec of even sizes")
    path = tmp_path / f"a{ending}"
    levels = LEVELS if ending != ".gif" else np.array([0, 255] * 5)
    write_pictures(path, greys(levels, size), codec, pixels, fps, form)
    are_levels(path, levels, fps)
    whole = path.read_bytes()
    for share in (0.4, 0.97):
        path.write_bytes(whole[: round(share * len(whole))])
        if tells:
            with pytest.raises(InputError, match=f"^{path}: expected .*, found "):
                seen(path, fps)


@given(st.sampled_from([".mkv", ".mov", ".avi"]), st.lists(st.integers(0, 255), min_size=1, max_size=12), st.data())
def test_lossless_pictures_are_what_was_written(tmp_path_factory, ending, levels, data):
    size = data.draw(st.tuples(st.integers(8, 40), st.integers(8, 40)))
    fps = data.draw(st.integers(1, 60))
    path = tmp_path_factory.mktemp("a") / f"a{ending}"
    codec, pixels = ("ffv1", "bgr0") if ending == ".mkv" else ("png", "rgb24")
    write_pictures(path, greys(levels, size), codec, pixels, fps)
    assert (seen(path, fps) == np.array(levels)[:, None]).all()


# ---------------------------------------------------------------- which stream


def boxes(content: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    while place < len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        yield kind, content[place : place + size]
        place += size


def with_cover_first(content: bytes) -> bytes:
    """An MP4 whose tags are before its tracks, as some programs write them."""
    made = b""
    for kind, box in boxes(content, 0):
        if kind == b"moov":
            order = {b"mvhd": 0, b"udta": 1}
            box = box[:8] + b"".join(b for _, b in sorted(boxes(box, 8), key=lambda one: order.get(one[0], 2)))
        made += box
    return made


def write_with_cover(path: Path, marked: bool, first: bool, sound: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        streams = {}
        for kind in ("cover", "clip") if first else ("clip", "cover"):
            stream = container.add_stream("mjpeg" if kind == "cover" else "libx264", rate=10)
            stream.height, stream.width = 32, 32
            stream.pix_fmt = "yuvj420p" if kind == "cover" else "yuv420p"
            streams[kind] = stream
        if marked:
            streams["cover"].disposition = av.stream.Disposition.attached_pic
        for kind, pictures in (("cover", [COVER]), ("clip", greys(LEVELS, (32, 32)))):
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                container.mux(streams[kind].encode(frame))
            container.mux(streams[kind].encode(None))
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_cover_is_not_the_clip(tmp_path, ending, marked, first):
    path = write_with_cover(tmp_path / f"a{ending}", marked, first)
    if marked and ending == ".mp4":
        path.write_bytes(with_cover_first(path.read_bytes()))
    are_levels(path)


def test_sound_with_a_cover_has_no_pictures(tmp_path):
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        heard = container.add_stream("alac", rate=8000, layout="mono")
        frame = av.VideoFrame.from_ndarray(COVER, "rgb24")
        frame.pts, frame.time_base = 0, Fraction(1)
        container.mux([*cover.encode(frame), *cover.encode(None)])
        sound = av.AudioFrame.from_ndarray(np.full((1, 4096), 1000, np.int16), "s16p", "mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux([*heard.encode(sound), *heard.encode(None)])
    assert decode_pictures(path, 10, [8, 8], 3, 1.0).shape == (0, 8, 8, 3)
    assert set(decode_sound(path, 8000, 1)[:, 0].tolist()) == {1000}


def test_of_two_clips_the_default_one(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream, disposition in zip(streams, ("comment", "default"), strict=True):
            stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
            stream.disposition = av.stream.Disposition[disposition]
        for stream, levels in zip(streams, ([200] * 10, LEVELS), strict=True):
            for i, picture in enumerate(greys(levels, (16, 16))):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    are_levels(path)


def test_a_file_that_holds_one_picture(tmp_path):
    for ending in CODECS:
        write_pictures(tmp_path / f"a{ending}", greys([90]), *CODECS[ending][:2])
        found = seen(tmp_path / f"a{ending}")
        assert len(found) >= 1 and np.abs(found - 90).max() <= 6


# ---------------------------------------------------------------- times


def test_files_joined_end_to_end_are_read_to_the_end(tmp_path):
    path = tmp_path / "a.ts"
    write_pictures(path, greys(LEVELS), "libx264", "yuv420p", 10, "mpegts", bf="0")
    path.write_bytes(path.read_bytes() * 2)
    are_levels(path, [*LEVELS, *LEVELS])


def test_a_gap_in_the_sound_is_silent(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for begin in (0, 800, 8000):
            frame = av.AudioFrame.from_ndarray(np.full((1, 800), 1000, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, begin, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    expected = np.zeros(8800)
    expected[:1600] = expected[8000:] = 1000
    assert np.array_equal(decode_sound(path, 8000, 1)[:, 0], expected)


def test_floats_of_a_video_beyond_full_scale_are_scaled(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(2 * tone(0.5, 8000, 500.0).T, "flt", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert np.abs(decode_sound(path, 8000, 1) - tone(0.5, 8000, 500.0) * 2 * 32768).max() <= 2


def test_what_shows_through_is_white(tmp_path):
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[..., 3] = 55
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "rgba"
        for i in range(2):
            frame = av.VideoFrame.from_ndarray(picture, "rgba")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert (seen(path) == 200).all()


# ---------------------------------------------------------------- errors


def test_an_unknown_codec_is_named(tmp_path):
    path = write_clip(tmp_path / "a.mp4", greys(LEVELS))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(InputError, match=f"^{path}: expected video that FFmpeg can decode, found an unknown codec$"):
        seen(path)


def test_a_huge_picture_is_named(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mkv", greys(LEVELS))
    monkeypatch.setattr(containers, "PIXELS", 700)
    with pytest.raises(InputError, match=r"a.mkv: expected pictures of up to 700 pixels, found 32x24"):
        seen(path)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too long"), NotImplementedError, OSError("no")])
def test_every_error_of_a_decoder_names_the_file(tmp_path, monkeypatch, error):
    path = write_clip(tmp_path / "a.mkv", greys(LEVELS), sound=tone(1.0, 16000))

    def fails(*_):
        raise error

    monkeypatch.setattr(containers, "require_whole", fails)
    for read in (seen, lambda path: decode_sound(path, 8000, 1)):
        with pytest.raises(InputError, match=r"a.mkv: expected a video, found a file that cannot be decoded \(\S"):
            read(path)


@given(st.data())
def test_a_damaged_file_is_read_or_named(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("a")
    ending = data.draw(st.sampled_from([".mp4", ".mkv", ".avi"]))
    path = write_clip(folder / f"a{ending}", greys([50, 90]), sound=tone(0.2, 16000))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (seen, lambda path: decode_sound(path, 8000, 1)):
        try:
            read(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: expected ")


@pytest.mark.parametrize(
    "codec, sentence", [("pcm_s16le", "nothing is left of its sound in mono"), ("pcm_f32le", "peak")]
)
def test_sound_that_is_lost_is_told(tmp_path, caplog, monkeypatch, codec, sentence):
    monkeypatch.setattr("datamodules.common.say._said", set())
    one = tone(0.5)[:, 0] * (2e-5 if codec == "pcm_f32le" else 1)
    samples = np.stack([one, one if codec == "pcm_f32le" else -one], 1).reshape(1, -1)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=8000, layout="stereo")
        values = samples if codec == "pcm_f32le" else (samples * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(values, "flt" if codec == "pcm_f32le" else "s16", "stereo")
        frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), 0
        for part in (frame, None):
            container.mux(stream.encode(part))
    decode_sound(tmp_path / "a.mkv", 8000, 1)
    assert len(caplog.messages) == 1 and f"{tmp_path / 'a.mkv'}: " in caplog.text and sentence in caplog.text
