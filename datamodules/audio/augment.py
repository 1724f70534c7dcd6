"""What is done by chance to a whole batch of sound on its device.

A clip shorter than the batch is zero behind its own end and stays so: every step leaves it what it would be alone.

Legend: B batch, T samples, C channels, F frames, S mel bands, K classes; length (B,) the own samples of each clip.
"""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn


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
