"""What all sound here shares: clips, features, augmentation, positions in time."""

import math
from abc import ABC
from typing import Any, Literal

import torch
from torch import Tensor
from torchaudio.transforms import SpecAugment

from datamodules.audio.augment import AudioAugment, equalise, gain, mix, noise
from datamodules.audio.dataset import ClipSet
from datamodules.audio.reading import CLIPS, FULL_SCALE
from datamodules.audio.spectrogram import Spectrogram, normalise
from datamodules.common.collate import own_places, rows_of_clips
from datamodules.common.files import Files
from datamodules.common.patches import patches
from datamodules.common.scale import Scale
from datamodules.common.splits import Split
from perceiver_lightning.errors import require


class Audio(Files, ABC):
    """Clips of one modality, `audio`: waveform (B, T, C) or log-mel spectrogram (B, F, S, C), whole or in patches.

    Clips are decoded one by one as int16, and made floats, augmented and made spectrograms as a batch, on its device.
    The training split is augmented, the others never.

    Positions are times: those of a clip shorter than `seconds` are the first of the axis, not all of it, so that a
    second is as long in every clip; or, with `relative_time`, shares of each clip. The resolution, which sets the
    Fourier bands, is that of `seconds`.

    Args:
        facts: what a task needs to know, as `DataModule` has them.
        seconds: length of a clip. Of a longer file training takes a random piece, evaluation `eval_clips`; a shorter
            one is padded and masked.
        sample_rate: in Hz, that all files are brought to.
        channels: 1 for mono, 2 for stereo; files are converted.
        eval_clips: clips of each file in evaluation, evenly spread, whose probabilities are averaged.
        spectrogram: the settings of a log-mel spectrogram; its `mels: null` is the waveform.
        patch: size of a patch: [samples] (the paper: 128), or of a spectrogram [frames, bands]; null for single ones.
        relative_time: a clip's positions in time go from -1 at its start to 1 at its own end, however long it is: for
            single words, which some say faster than others.
        scale: the [mean, standard deviation] that are taken out; null for each clip's own, which also takes out how
            loud it is; "train" for those of the train split, which are computed once and kept in checkpoints.
        augment: what is done by chance in training.
        options: as `Files` has them. Clips are cached decoded, as int16 at `sample_rate`.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    kind = CLIPS

    def __init__(
        self,
        facts: dict[str, Any],
        seconds: float = 1.0,
        sample_rate: int = 16000,
        channels: int = 1,
        eval_clips: int = 1,
        spectrogram: Spectrogram = Spectrogram(),
        patch: list[int] | None = None,
        relative_time: bool = False,
        scale: list[float] | Literal["train"] | None = None,
        augment: AudioAugment = AudioAugment(),
        **options: Any,
    ) -> None:
        for key, value in {"sample_rate": sample_rate, "eval_clips": eval_clips}.items():
            require(value >= 1, key, "an integer of at least 1", value)
        require(channels in (1, 2), "channels", "1 or 2", channels)
        length = round(seconds * sample_rate) if 0 < seconds < math.inf else 0
        require(length >= 1, "seconds", "the length of a clip, a sample at least", seconds)
        is_wave = spectrogram.mels is None
        patch = patch or [1] * (1 if is_wave else 2)
        is_patch = len(patch) == (1 if is_wave else 2) and min(patch) >= 1
        axes = "[samples]" if is_wave else "[frames, bands]"
        require(is_patch, "patch", f"null, or {axes} of at least 1", patch)
        if scale is not None and scale != "train":
            expected = "null, train, or [mean, standard deviation above 0]"
            require(len(scale) == 2 and scale[1] > 0, "scale", expected, scale)
        augment.check(facts, spectrogram.mels)

        self.mel = spectrogram.log_mel(sample_rate, patch[-1])
        resolution = [-(-length // patch[0])]
        if self.mel is not None and spectrogram.mels is not None:
            resolution = [-(-self.mel.frames(length) // patch[0]), spectrogram.mels // patch[1]]
        policy = augment.spec_augment
        self.spec_augment = None if policy is None else SpecAugment(*policy, zero_masking=True)
        channels_of_patch = channels * torch.Size(patch).numel()
        modalities = {"audio": {"channels": channels_of_patch, "resolution": resolution}}
        super().__init__(modalities, facts, **options)
        self.length = length
        self.sample_rate = sample_rate
        self.channels = channels
        self.eval_clips = eval_clips
        self.patch = patch
        self.relative_time = relative_time
        self.scale: Scale | None = None
        if scale is not None:
            mean, std = (scale, scale) if scale == "train" else scale
            self.scale = Scale(mean, std, 1, ("scale", "scale"))
        self.scales = {} if self.scale is None else {"audio": self.scale}
        self.augment = augment

    def make_set(self, split: Split, training: bool) -> ClipSet:
        """The clips of a split: a random one of each file in training, else `eval_clips`."""
        return ClipSet(
            split,
            self.sample_rate,
            self.channels,
            self.length,
            training,
            shift=round(self.augment.time_shift * self.sample_rate),
            speed=self.augment.speed,
            clips=1 if training else self.eval_clips,
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
            sound, length = self._augment(sound, length, rest)
        if self.mel is None:
            content = self._scaled(sound, own_places(length, sound.shape[1]))
        else:
            length = self.mel.frames(length)
            content = self.mel.to(sound.device)(sound)
            if training and self.augment.equaliser:
                content = equalise(content, self.augment.equaliser)
            content = self._scaled(content, own_places(length, content.shape[1]))
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

    def _scaled(self, content: Tensor, there: Tensor) -> Tensor:
        """Content (B, I, ..., C) with mean and deviation taken out, and 0 where `there` (B, I) is False."""
        if self.scale is None:
            return normalise(content, there)
        return self.scale(content, there.view(*there.shape, *[1] * (content.ndim - 3)).expand(content.shape[:-1]))

    def _augment(self, sound: Tensor, length: Tensor, rest: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Sound (B, T, C) of the training split made louder or softer, noisy, mixed; zero behind each end.

        With what is mixed, so are the labels in the `rest` of the batch.
        """
        augment = self.augment
        if augment.gain:
            sound = gain(sound, augment.gain)
        if augment.noise is not None:
            sound = noise(sound, augment.noise, length) * own_places(length, sound.shape[1])[..., None]
        if augment.mixup:
            sound, rest["labels"], length = mix(sound, rest["labels"], length, self.num_classes, augment.mixup)
        return sound, length
