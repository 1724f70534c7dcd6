"""Clips with sound, as two modalities cut from the same seconds."""

import math
from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypedDict
from zlib import crc32

import torch

from datamodules.audio.augment import AudioAugment
from datamodules.audio.base import Audio
from datamodules.audio.spectrogram import Spectrogram
from datamodules.common.collate import rows_of_clips
from datamodules.common.files import Files
from datamodules.common.masking import drop_modalities
from datamodules.common.noise import noisy
from datamodules.common.splits import Split
from datamodules.video.augment import VideoAugment
from datamodules.video.base import Pictures, Video
from datamodules.video.dataset import Track, VideoSet, cut_sound
from datamodules.video.reading import VIDEOS, decode_sound
from perceiver_lightning.errors import InputError, require

Modality = Literal["video", "audio"]


class PictureOptions(TypedDict, total=False):
    """What the pictures have by themselves, as `Video` has it; the rest is that of the whole."""

    frames: int
    fps: float | None
    patch: list[int] | None
    pictures: Pictures
    augment: VideoAugment


class SoundOptions(TypedDict, total=False):
    """What the sound has by itself, as `Audio` has it; the rest is that of the whole."""

    sample_rate: int
    channels: int
    spectrogram: Spectrogram
    patch: list[int] | None
    scale: list[float] | Literal["train"] | None
    augment: AudioAugment


class AudioVisual(Files, ABC):
    """Clips of two modalities, `video` and `audio`, cut from the same seconds; a subclass says where they are from.

    Either is made as `Video` and `Audio` make it. A clip may lack one, which is then masked. One alone is
    `modalities: [video]` or `modalities: [audio]`, with all else unchanged.

    Args:
        facts: what a task needs to know, as `DataModule` has them.
        modalities: which of the two are used.
        seconds: length of a clip. Of a longer file training takes a random piece, evaluation `eval_clips`; what is
            shorter is padded and masked.
        video: of the pictures, what `PictureOptions` names and `Video` explains.
        audio: of the sound, what `SoundOptions` names and `Audio` explains.
        modality_dropout: in training, modality -> share of the clips in which it is masked out, as {video: 0.3}, the
            paper's. A clip loses one at most, and never the only one that it has.
        noise: modality -> the standard deviation of white noise that is added to pixels or samples, as a multiple of
            that of the clip itself. In evaluation always of that level, and the same each time; in training other noise
            each time, of a level between none and that.
        eval_clips: clips of each file in evaluation, evenly spread, whose probabilities are averaged.
        time_shift: in training, seconds by which a clip is moved either way, at most, sound and pictures together.
        batch_size: files in a batch, on each device.
        options: as `Files` has them. What is cached is decoded, before noise.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    kind = VIDEOS

    def __init__(
        self,
        facts: dict[str, Any],
        modalities: list[Modality] | None = None,
        seconds: float = 2.0,
        video: PictureOptions | None = None,
        audio: SoundOptions | None = None,
        modality_dropout: dict[str, float] | None = None,
        noise: dict[str, float] | None = None,
        eval_clips: int = 1,
        time_shift: float = 0.0,
        batch_size: int = 16,
        **options: Any,
    ) -> None:
        names = ["video", "audio"] if modalities is None else modalities
        known = len(names) > 0 and set(names) <= {"video", "audio"} and len(set(names)) == len(names)
        require(known, "modalities", "[video], [audio] or [video, audio]", modalities)
        dropout, noise = modality_dropout or {}, noise or {}
        for key, levels in {"modality_dropout": dropout, "noise": noise}.items():
            is_level = set(levels) <= {"video", "audio"} and all(0 <= level < math.inf for level in levels.values())
            require(is_level, key, "numbers of at least 0 for video and audio", levels)
        require(sum(dropout.values()) <= 1, "modality_dropout", "shares that add up to 1 at most", dropout)
        require(eval_clips >= 1, "eval_clips", "an integer of at least 1", eval_clips)
        require(time_shift >= 0, "time_shift", "a number of at least 0", time_shift)
        # Both are made whichever is used, so that what is wrong is said, whichever is used.
        with _named("video"):
            pictures = _Pictures(facts, seconds=seconds, **(video or {}))
            _require_off(pictures.augment, "time_shift")
        with _named("audio"):
            sound = _Sound(facts, seconds=seconds, **(audio or {}))
            _require_off(sound.augment, "time_shift", "speed", "mixup")
        parts: dict[str, Video | Audio] = {"video": pictures, "audio": sound}
        own = {name: parts[name].modalities[name] for name in names}
        super().__init__(own, facts, batch_size=batch_size, **options)
        self.parts = {name: parts[name] for name in names}
        self.scales = {name: scale for part in self.parts.values() for name, scale in part.scales.items()}
        rate = sound.sample_rate
        heard = Track(
            partial(decode_sound, sample_rate=rate, channels=sound.channels),
            partial(cut_sound, sample_rate=rate, seconds=seconds),
            rate,
        )
        self.tracks: dict[str, Track] = {name: pictures.track if name == "video" else heard for name in names}
        self.seconds = seconds
        self.modality_dropout = dropout
        self.noise = noise
        self.eval_clips = eval_clips
        self.time_shift = time_shift

    def make_set(self, split: Split, training: bool) -> VideoSet:
        """The clips of a split: a random one of each file in training, else `eval_clips`; noisy if so told."""
        return VideoSet(
            split,
            self.tracks,
            self.seconds,
            training,
            shift=self.time_shift,
            clips=1 if training else self.eval_clips,
            finish=partial(with_noise, levels=self.noise, training=training) if self.noise else None,
        )

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device: as `Video` and `Audio` do it; in training, a modality hidden.

        For loops without a Trainer: `for batch in data.train_dataloader(): batch = data.finish(batch, training=True)`.

        Args:
            batch: as the loaders give it, with uint8 video (B, T, H, W, C) and int16 audio (B, T, C), or with
                (B, clips, *) for several clips.
            training: whether to do what is done by chance.

        Returns:
            A batch of the contract in `datamodules.base`; several clips of a file are rows with one `example`.
        """
        batch = rows_of_clips(batch, {"video": 5, "audio": 3})
        inputs = {}
        for name, part in batch["inputs"].items():
            done = self.parts[name].finish({**batch, "inputs": {name: part}}, training)["inputs"][name]
            if "mask" in done:  # nothing divided by its own size is no number
                done["content"] = done["content"].masked_fill(~done["mask"][..., None], 0.0)
            inputs[name] = done
        if training and self.modality_dropout:
            inputs = drop_modalities(inputs, self.modality_dropout)
        return {**batch, "inputs": inputs}


def with_noise(example: dict[str, Any], levels: dict[str, float], training: bool) -> dict[str, Any]:
    """An example, of one clip or several, with noise on its bytes and samples; see `AudioVisual`.

    Its name is the seed, whichever modalities there are; in training the noise is drawn each time, and its level too.
    """
    inputs = dict(example["inputs"])
    for name in [name for name in levels if name in inputs]:  # in one order: they share torch's generator
        seed = crc32(f"{name} {example['name']}".encode())
        generator = None if training else torch.Generator().manual_seed(seed)
        inputs[name] = {**inputs[name], "content": noisy(inputs[name]["content"], levels[name], generator)}
    return {**example, "inputs": inputs}


@contextmanager
def _named(modality: str) -> Iterator[None]:
    """Puts the modality before the key that an InputError names."""
    try:
        yield
    except InputError as error:
        own = str(error).startswith("seconds:")  # which is of both
        raise error if own else InputError(f"{modality}.{error}") from error


def _require_off(augment: VideoAugment | AudioAugment, *keys: str) -> None:
    """Raise an InputError that names the first of these which is given: both modalities have the same clips."""
    for key in keys:
        require(getattr(augment, key) == 0, key, "0, as sound and pictures are changed together", getattr(augment, key))


class _Pictures(Video):
    """What makes pictures a modality; it finds no files of its own."""

    def find_train(self) -> Any:
        """Never asked for."""

    def find_test(self) -> Any:
        """Never asked for."""


class _Sound(Audio):
    """What makes sound a modality; it finds no files of its own."""

    def find_train(self) -> Any:
        """Never asked for."""

    def find_test(self) -> Any:
        """Never asked for."""
