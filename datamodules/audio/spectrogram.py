"""Log-mel spectrograms of a whole batch, and their normalisation.

Legend: B batch, T samples, C channels, F frames, S mel bands.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn
from torchaudio import transforms

from perceiver_lightning.errors import InputError, require


@dataclass(frozen=True)
class Spectrogram:
    """The settings of a log-mel spectrogram.

    Args:
        mels: mel bands; null for the waveform in its place.
        window: of a frame: samples, or below 1 its seconds, which mean the same at any sample rate.
        hop: from one frame to the next, likewise.
        frequencies: the [lowest, highest] of the mel bands, in Hz; up to half the sample rate if not given.
    """

    mels: int | None = 64
    window: int | float = 400
    hop: int | float = 160
    frequencies: list[float] | None = None

    def log_mel(self, sample_rate: int, bands_of_patch: int) -> "LogMel | None":
        """The spectrogram of sound with this rate in Hz, to be cut in patches; None for the waveform.

        Raises:
            InputError: a setting is out of its range.
        """
        samples = {}
        for key, value in {"window": self.window, "hop": self.hop}.items():
            samples[key] = round(value * sample_rate) if 0 < value < 1 else int(value)
            known = samples[key] >= 1 and (value < 1 or value == int(value))
            require(known, key, "a whole number of samples, or below 1 so many seconds", value)
        if self.mels is None:
            return None
        ends = self.frequencies or [0.0, sample_rate / 2]
        is_range = len(ends) == 2 and 0 <= ends[0] < ends[1] <= sample_rate / 2
        expected = f"null, or [lowest, highest] of 0 to {sample_rate / 2:g}, half of sample_rate"
        require(is_range, "frequencies", expected, ends)
        fits = self.mels >= 1 and self.mels % bands_of_patch == 0
        require(fits, "mels", f"a multiple of {bands_of_patch}, as patch has it", self.mels)
        return LogMel(sample_rate, self.mels, samples["window"], samples["hop"], ends)


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
        self.spectrogram = transforms.Spectrogram(window, hop_length=hop, power=None, pad_mode="constant")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bands that are empty: an error here
            self.bands = transforms.MelScale(mels, sample_rate, *frequencies, n_stft=window // 2 + 1)
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


def normalise(content: Tensor, there: Tensor) -> Tensor:
    """Content (B, I, ..., C) less the mean of each clip, over its standard deviation; 0 where `there` (B, I) is False.

    They are over all that is there. A silent clip becomes 0.
    """
    there = there.view(*there.shape, *[1] * (content.ndim - 2))
    axes = tuple(range(1, content.ndim))
    count = there.sum(axes, keepdim=True) * prod(content.shape[2:])
    centred = (content - (content * there).sum(axes, keepdim=True) / count) * there
    return centred / (centred.square().sum(axes, keepdim=True) / count + 1e-8).sqrt()
