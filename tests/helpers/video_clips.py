"""Small clips, with and without sound, and sets of them in their true formats, for tests."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from sound_files import tone

from datamodules.audio_visual.grid import SENTENCES

CODECS = {
    ".mp4": ("libx264", "yuv420p", "aac"),
    ".mov": ("libx264", "yuv420p", "aac"),
    ".mkv": ("mpeg4", "yuv420p", "flac"),
    ".webm": ("libvpx-vp9", "yuv420p", "libopus"),
    ".avi": ("mpeg4", "yuv420p", "pcm_s16le"),
    ".gif": ("gif", "gray", None),
}


def greys(levels: list[int] | np.ndarray, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """Pictures (T, H, W, 3), each of one grey."""
    return np.broadcast_to(np.asarray(levels, np.uint8)[:, None, None, None], (len(levels), *size, 3)).copy()


def write_clip(
    path: Path,
    pictures: np.ndarray | None,
    fps: int = 10,
    sound: np.ndarray | None = None,
    rate: int = 16000,
    **options: str,
) -> Path:
    """A file of pictures (T, H, W, 3), sound (T, 1) in [-1, 1], or both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, form, sound_codec = CODECS[path.suffix]
    with av.open(str(path), "w", options=options) as container:
        streams: list[Any] = []
        if pictures is not None:
            stream = container.add_stream(codec, rate=fps)
            stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], form
            streams.append((stream, [av.VideoFrame.from_ndarray(p, "rgb24").reformat(format=form) for p in pictures]))
            for i, frame in enumerate(streams[-1][1]):
                frame.pts = i
                frame.time_base = Fraction(1, fps)
        if sound is not None:
            rate_of_codec = 48000 if sound_codec == "libopus" else rate
            stream = container.add_stream(sound_codec, rate=rate_of_codec, layout="mono")
            samples = np.round(sound.T * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
            streams.append((stream, [frame]))
        for stream, frames in streams:
            for frame in [*frames, None]:
                container.mux(stream.encode(frame))
    return path


def write_pictures(
    path: Path, pictures: np.ndarray, codec: str, pixels: str, fps: int = 10, form: str | None = None, **options: str
) -> Path:
    """A file of pictures (T, H, W, 3) alone; `options` are those of the codec."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_folder(
    folder: Path, count: int = 4, suffix: str = ".mp4", sound: bool = True, frames: int = 10, vary: int = 3
) -> None:
    """Two classes: bright clips with a high tone, dark ones with a low one; `frames` / 10 s, or a little less."""
    for name, level, pitch in (("bright", 200, 2000.0), ("dark", 50, 200.0)):
        for i in range(count):
            length = frames - i % vary
            heard = tone(length / 10, 16000, pitch) if sound else None
            write_clip(folder / name / f"{i}{suffix}", greys([level + i] * length), sound=heard)


def write_table(folder: Path, labels: tuple[str, ...] = ("dog", "cat"), folds: tuple[str, ...] = ("train", "val")):
    """`table.csv` of path, label and fold: two clips of each label in each fold."""
    lines = ["path,label,fold"]
    for fold in folds:
        for k, label in enumerate(labels):
            for i in range(2):
                lines.append(f'clips/{fold}-{k}-{i}.avi,"{label}",{fold}')
                write_clip(folder / lines[-1].split(",")[0], greys([40 + 80 * k] * 8))
    (folder / "table.csv").write_text("\n".join(lines))


def write_grid(folder: Path, label: str = "color", count: int = 4) -> None:
    """GRID's `index.csv` and `clips/`: `count` clips to train and one to test for each class of a label.

    Each word of a clip of 0.8 s lasts 3 frames of 1/25 s.
    """
    lines = [",".join(["clip", "split", *SENTENCES, "sentence", "alignment_video_frames"])]
    for k, word in enumerate(SENTENCES[label]):
        for i in range(count + 1):
            words = {**{name: options[0] for name, options in SENTENCES.items()}, label: word}
            name = f"{word}{i}"
            spans = ";".join(f"{word}:{1 + 3 * j}-{4 + 3 * j}" for j, word in enumerate(words.values()))
            given = [name, "test" if i == count else "train", *words.values(), " ".join(words.values())]
            lines.append(",".join([*given, f"sil:0-1;{spans};sil:19-20"]))
            sound = tone(0.8, 16000, 200.0 + 50 * k)
            write_clip(folder / "clips" / f"{name}.mp4", greys([20 + 8 * k] * 8, (16, 16)), sound=sound)
    (folder / "index.csv").write_text("\n".join(lines))
