"""Generated films with sound."""

from typing import Any

import numpy as np
import torch

from datamodules.audio.reading import FULL_SCALE
from datamodules.audio.spectrogram import LogMel, normalise
from datamodules.base import STAGE_SPLITS, DataModule
from datamodules.common.classes import class_facts
from datamodules.common.patches import patches
from datamodules.common.splits import Kind
from datamodules.synthetic.base import SIZES, check_sizes, made
from datamodules.synthetic.generate import TONES, WAYS, draw_films, draw_tones


class Moving(DataModule):
    """Films of shapes that move to the left or right, with sounds that rise or fall: only both together tell the class.

    Two modalities: `video`, 8 frames of 16x16 pixels in patches of 2x4x4, and `audio`, a log-mel spectrogram of a
    quarter of a second in patches of 2x4. To predict, there is the test split, without its labels.

    Args:
        seed: of the films.
        sizes: examples of train, validation and test.
        batch_size: films in a batch, on each device.
        num_workers: processes that read ahead; 0 is right here.
    """

    frames, size, patch = 8, (16, 16), (2, 4, 4)
    sample_rate, samples, mels, window, hop, sound_patch = 8000, 2000, 32, 256, 64, (2, 4)

    def __init__(
        self, seed: int = 0, sizes: tuple[int, int, int] = SIZES, batch_size: int = 64, num_workers: int = 0
    ) -> None:
        check_sizes(sizes)
        mel = LogMel(self.sample_rate, self.mels, self.window, self.hop, [0, self.sample_rate / 2])
        film, sound = (self.frames, *self.size), (mel.frames(self.samples), self.mels)
        super().__init__(
            modalities={
                name: {
                    "channels": channels * int(np.prod(patch)),
                    "resolution": [-(-length // size) for length, size in zip(grid, patch, strict=True)],
                }
                for name, channels, grid, patch in (
                    ("video", 3, film, self.patch),
                    ("audio", 1, sound, self.sound_patch),
                )
            },
            batch_size=batch_size,
            num_workers=num_workers,
            **class_facts(4, [f"{way} {tone}" for way in WAYS for tone in ("rising", "falling")]),
        )
        self.mel = mel
        self.seed = seed
        self.sizes = sizes

    def setup(self, stage: str) -> None:
        """Draw the splits that the stage needs."""
        for split in STAGE_SPLITS[stage]:
            if getattr(self, f"{split}_set") is not None:
                continue
            examples = self._examples("test" if split == "predict" else split)
            if split == "predict":
                for example in examples:
                    del example["labels"]
            setattr(self, f"{split}_set", examples)

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """Floats, spectrograms, patches. See `DataModule.finish`."""
        film, sound = (batch["inputs"][name]["content"] for name in ("video", "audio"))
        film = film.float() / 127.5 - 1
        spectrum = self.mel.to(sound.device)(sound.float() / FULL_SCALE)
        spectrum = normalise(spectrum, torch.ones_like(spectrum[..., 0, 0], dtype=torch.bool))
        inputs = {
            "video": {"content": patches(film, self.patch)},
            "audio": {"content": patches(spectrum, self.sound_patch)},
        }
        return {**batch, "inputs": inputs}

    def _examples(self, split: str) -> list[dict[str, Any]]:
        def draw(rng: np.random.Generator, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
            films = draw_films(rng, labels // 2, self.frames, self.size)
            rising_or_falling = TONES.index("rising") + labels % 2
            return list(zip(films, draw_tones(rng, rising_or_falling, self.samples, self.sample_rate), strict=True))

        films = made(split, self, Kind("films", (), tuple), draw)
        return [
            {
                "inputs": {
                    "video": {"content": torch.from_numpy(film)},
                    "audio": {"content": torch.from_numpy(sound)},
                },
                "labels": label,
                "name": name,
            }
            for (film, sound), label, name in zip(films.items, films.labels or [], films.names, strict=True)
        ]
