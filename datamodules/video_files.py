"""Clips from files: pictures and sound decoded by PyAV, each on its own grid of time, and cut from the same seconds.

Time 0 is the file's own, where its first stream begins. Legend: T pictures or samples, H height, W width, C channels.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.audio_files import piece
from datamodules.cache import Arrays, cached
from datamodules.collate import LATER
from datamodules.file_base import FileSet
from datamodules.splits import Kind, Split
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
        shown: Any = None
        end = 0.0

        def keep_until(time: float) -> None:
            missing = ceil(round(time * fps - 0.5, 6)) - len(kept)
            if missing > 0:
                kept.extend([resize(shown)] * missing)

        for frame in _frames(container, stream, str(path)):
            time = (frame.time or 0.0) - zero
            if shown is not None:  # the first one stands for what is before it, too
                keep_until(time)
            shown, end = frame, time + _length(frame, stream)
        if shown is not None:
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


def cut_pictures(pictures: np.ndarray, start: float, shift: float, fps: float, frames: int, seconds: float) -> Any:
    """The pictures (T, H, W, C) of the `frames` equal parts of `seconds` from `start` on, in the middle of each.

    Fewer where the file ends early, but one at the least if it has any. A `shift` moves the clip without changing how
    many there are: the first and the last picture stay on.
    """
    middles = start + (np.arange(frames) + 0.5) * (seconds / frames)
    count = max(int((middles * fps < len(pictures)).sum()), min(1, len(pictures)))
    rows = np.floor((middles[:count] + shift) * fps).astype(int)
    return pictures[rows.clip(0, max(0, len(pictures) - 1))]


def cut_sound(sound: np.ndarray, start: float, shift: float, sample_rate: int, seconds: float) -> Any:
    """The samples (T, C) of `seconds` from `start` on; fewer where the file ends early.

    A `shift` moves the clip without changing how many there are: zeros come in.
    """
    first = round(start * sample_rate)
    length = min(round(seconds * sample_rate), max(0, len(sound) - first))
    return piece(sound, first + round(shift * sample_rate), length)


class Track(NamedTuple):
    """What is read of a file: pictures or sound.

    Attributes:
        decode: of a path, all there is, (T, *tail); its keywords tell caches apart. T = 0 if the file has none.
        cut: of that, a start and a shift in seconds, the clip.
        rate: of T, a second.
    """

    decode: "partial[np.ndarray]"
    cut: Callable[[np.ndarray, float, float], np.ndarray]
    rate: float


class VideoSet(FileSet):
    """Clips of the files of a split, each of their tracks a modality, cut from the same seconds.

    Content is as decoded, (T, *tail), or (clips, T, *tail) for several clips. A track that a clip lacks is left out; a
    file that has none of them is broken.

    Args:
        split: the files; where it has `middles`, the clip of a file lies about its own, within the file.
        tracks: name of each modality -> how it is read.
        seconds: length of a clip.
        training: whether the clip is a random one; else they are evenly spread, a single one in the middle.
        shift: seconds by which a clip of the training split is moved either way, at most.
        clips: of each file, in evaluation.
        num_classes: of several labels, which become (num_classes,); None for one label.
        cache_dir: the folder of caches on disk; None to cache in memory, if at all.
        finish: what is done to an example last, which has its name.
    """

    def __init__(
        self,
        split: Split,
        tracks: Mapping[str, Track],
        seconds: float,
        training: bool,
        shift: float = 0.0,
        clips: int = 1,
        num_classes: int | None = None,
        cache_dir: Path | None = None,
        finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(split)
        self.tracks = tracks
        self.seconds = seconds
        self.training = training
        self.shift = shift
        self.clips = clips
        self.num_classes = num_classes
        self.cache_dir = cache_dir
        self.finish = finish
        self.arrays: dict[str, Arrays] = {}
        self.rows: dict[str, list[int]] = {}  # of each example in the arrays, which lack what was broken

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The clip of one file, or its clips."""
        whole = self._decoded(row)
        length = max(len(array) / self.tracks[name].rate for name, array in whole.items())
        spare = max(0.0, length - self.seconds)
        drawn, moved = torch.rand(2).tolist() if self.training else (0.5, 0.5)
        shift = self.shift * (2 * moved - 1)
        if self.split.middles is not None:
            starts = [min(max(self.split.middles[row] - self.seconds / 2, 0.0), spare)]
        elif self.training:
            starts = [spare * drawn]
        else:
            # The middles of equal shares: one clip lies in the middle, many reach from end to end.
            starts = [spare * s for s in (np.linspace(0, 1, self.clips).tolist() if self.clips > 1 else [0.5])]
        inputs = {}
        for name, array in whole.items():
            clips = [self.tracks[name].cut(array, start, shift) for start in starts]
            if any(map(len, clips)):
                part = _stacked(clips) if len(clips) > 1 else {"content": torch.from_numpy(clips[0])}
                inputs[name] = {**part, "positions": LATER}
        example = self.example(row, inputs)
        if self.num_classes is not None and "labels" in example:
            labels = torch.zeros(self.num_classes)
            labels[list(example["labels"])] = 1
            example["labels"] = labels
        return example if self.finish is None else self.finish(example)

    def read(self, row: int) -> Tensor:
        """Decode one file; its first track."""
        return torch.tensor(next(iter(self._decoded(row).values())))

    def prepare(self, skip_broken: bool, cache: bool) -> list[str]:
        """Decode all files once, as `FileSet.prepare`; if they are cached, one array a track, in memory or on disk."""
        if self.prepared or not cache:
            return super().prepare(skip_broken, cache=False)
        for name, track in self.tracks.items():
            title = f"Decoding {name} of {self.split.where}"
            settings = {"track": name, **track.decode.keywords}
            self.arrays[name] = cached(self.split.items, track.decode, settings, title, skip_broken, self.cache_dir)
        whole = range(len(self))
        # An array has a place for each file but for those that it found broken.
        places = {
            name: dict(zip([row for row in whole if row not in arrays.broken], range(len(arrays)), strict=True))
            for name, arrays in self.arrays.items()
        }
        kept = []
        for row in whole:
            if all(row in places[name] for name in places):
                if any(len(arrays[places[name][row]]) for name, arrays in self.arrays.items()):
                    kept.append(row)
                elif not skip_broken:
                    raise self._nothing(row)
        broken = [self.split.names[row] for row in sorted(set(whole) - set(kept))]
        self.rows = {name: [places[name][row] for row in kept] for name in places}
        self.split = self.split.take(kept)
        self.prepared = True
        return broken

    def _decoded(self, row: int) -> dict[str, np.ndarray]:
        """All that there is of one file."""
        if self.arrays:
            return {name: arrays[self.rows[name][row]] for name, arrays in self.arrays.items()}
        whole = {name: track.decode(self.split.items[row]) for name, track in self.tracks.items()}
        if not any(map(len, whole.values())):
            raise self._nothing(row)
        return whole

    def _nothing(self, row: int) -> InputError:
        return InputError(f"{self.split.items[row]}: expected {' or '.join(self.tracks)}, found a file without")


def _stacked(clips: list[np.ndarray]) -> dict[str, Tensor]:
    """The clips of one file as one part of an example, masked where they end early."""
    lengths = torch.tensor([len(clip) for clip in clips])
    content = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    if len(lengths.unique()) == 1:
        return {"content": content}
    there = torch.arange(content.shape[1]) < lengths[:, None]
    return {"content": content, "mask": there.view(*there.shape, *[1] * (content.ndim - 3)).expand(content.shape[:-1])}
