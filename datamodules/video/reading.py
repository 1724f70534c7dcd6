"""Pictures and sound of a file decoded by PyAV, each on its own grid of time.

Time 0 is the file's own, where its first stream begins. Legend: T pictures or samples, H height, W width, C channels.
"""

import logging
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np

from datamodules.audio.reading import piece, say_quiet, scaled, to_int16
from datamodules.common.containers import begin_of, chosen, frames, join_sound, length, opened, times
from datamodules.common.say import say_once
from datamodules.common.splits import Kind
from perceiver_lightning.errors import InputError

log = logging.getLogger(__name__)

VIDEOS = Kind(
    "videos",
    (
        *(".mp4", ".webm", ".avi", ".gif", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".wmv", ".asf", ".flv", ".3gp"),
        *(".3g2", ".ts", ".mts", ".m2ts", ".ogv", ".vob", ".f4v"),
    ),
    av.open,
)

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
    with opened(path, "a video") as container:
        stream = chosen(container, "video")
        if stream is None:
            _require_some(path, container)
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

        lasts = float(1 / (stream.average_rate or 25))  # of a picture that does not say
        for time, frame in times(frames(container, stream, str(path)), begin_of(container), lasts):
            if current is not None:  # the first one stands for what is before it, too
                keep_until(time)
            current, end = frame, time + length(frame, lasts)
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
    with opened(path, "a video") as container:
        stream = chosen(container, "audio")
        if stream is None:
            _require_some(path, container)
            return np.empty((0, channels), np.int16)
        is_float = stream.codec_context.name.startswith("pcm_f")
        sound, _, begin = join_sound(
            times(frames(container, stream, str(path)), begin_of(container)),
            "flt" if is_float else "s16",
            "mono" if channels == 1 else "stereo",
            sample_rate,
        )
    if not len(sound):
        return np.empty((0, channels), np.int16)
    if is_float:
        sound = scaled(sound, 1.0, str(path))
        say_quiet(sound, str(path))
        sound = to_int16(sound)
    if channels == 1 and not sound.any() and decode_sound(path, sample_rate, 2).any():
        say_once(log, "silent channels", f"{path}: nothing is left of its sound in mono (channels)")
    before = round(begin * sample_rate)
    return piece(sound, -before, len(sound) + before)


def _require_some(path: str | Path, container: Any) -> None:
    if not (container.streams.video or container.streams.audio):
        raise InputError(f"{path}: expected a video, found neither pictures nor sound")


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
    small = reformatter.reformat(_opaque(frame), scaled[1], scaled[0], form, interpolation=AVERAGED)
    picture = np.rot90(small.to_ndarray().reshape(*scaled, channels), turns)
    first = [
        min(max(int(share * whole - kept / 2), 0), whole - kept)
        for share, whole, kept in zip(centre, picture.shape, size, strict=False)
    ]
    return picture[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]


def _opaque(frame: Any) -> Any:
    """A frame without transparency: what shows through is white, as in images."""
    if not any(component.is_alpha for component in frame.format.components):
        return frame
    pixels = frame.to_ndarray(format="rgba").astype(np.uint16)
    alpha = pixels[..., 3:]
    mixed = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return av.VideoFrame.from_ndarray(mixed.astype(np.uint8), "rgb24")
