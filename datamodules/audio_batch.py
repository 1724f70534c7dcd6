"""What is done to a whole batch of sound on its device: augmentation, log-mel spectrogram, patches.

A clip shorter than the batch is zero behind its own end and stays so: every step leaves it what it would be alone.

Legend: B batch, T samples, C channels, F frames, S mel bands, K classes; length (B,) the own samples of each clip.
"""

import warnings
from collections.abc import Sequence
from math import log, prod
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram

from perceiver_lightning.errors import InputError


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


class LogMel(nn.Module):
    """The logarithm of a mel spectrogram: a frame at every `hop` samples, from the first sample on.

    A window reaches past both ends of a clip into zeros, as it does into the padding of a batch, and no value depends
    on other frames (as decibels below the loudest would): so a padded clip's own frames are those it has alone.

    Args:
        sample_rate: of the sound.
        mels: mel bands S.
        window: samples of a frame's window, of Hann's form.
        hop: samples from one frame to the next.
        frequencies: the [lowest, highest] of the bands, in Hz.

    Raises:
        InputError: the bands are so narrow that one lies between the window's frequencies.
    """

    def __init__(self, sample_rate: int, mels: int, window: int, hop: int, frequencies: Sequence[float]) -> None:
        super().__init__()
        self.hop = hop
        # Complex, and squared here: torchaudio's own way to the power takes four times as long.
        self.spectrogram = Spectrogram(window, hop_length=hop, power=None, pad_mode="constant")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bands that are empty: an error here
            self.bands = MelScale(mels, sample_rate, *frequencies, n_stft=window // 2 + 1)
        if (self.bands.fb.amax(0) == 0).any():
            raise InputError(
                f"mels: expected bands that a window of {window} samples can tell apart, found {mels} of them within "
                f"{frequencies[0]:g} to {frequencies[1]:g} Hz"
            )

    def frames(self, samples: Any) -> Any:
        """Frames of so many samples (an int or a tensor): one for each hop that is begun."""
        return -(-samples // self.hop)

    def forward(self, sound: Tensor) -> Tensor:
        """Sound (B, T, C) to (B, F, S, C)."""
        spectrum = self.spectrogram(sound.transpose(1, 2))[..., : self.frames(sound.shape[1])]
        power_BCSF = self.bands(spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag))
        return (power_BCSF + 1e-6).log().permute(0, 3, 2, 1)


def equalise(content: Tensor, decibels: float) -> Tensor:
    """Bands of each log-mel spectrogram (B, F, S, C) raised and lowered, as other microphones, rooms and voices do.

    At four bands, evenly spaced, by up to so many decibels either way; between them linear.

    Source: FilterAugment (Nam, Kim, Park 2022, https://arxiv.org/abs/2110.03282), its linear form with fixed bands
    """
    drawn = (2 * torch.rand(len(content), 1, 4, device=content.device) - 1) * decibels * log(10) / 10
    change = nn.functional.interpolate(drawn, content.shape[2], mode="linear", align_corners=True)
    return content + change[..., None]


def normalise(content: Tensor, scale: Sequence[float] | None, there: Tensor) -> Tensor:
    """Content (B, I, ..., C) less a mean, over a standard deviation, and 0 where `there` (B, I) is False.

    `scale` is [mean, standard deviation]; for None each clip has its own, over all that is there. A silent clip
    becomes 0.
    """
    there = there.view(*there.shape, *[1] * (content.ndim - 2))
    if scale is not None:
        return (content - scale[0]) / scale[1] * there
    axes = tuple(range(1, content.ndim))
    count = there.sum(axes, keepdim=True) * prod(content.shape[2:])
    centred = (content - (content * there).sum(axes, keepdim=True) / count) * there
    return centred / (centred.square().sum(axes, keepdim=True) / count + 1e-8).sqrt()


def patches(content: Tensor, size: Sequence[int]) -> Tensor:
    """Content (B, *grid, C) in patches of `size` places per axis, zeros filling up the last: their places are channels.

    Returns:
        (B, *grid of patches, prod(size) * C).
    """
    axes = range(1, len(size) + 1)
    filling = [amount for axis in reversed(axes) for amount in (0, -content.shape[axis] % size[axis - 1])]
    content = nn.functional.pad(content, (0, 0, *filling))
    for axis in reversed(axes):
        content = content.unflatten(axis, (-1, size[axis - 1]))
    order = [0, *(2 * axis - 1 for axis in axes), *(2 * axis for axis in axes), content.ndim - 1]
    return content.permute(order).flatten(len(size) + 1)
