"""Generated sounds that rise and fall."""

from typing import Any

import numpy as np

from datamodules.audio.base import Audio
from datamodules.audio.dataset import ClipSet
from datamodules.audio.spectrogram import Spectrogram
from datamodules.common.cache import Arrays
from datamodules.common.classes import class_facts
from datamodules.common.splits import Split
from datamodules.synthetic.base import SIZES, check_sizes, made
from datamodules.synthetic.generate import TONES, draw_tones


class Tones(Audio):
    """Sounds that hold their pitch, rise, fall, or do both (a peak, a dip), at any pitch and loudness, in noise.

    Args:
        seed: of the sounds.
        sizes: examples of train, validation and test.
        seconds: as all sound has it, and so the next two.
        sample_rate: see there.
        spectrogram: see there.
        options: see there.
    """

    def __init__(
        self,
        seed: int = 0,
        sizes: tuple[int, int, int] = SIZES,
        seconds: float = 0.25,
        sample_rate: int = 8000,
        spectrogram: Spectrogram = Spectrogram(mels=32, window=256, hop=64),
        **options: Any,
    ) -> None:
        check_sizes(sizes)
        super().__init__(
            class_facts(len(TONES), list(TONES)),
            seconds=seconds,
            sample_rate=sample_rate,
            spectrogram=spectrogram,
            **options,
        )
        self.seed = seed
        self.sizes = sizes

    def find_train(self) -> tuple[Split, Split]:
        """Train and validation."""
        return self._made("train"), self._made("val")

    def find_test(self) -> Split:
        """Test."""
        return self._made("test")

    def make_set(self, split: Split, training: bool) -> ClipSet:
        """As all sound has it; what is generated is in memory."""
        clips = super().make_set(split, training)
        if split.where == "generated":
            ends = np.arange(len(split.items) + 1) * self.length
            clips.arrays, clips.prepared = {"audio": Arrays(np.concatenate(split.items), ends, {})}, True
        return clips

    def _made(self, split: str) -> Split:
        def draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
            sound = draw_tones(rng, labels, self.length, self.sample_rate)
            return sound.repeat(self.channels, 2)

        return made(split, self, self.kind, draw)
