"""Small files of sound, and sets of them in their true formats, for tests."""

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from datamodules.audio.esc import ESC10, ESC50
from datamodules.audio.fsdd import SPEAKERS
from datamodules.audio.speech_commands import WORDS

SOUND = ["FSDD", "ESC", "SpeechCommands", "AudioFolder", "AudioTable"]


def tone(seconds: float = 0.1, rate: int = 8000, pitch: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine (T, channels) of amplitude 0.5; the second channel has the doubled pitch, and so on."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * pitch * np.outer(time, np.arange(1, channels + 1))).astype(np.float32)


def write_sound(path: Path, rate: int = 8000, subtype: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(rate=rate, **options), rate, subtype)
    return path


def write_folder(folder: Path, count: int = 4, suffix: str = "wav", **options: Any):
    """Two classes: high and low tones, of lengths that vary."""
    for name, pitch in (("high", 1000.0), ("low", 200.0)):
        for i in range(count):
            write_sound(folder / name / f"{i}.{suffix}", seconds=0.05 + 0.01 * (i % 3), pitch=pitch, **options)


def write_fsdd(folder: Path, digits: int = 10, takes: tuple[int, ...] = (0, 5, 6, 7, 8)):
    for digit in range(digits):
        for speaker in SPEAKERS:
            for take in takes:
                seconds = 0.05 + 0.01 * (take % 3)
                write_sound(folder / f"{digit}_{speaker}_{take}.wav", seconds=seconds, pitch=100.0 + 100 * digit)


def write_esc10(folder: Path, sources: int = 2):
    """ESC-10's own release: folders of ogg, two takes of each source."""
    for number, name in enumerate(ESC10, 1):
        for fold in range(1, 6):
            for source in range(sources):
                for take in "AB":
                    file = f"{fold}-{1000 * number + 10 * fold + source}-{take}.ogg"
                    write_sound(folder / f"{number:03} - {name}" / file, rate=44100, seconds=0.05)


def write_esc50(folder: Path):
    """ESC-50: one table, and all files in one folder."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for target, name in enumerate(ESC50):
        for fold in range(1, 6):
            for source in (fold, fold + 10):
                lines.append(f"{fold}-{source}-A-{target}.wav,{fold},{target},{name},{name in ESC10},{source},A")
                write_sound(folder / "audio" / lines[-1].split(",")[0], rate=44100, seconds=0.02)
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines))


def write_speech_commands(folder: Path):
    root = folder / "SpeechCommands" / "speech_commands_v0.02"
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for word in WORDS:
        for i, name in enumerate(("training", "training", "validation", "testing")):
            file = f"{word}/0a{i}b_nohash_0.wav"
            write_sound(root / file, rate=16000, seconds=0.05 + 0.01 * i)
            lists.get(name, []).append(file)
    for name, files in lists.items():
        (root / f"{name}_list.txt").write_text("\n".join(files) + "\n")
    write_sound(root / "_background_noise_" / "white_noise.wav", rate=16000, seconds=0.2)


def write_table(folder: Path, labels: tuple[str, ...] = ("dog", "cat"), folds: tuple[str, ...] = ("train", "val")):
    """`table.csv` of path, label and fold: four clips of each label in each fold."""
    lines = ["path,label,fold"]
    for fold in folds:
        for k, label in enumerate(labels):
            for i in range(4):
                name = f"clips/{fold}-{k}-{i}.wav"
                write_sound(folder / name, pitch=200.0 * (k + 1), seconds=0.05 + 0.01 * (i % 3))
                lines.append(f'{name},"{label}",{fold}')
    (folder / "table.csv").write_text("\n".join(lines))


def write_sounds(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments that put made-up sound into the place of a config's own."""
    name = config["data"]["class_path"]
    if name == "AudioTable":
        write_table(folder, ("/m/09x0r,/t/dd00088,/m/04rlf", "/m/04rlf"), ("train", "val", "test"))
        return {"table": folder / "table.csv", "num_classes": 3, "eval_clips": 2}
    if name == "ESC":
        (write_esc10 if config["data"]["init_args"].get("classes") == 10 else write_esc50)(folder)
        return {"root": folder, "val_fraction": 0.25}
    {"FSDD": write_fsdd, "SpeechCommands": write_speech_commands}[name](folder)
    return {"root": folder, "val_fraction": 0.25}


def write_by_pyav(
    path: Path,
    sound: np.ndarray,
    rate: int,
    codec: str,
    form: str | None = None,
    bit_rate: int | None = 128_000,
    **options: str,
) -> Path:
    """Sound (T,) in [-1, 1] as a file of one stream, by PyAV; `options` are those of the container."""
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if bit_rate is None:  # as much as it takes
            stream.options = {"q": "4"}
            stream.codec_context.flags |= av.codec.context.Flags.qscale
        else:
            stream.bit_rate = bit_rate
        if codec in ("wavpack", "tta"):  # of whose formats 8 bits are the first
            stream.format = "s16" if codec == "tta" else "s16p"
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 4096)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None], np.float32), "flt", "mono")
        frame.sample_rate, frame.pts = rate, 0
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return path


# ---------------------------------------------------------------- formats

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

SOUND16 = np.round(sines(400) * 32767).astype("<i2")
DATA = SOUND16.tobytes()
