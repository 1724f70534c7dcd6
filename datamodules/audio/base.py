"""What all sound here shares: clips, features, augmentation, positions in time."""

import math
from abc import ABC
from typing import Any, Literal

import torch
from torch import Tensor
from torchaudio.transforms import SpecAugment

from datamodules.audio.augment import equalise, gain, mix, noise
from datamodules.audio.dataset import ClipSet
from datamodules.audio.reading import CLIPS, FULL_SCALE
from datamodules.audio.spectrogram import LogMel, normalise
from datamodules.base import require
from datamodules.common.cache import cache_folder
from datamodules.common.collate import own_places, rows_of_clips
from datamodules.common.files import Files
from datamodules.common.patches import patches
from datamodules.common.splits import Split


class Audio(Files, ABC):
    """Clips of one modality, `audio`: waveform (B, T, C) or log-mel spectrogram (B, F, S, C), whole or in patches.

    Clips are decoded one by one as int16, and made floats, augmented and made spectrograms as a batch, on its device.
    The training split is augmented, the others never.

    Positions are times: those of a clip shorter than `seconds` are the first of the axis, not all of it, so that a
    second is as long in every clip; or, with `relative_time`, shares of each clip. The resolution, which sets the
    Fourier bands, is that of `seconds`.

    Args:
        num_classes: number of classes.
        class_names: their names; numbers if not given.
        multilabel: whether a clip may have several classes (or none).
        seconds: length of a clip. Of a longer file training takes a random piece, evaluation `eval_clips`; a shorter
            one is padded and masked.
        sample_rate: in Hz, that all files are brought to.
        channels: 1 for mono, 2 for stereo; files are converted.
        eval_clips: clips of each file in evaluation, evenly spread, whose probabilities are averaged.
        mels: mel bands of a log-mel spectrogram; null for the waveform.
        window: samples of the window of a spectrogram's frame.
        hop: samples from one frame to the next.
        frequencies: the [lowest, highest] of the mel bands, in Hz; up to half the sample rate if not given.
        patch: size of a patch: [samples] (the paper: 128), or of a spectrogram [frames, bands]; null for single ones.
        relative_time: a clip's positions in time go from -1 at its start to 1 at its own end, however long it is: for
            single words, which some say faster than others.
        scale: the [mean, standard deviation] that are taken out; null for each clip's own, which also takes out how
            loud it is.
        batch_size: files in a batch, on each device.
        num_workers: processes that read ahead; 0 is right for cached clips that fit into memory, else one per core.
        val_fraction: share of train that is cut off for validation where the data bring no validation split,
            the same share of each class.
        split_seed: the seed of that cut.
        time_shift: in training, seconds by which a clip is moved either way, at most.
        speed: in training, share by which a clip gets faster and higher, or slower and lower, at most: other speakers.
        gain: in training, decibels by which a clip gets louder or softer, at most.
        noise: in training, [low, high] of the decibels by which added white noise is softer than a clip; null for none.
        equaliser: in training, decibels by which four evenly spaced bands of a log-mel spectrogram are raised or
            lowered, at most, those between them with them: other microphones, rooms and voices.
        spec_augment: in training, SpecAugment's [time masks, frames of each at most, frequency masks, bands of each at
            most]; null for none.
        mixup: in training, alpha of MixUp of the waveforms; 0 for none. Makes labels soft.
        balanced_sampling: in training, draw each class equally often; see `Files`.
        cache: keep decoded clips, as int16 at `sample_rate`: "memory"; or "disk", memory-mapped, which all processes
            share and later runs find again; null decodes each clip each time.
        cache_dir: the folder of caches on disk; `cache` in the folder of all data if not given.
        predict_dir: a folder of sound files without labels, at any depth, for `predict`.
        skip_broken: leave out files that cannot be read, after decoding all once to find them, and log how many;
            otherwise the first one ends the run.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        multilabel: bool = False,
        seconds: float = 1.0,
        sample_rate: int = 16000,
        channels: int = 1,
        eval_clips: int = 1,
        mels: int | None = 64,
        window: int = 400,
        hop: int = 160,
        frequencies: list[float] | None = None,
        patch: list[int] | None = None,
        relative_time: bool = False,
        scale: list[float] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        time_shift: float = 0.0,
        speed: float = 0.0,
        gain: float = 0.0,
        noise: list[float] | None = None,
        equaliser: float = 0.0,
        spec_augment: list[int] | None = None,
        mixup: float = 0.0,
        balanced_sampling: bool = False,
        cache: Literal["memory", "disk"] | None = None,
        cache_dir: str | None = None,
        predict_dir: str | None = None,
        skip_broken: bool = False,
    ) -> None:
        whole = {"sample_rate": sample_rate, "eval_clips": eval_clips, "window": window, "hop": hop}
        for key, value in whole.items():
            require(value >= 1, key, "an integer of at least 1", value)
        require(channels in (1, 2), "channels", "1 or 2", channels)
        length = round(seconds * sample_rate) if 0 < seconds < math.inf else 0
        require(length >= 1, "seconds", "the length of a clip, a sample at least", seconds)
        axes = "[samples]" if mels is None else "[frames, bands]"
        patch = patch or [1] * (1 if mels is None else 2)
        is_patch = len(patch) == (1 if mels is None else 2) and min(patch) >= 1
        require(is_patch, "patch", f"null, or {axes} of at least 1", patch)
        if scale is not None:
            require(len(scale) == 2 and scale[1] > 0, "scale", "null, or [mean, standard deviation above 0]", scale)
        amounts = {"time_shift": time_shift, "gain": gain, "equaliser": equaliser, "mixup": mixup}
        for key, amount in amounts.items():
            require(amount >= 0, key, "a number of at least 0", amount)
        require(0 <= speed < 1, "speed", "a number of at least 0 and below 1", speed)
        if noise is not None:
            require(len(noise) == 2 and noise[0] <= noise[1], "noise", "null, or [low, high] decibels", noise)

        self.mel: LogMel | None = None
        resolution = [-(-length // patch[0])]
        if mels is not None:
            frequencies = frequencies or [0.0, sample_rate / 2]
            is_range = len(frequencies) == 2 and 0 <= frequencies[0] < frequencies[1] <= sample_rate / 2
            expected = f"null, or [lowest, highest] of 0 to {sample_rate / 2:g}, half of sample_rate"
            require(is_range, "frequencies", expected, frequencies)
            require(mels >= 1 and mels % patch[1] == 0, "mels", f"a multiple of {patch[1]}, as patch has it", mels)
            self.mel = LogMel(sample_rate, mels, window, hop, frequencies)
            resolution = [-(-self.mel.frames(length) // patch[0]), mels // patch[1]]
        require(mels is not None or not equaliser, "equaliser", "0, as mels is null", equaliser)
        self.spec_augment: SpecAugment | None = None
        if spec_augment is not None:
            is_policy = len(spec_augment) == 4 and min(spec_augment) >= 0
            expected = "null, or [time masks, frames, frequency masks, bands]"
            require(is_policy, "spec_augment", expected, spec_augment)
            require(mels is not None, "spec_augment", "null, as mels is", spec_augment)
            self.spec_augment = SpecAugment(*spec_augment, zero_masking=True)

        channels_of_patch = channels * torch.Size(patch).numel()
        super().__init__(
            CLIPS,
            {"audio": {"channels": channels_of_patch, "resolution": resolution}},
            num_classes,
            class_names,
            multilabel,
            batch_size=batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            split_seed=split_seed,
            balanced_sampling=balanced_sampling,
            cache=cache is not None,
            predict_dir=predict_dir,
            skip_broken=skip_broken,
        )
        self.length = length
        self.sample_rate = sample_rate
        self.channels = channels
        self.eval_clips = eval_clips
        self.patch = patch
        self.relative_time = relative_time
        self.scale = scale
        self.time_shift = round(time_shift * sample_rate)
        self.speed = speed
        self.gain = gain
        self.noise = noise
        self.equaliser = equaliser
        self.mixup = mixup
        self.cache_dir = cache_folder(cache, cache_dir)

    def make_set(self, split: Split, training: bool) -> ClipSet:
        """The clips of a split: a random one of each file in training, else `eval_clips`."""
        return ClipSet(
            split,
            self.sample_rate,
            self.channels,
            self.length,
            training,
            shift=self.time_shift,
            speed=self.speed,
            clips=1 if training else self.eval_clips,
            num_classes=self.num_classes if self.multilabel else None,
            cache_dir=self.cache_dir,
        )

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device: floats, augmentation if training, features, patches.

        For loops without a Trainer: `for batch in data.train_dataloader(): batch = data.finish(batch, training=True)`.

        Args:
            batch: as the loaders give it, with int16 content (B, T, C), or (B, clips, T, C) for several clips.
            training: whether to augment.

        Returns:
            A batch of the contract in `datamodules.base`; several clips of a file are rows with one `example`.
        """
        batch = rows_of_clips(batch, {"audio": 3})
        own, rest = batch["inputs"]["audio"], {key: batch[key] for key in batch if key != "inputs"}
        sound, mask = own["content"].float() / FULL_SCALE, own.get("mask")
        length = torch.full((len(sound),), sound.shape[1], device=sound.device) if mask is None else mask.sum(1)
        if training:
            sound, length, labels = self._augment(sound, length, rest["labels"])
            rest["labels"] = labels
        if self.mel is None:
            content = normalise(sound, self.scale, own_places(length, sound.shape[1]))
        else:
            length = self.mel.frames(length)
            content = self.mel.to(sound.device)(sound)
            if training and self.equaliser:
                content = equalise(content, self.equaliser)
            content = normalise(content, self.scale, own_places(length, content.shape[1]))
            if training and self.spec_augment is not None:
                content = self.spec_augment(content.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)

        content = patches(content, self.patch)
        part: dict[str, Any] = {"content": content}
        places, full = content.shape[1], self.modalities["audio"]["resolution"]
        length = -(-length // self.patch[0])  # in places
        if self.relative_time or places < full[0]:
            along, *others = (torch.linspace(-1, 1, size, device=content.device) for size in full)
            along = along[:places]
            if self.relative_time:
                share = torch.arange(places, device=content.device) / (length - 1).clamp(min=1)[:, None]
                along = (2 * share - 1).clamp(max=1)
            part["positions"] = [along, *others]
        there = own_places(length, places)
        if mask is not None:
            part["mask"] = there if self.mel is None else there[..., None].expand(content.shape[:-1])
        return {"inputs": {"audio": part}, **rest}

    def _augment(self, sound: Tensor, length: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sound (B, T, C) of the training split made louder or softer, noisy, mixed; zero behind each end."""
        if self.gain:
            sound = gain(sound, self.gain)
        if self.noise is not None:
            sound = noise(sound, self.noise, length) * own_places(length, sound.shape[1])[..., None]
        if self.mixup:
            sound, labels, length = mix(sound, labels, length, self.num_classes, self.mixup)
        return sound, length, labels
