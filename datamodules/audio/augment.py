"""What is done by chance to a whole batch of sound on its device.

A clip shorter than the batch is zero behind its own end and stays so: every step leaves it what it would be alone.

Legend: B batch, T samples, C channels, F frames, S mel bands, K classes; length (B,) the own samples of each clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.common.classes import require_classes
from perceiver_lightning.errors import require


@dataclass(frozen=True)
class AudioAugment:
    """What is done to sound by chance, in training alone.

    Args:
        time_shift: seconds by which a clip is moved either way, at most.
        speed: share by which a clip gets faster and higher, or slower and lower, at most: other speakers.
        gain: decibels by which a clip gets louder or softer, at most.
        noise: [low, high] of the decibels by which added white noise is softer than a clip; null for none.
        equaliser: decibels by which four evenly spaced bands of a log-mel spectrogram are raised or lowered, at most,
            those between them with them: other microphones, rooms and voices.
        spec_augment: SpecAugment's [time masks, frames of each at most, frequency masks, bands of each at most]; null
            for none.
        mixup: alpha of MixUp of the waveforms; 0 for none. Makes labels soft.
    """

    time_shift: float = 0.0
    speed: float = 0.0
    gain: float = 0.0
    noise: list[float] | None = None
    equaliser: float = 0.0
    spec_augment: list[int] | None = None
    mixup: float = 0.0

    def check(self, facts: dict[str, Any], mels: int | None) -> None:
        """Raise an InputError that names what is out of its range, or needs classes or mel bands that are not there."""
        for key in ("time_shift", "gain", "equaliser", "mixup"):
            require(getattr(self, key) >= 0, key, "a number of at least 0", getattr(self, key))
        require(0 <= self.speed < 1, "speed", "a number of at least 0 and below 1", self.speed)
        if self.noise is not None:
            is_range = len(self.noise) == 2 and self.noise[0] <= self.noise[1]
            require(is_range, "noise", "null, or [low, high] decibels", self.noise)
        require(mels is not None or not self.equaliser, "equaliser", "0, as mels is null", self.equaliser)
        if self.spec_augment is not None:
            is_policy = len(self.spec_augment) == 4 and min(self.spec_augment) >= 0
            expected = "null, or [time masks, frames, frequency masks, bands]"
            require(is_policy, "spec_augment", expected, self.spec_augment)
            require(mels is not None, "spec_augment", "null, as mels is", self.spec_augment)
        require_classes(facts, mixup=self.mixup)


def gain(sound: Tensor, decibels: float) -> Tensor:
    """Make each clip of a batch (B, T, C) louder or softer by up to so many decibels."""
    change = (2 * torch.rand(len(sound), 1, 1, device=sound.device) - 1) * decibels
    return sound * 10 ** (change / 20)


def noise(sound: Tensor, ratio: Sequence[float], length: Tensor) -> Tensor:
    """Add white noise to each clip of a batch (B, T, C), softer than it by decibels drawn from `ratio`, [low, high].

    A silent clip stays silent. The batch has one noise, which each clip hears from an eighth of T later than the clip
    before, so none has another's at the same place: drawing it for each takes a CPU as long as a spectrogram.
    """
    drawn = ratio[0] + (ratio[1] - ratio[0]) * torch.rand(len(sound), 1, 1, device=sound.device)
    values = (length * sound.shape[2]).view(-1, 1, 1)
    loudness = torch.linalg.vector_norm(sound, dim=(1, 2), keepdim=True) / values.sqrt()
    later = -(-sound.shape[1] // 8)
    white = torch.randn(sound.shape[1] + later * (len(sound) - 1), sound.shape[2], device=sound.device)
    white_BTC = white.unfold(0, sound.shape[1], later).transpose(1, 2)
    return torch.addcmul(sound, white_BTC, loudness / 10 ** (drawn / 20))


def mix(sound: Tensor, labels: Tensor, length: Tensor, num_classes: int, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """MixUp: to each clip (B, T, C) add the one before it, with one share for the batch drawn from Beta(alpha, alpha).

    Labels, (B,) or (B, K), become (B, K); the length is the longer one's.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    if labels.ndim == 1:
        labels = nn.functional.one_hot(labels, num_classes).float()
    sound, labels = (both.roll(1, 0).lerp(both, share) for both in (sound, labels))
    return sound, labels, torch.maximum(length, length.roll(1, 0))


def equalise(content: Tensor, decibels: float) -> Tensor:
    """Bands of each log-mel spectrogram (B, F, S, C) raised and lowered, as other microphones, rooms and voices do.

    At four bands, evenly spaced, by up to so many decibels either way; between them linear.

    Source: FilterAugment (Nam, Kim, Park 2022, https://arxiv.org/abs/2110.03282), its linear form with fixed bands
    """
    drawn = (2 * torch.rand(len(content), 1, 4, device=content.device) - 1) * decibels * log(10) / 10
    change = nn.functional.interpolate(drawn, content.shape[2], mode="linear", align_corners=True)
    return content + change[..., None]
