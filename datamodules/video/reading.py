"""Pictures and sound of a file decoded by PyAV, each on its own grid of time.

Time 0 is the file's own, where its first stream begins. Legend: T pictures or samples, H height, W width, C channels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from datamodules.audio.reading import piece
from datamodules.common.splits import Kind
from perceiver_lightning.errors import InputError

VIDEOS = Kind("videos", (".mp4", ".webm", ".avi", ".gif", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg"), av.open)

# Of all pixels that become one, and each with a colour of its own, where FFmpeg would give it to two.
AVERAGED = av.video.reformatter.Interpolation.AREA | av.video.reformatter.Interpolation.FULL_CHR_H_INT


def decode_pictures(
    path: str | Path,
    fps: float,
    size: list[int],
    channels: int,
    centre_crop: float | None,
    centre: tuple[float, float] = (0.5, 0.5),
) -> np.ndarray:
    """Decode the pictures of a file: uint8 (T, *size, channels), the one shown at the middle of each 1 / fps seconds.

    T = 0 for a file that has sound alone. A picture is turned as its file says, scaled to cover `size`, and cut to it
    about its `centre`.

    Args:
        path: the file.
        fps: pictures a second; of a faster file some are left out, of a slower one some come again.
        size: [height, width].
        channels: 3 for colour, 1 for grey.
        centre_crop: share that is kept where pictures are brought to `size`; None for all of it, stretched.
        centre: of the piece that is kept, as shares of the height and the width; it stays inside the picture.

    Raises:
        InputError: the file is absent, cannot be decoded, or ends before its header says.
    """
    kept: list[np.ndarray] = []
    with _opened(path) as (container, zero):
        stream = next(iter(container.streams.video), None)
        if stream is None:
            return np.empty((0, *size, channels), np.uint8)
        resize = partial(
            _resized,
            av.video.reformatter.VideoReformatter(),
            stream.sample_aspect_ratio,
            size,
            channels,
            centre_crop,
            centre,
        )
        current: Any = None
        end = 0.0

        def keep_until(time: float) -> None:
            missing = ceil(round(time * fps - 0.5, 6)) - len(kept)
            if missing > 0:
                kept.extend([resize(current)] * missing)

        for frame in _frames(container, stream, str(path)):
            time = (frame.time or 0.0) - zero
            if current is not None:  # the first one stands for what is before it, too
                keep_until(time)
            current, end = frame, time + _length(frame, stream)
        if current is not None:
            keep_until(max(end, 1 / fps))
    return np.stack(kept) if kept else np.empty((0, *size, channels), np.uint8)


def decode_sound(path: str | Path, sample_rate: int, channels: int) -> np.ndarray:
    """Decode the sound of a file: int16 (T, channels) at `sample_rate`, zero before it sets in.

    T = 0 for a file that has pictures alone.

    Args:
        path: the file.
        sample_rate: in Hz.
        channels: 1 for mono, 2 for stereo; FFmpeg mixes others down.

    Raises:
        InputError: the file is absent, cannot be decoded, or ends before its header says.
    """
    with _opened(path) as (container, zero):
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            return np.empty((0, channels), np.int16)
        resampler = av.AudioResampler("s16", "mono" if channels == 1 else "stereo", sample_rate)
        parts: list[np.ndarray] = []
        before: int | None = None
        for frame in _frames(container, stream, str(path)):
            before = round(((frame.time or 0.0) - zero) * sample_rate) if before is None else before
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
        if before is None:
            return np.empty((0, channels), np.int16)
        parts += [part.to_ndarray() for part in resampler.resample(None)]
    sound = np.concatenate(parts, 1).reshape(-1, channels)
    return piece(sound, -before, len(sound) + before)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, float]]:
    """The file and its time 0; what goes wrong while it is read becomes an InputError that names it."""
    if not Path(path).is_file():
        raise InputError(f"{path}: expected a video, found no file")
    try:
        options: dict[str, Any] = {"metadata_errors": "ignore"}  # PyAV's own stubs leave it out
        with av.open(os.fspath(path), **options) as container:
            if not (container.streams.video or container.streams.audio):
                raise InputError(f"{path}: expected a video, found neither pictures nor sound")
            _check_whole(Path(path), container.format.name)
            yield container, (container.start_time or 0) / av.time_base
    except av.FFmpegError as error:
        raise InputError(f"{path}: expected a video, found a file that cannot be decoded ({error})") from error


def _check_whole(path: Path, form: str) -> None:
    """InputError if a GIF or AVI is cut short, of which FFmpeg takes what is left for all that there was."""
    if form == "gif":
        try:
            with Image.open(path) as image:
                image.seek(getattr(image, "n_frames", 1) - 1)
                image.load()
        except Exception as error:  # of many kinds, as the place of the cut may be
            raise InputError(f"{path}: expected a whole GIF, found one that is cut short ({error})") from error
    if form == "avi":
        end, size = 0, path.stat().st_size
        with open(path, "rb") as file:
            while end < size and file.read(4) == b"RIFF":
                length = int.from_bytes(file.read(4), "little")
                if length >= 2**31:  # left so by a writer that could not go back
                    return
                end += 8 + length + length % 2
                file.seek(end)
        if size < end - 8:  # some writers count these, too
            raise InputError(f"{path}: expected {end} bytes, as its header says, found {size}")


def _frames(container: Any, stream: Any, where: str) -> Iterator[Any]:
    """All frames of a stream; afterwards InputError if the whole file ended before its header says.

    Only the file as a whole can tell: one of its streams may end before the others. Headers are a few frames off, so
    a file may lack two packets (0.1 to 2 s) and a twentieth of its length unnoticed. Of an AVI FFmpeg guesses the
    length: see `_check_whole`.
    """
    stream.codec_context.thread_count = 1  # files are decoded side by side instead
    begin, end, longest = None, 0.0, 0.05
    for packet in container.demux():
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None and packet.time_base is not None:
            begin = float(stamp * packet.time_base) if begin is None else begin
            lasts = float((packet.duration or 0) * packet.time_base)
            end = max(end, float(stamp * packet.time_base) + lasts)
            if packet.stream.type in ("video", "audio"):
                longest = max(longest, min(lasts, 1.0))
        if packet.stream is stream:
            yield from packet.decode()
    promised = (container.duration or 0) / av.time_base
    found = end - min(begin or 0.0, 0.0)
    if found < 0.95 * promised - 2 * longest and container.format.name != "avi":
        raise InputError(f"{where}: expected {promised:.2f} s of video, as its header says, found {found:.2f} s")


def _length(frame: Any, stream: Any) -> float:
    """Seconds for which a frame is shown."""
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return float(1 / (stream.average_rate or 25))


def _resized(
    reformatter: Any,
    pixel_aspect: Any,
    size: list[int],
    channels: int,
    centre_crop: float | None,
    centre: tuple[float, float],
    frame: Any,
) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4
    height, width = size if turns % 2 == 0 else size[::-1]
    scaled = [height, width]
    if centre_crop is not None:
        own = frame.height, frame.width * float(pixel_aspect or 1)
        scale = max(height / own[0], width / own[1]) / centre_crop
        scaled = [max(height, round(own[0] * scale)), max(width, round(own[1] * scale))]
    form = "rgb24" if channels == 3 else "gray"
    small = reformatter.reformat(frame, scaled[1], scaled[0], form, interpolation=AVERAGED)
    picture = np.rot90(small.to_ndarray().reshape(*scaled, channels), turns)
    first = [
        min(max(int(share * whole - kept / 2), 0), whole - kept)
        for share, whole, kept in zip(centre, picture.shape, size, strict=False)
    ]
    return picture[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
