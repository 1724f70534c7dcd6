"""Files of sound and video as PyAV reads them: opened, the stream that is meant, its frames, and the sound of it.

Legend: T samples, C channels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.stream import Disposition

from datamodules.common.whole import count_ogg_streams, require_whole
from perceiver_lightning.errors import InputError

COVERS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
HIDDEN = {"avi", "gif", "ogg"}  # formats that FFmpeg reads to their end wherever that is
# Formats that state no length: FFmpeg guesses it from the bit rate or from the last time stamp.
UNSTATED = {"aac", "ac3", "avi", "eac3", "mp3", "mpeg", "mpegts", "nut", "ogg"}
WORDS = {"video": "video", "audio": "sound"}  # for messages
LONGEST = 86400.0  # seconds; a broken time stamp promises years, and pictures for all of them would eat all memory
PIXELS = 2**27  # of a picture
GAP = 0.1  # seconds without sound that are a gap, and no coarse time stamp


@contextmanager
def opened(path: str | Path, expected: str) -> Iterator[Any]:
    """A file opened by PyAV; whatever goes wrong while it is read becomes an InputError that names it.

    Args:
        path: the file.
        expected: what it should be, for messages.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: expected {expected}, found no file")
    try:
        options: dict[str, Any] = {"metadata_errors": "ignore"}  # PyAV's own stubs leave it out
        # An absolute path: FFmpeg takes the "a:" of "a:b.mp4" for a protocol.
        with av.open(os.path.abspath(path), **options) as container:
            if container.format.name in HIDDEN:
                require_whole(Path(path), container.format.name)
            if container.format.name == "ogg" and (count := count_ogg_streams(Path(path))) > len(container.streams):
                raise InputError(f"{path}: expected one Ogg file, found {count} that were joined")
            yield container
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of many kinds
        found = f"a file that cannot be decoded ({error or type(error).__name__})"
        raise InputError(f"{path}: expected {expected}, found {found}") from error


def chosen(container: Any, kind: Literal["video", "audio"]) -> Any:
    """The stream that players show or play: FFmpeg's best, but no cover picture. None if the file has none.

    Raises:
        InputError: FFmpeg has no decoder for it.
    """
    streams = [stream for stream in getattr(container.streams, kind) if not stream.disposition & COVERS]
    if kind == "video" and len(streams) > 1:  # covers that are not marked as such are a single picture
        streams = _moving(container.name, streams) or streams
    best = container.streams.best(kind)
    stream = best if best in streams else next(iter(streams), None)
    if stream is not None and stream.codec_context is None:
        raise InputError(f"{container.name}: expected {kind} that FFmpeg can decode, found an unknown codec")
    return stream


def _moving(path: str, streams: list[Any]) -> list[Any]:
    """Those of the streams that have more than one packet."""
    counts = {stream.index: 0 for stream in streams}
    with av.open(path) as container:
        for packet in container.demux(video=list(range(len(container.streams.video)))):
            if packet.size and packet.stream.index in counts:
                counts[packet.stream.index] += 1
                if min(counts.values()) > 1:
                    break
    return [stream for stream in streams if counts[stream.index] > 1]


def frames(container: Any, stream: Any, where: str) -> Iterator[Any]:
    """All frames of a stream; afterwards InputError if the whole file ended before its header says.

    Only the file as a whole can tell: one of its streams may end before the others. Headers are a few frames off, so
    a file may lack two packets (0.1 to 2 s), and a video a twentieth of its length, where `require_whole` knows no
    better.
    """
    stream.codec_context.thread_count = 1  # files are decoded side by side instead
    if stream.type == "video" and stream.width * stream.height > PIXELS:
        raise InputError(f"{where}: expected pictures of up to {PIXELS} pixels, found {stream.width}x{stream.height}")
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
    share = 0.95 if container.streams.video else 1.0
    if found < share * promised - 2 * longest and container.format.name not in UNSTATED:
        raise InputError(
            f"{where}: expected {promised:.2f} s of {WORDS[stream.type]}, as its header says, found {found:.2f} s"
        )
    if container.format.name not in HIDDEN:
        require_whole(Path(where), container.format.name)


def begin_of(container: Any) -> float:
    """The time stamp, in seconds, at which the first stream of a file begins: its time 0."""
    return (container.start_time or 0) / av.time_base


def times(found: Iterator[Any], zero: float, lasts: float = 0.0) -> Iterator[tuple[float, Any]]:
    """Frames with the seconds at which they begin, counted from `zero`.

    A frame without a time stamp begins where the one before ends. Where stamps go back, as in files that were joined
    end to end, what comes goes on from there, too.

    Args:
        found: the frames.
        zero: the time stamp of second 0.
        lasts: how long a picture is shown that does not say.

    Raises:
        ValueError: a time stamp is beyond a day.
    """
    last, end, moved = -LONGEST, 0.0, 0.0
    for frame in found:
        time = end if frame.time is None else frame.time - zero + moved
        if time < last - GAP:
            moved, time = moved + end - time, end
        if abs(time) > LONGEST:
            raise ValueError(f"a time stamp of {time:.0f} s")
        yield time, frame
        last, end = time, time + length(frame, lasts)


def length(frame: Any, lasts: float = 0.0) -> float:
    """Seconds for which a frame is shown or heard; `lasts` where it does not say."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else lasts


def join_sound(
    found: Iterator[tuple[float, Any]], form: str, layout: str | None = None, rate: int | None = None
) -> tuple[np.ndarray, int, float]:
    """Frames of sound joined, with zeros in the gaps between them.

    Args:
        found: the frames, with the seconds at which each begins.
        form: FFmpeg's name of a packed sample format, as "s16" or "flt".
        layout: of channels, "mono" or "stereo"; that of the first frame if not given.
        rate: in Hz; that of the first frame if not given.

    Returns:
        The sound (T, C), its rate, and the seconds at which it begins.
    """
    runs: list[tuple[float, list[np.ndarray]]] = []  # without a gap: where each begins, and its parts
    own, end = None, 0.0
    resampler: Any = None
    for time, frame in found:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if now != own or time > end + GAP:
            if resampler is not None:
                runs[-1][1].extend(part.to_ndarray() for part in resampler.resample(None))
            layout, rate = layout or frame.layout.name, rate or frame.sample_rate
            resampler = av.AudioResampler(form, layout, rate)
            runs.append((time, []))
            own, end = now, time
        runs[-1][1].extend(part.to_ndarray() for part in resampler.resample(frame))
        end += length(frame)
    if resampler is None or layout is None or rate is None:
        return np.empty((0, 1), np.int16), 1, 0.0
    runs[-1][1].extend(part.to_ndarray() for part in resampler.resample(None))
    runs = [run for run in runs if run[1]]
    if not runs:
        return np.empty((0, 1), np.int16), 1, 0.0
    channels, place = av.AudioLayout(layout).nb_channels, 0
    joined: list[np.ndarray] = []
    for time, parts in runs:
        run = np.concatenate(parts, 1).reshape(-1, channels)
        gap = max(0, round((time - runs[0][0]) * rate) - place) if joined else 0
        joined += [np.zeros((gap, channels), run.dtype), run]
        place += gap + len(run)
    return np.concatenate(joined), rate, runs[0][0]
