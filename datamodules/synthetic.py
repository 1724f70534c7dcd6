"""Generated data, no files: a first run of each modality in a minute, and tutorials and tests that need nothing.

The classes are told by forms, in place or time: statistics pooled over an example say little of them, and where there
are two modalities, each says only half. Train, validation and test are drawn from seeds of their own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from datamodules.audio_base import Audio
from datamodules.audio_batch import LogMel, normalise, patches
from datamodules.audio_files import FULL_SCALE, ClipSet
from datamodules.base import DataModule, require
from datamodules.cache import Arrays
from datamodules.generate import SHAPES, SOLIDS, TONES, WAYS, draw_films, draw_shapes, draw_solids, draw_tones
from datamodules.image_base import Images
from datamodules.image_sets import IMAGES, ImageSet
from datamodules.point_augment import Into
from datamodules.point_base import Points
from datamodules.points import ARRAYS
from datamodules.splits import Kind, Split

SIZES = (8000, 1000, 2000)
SPLITS = ("train", "val", "test")


class Shapes(Images):
    """Images of light shapes on dark grounds, of any colours: rings, squares, triangles, crosses.

    Args:
        seed: of the images.
        sizes: examples of train, validation and test.
        size: of the images, an int or [height, width].
        channels: 3 for colour, 1 for grey.
        options: as all images have them.
    """

    def __init__(
        self,
        seed: int = 0,
        sizes: tuple[int, int, int] = SIZES,
        size: int | list[int] = 16,
        channels: int = 3,
        **options: Any,
    ) -> None:
        check_sizes(sizes)
        require(size is not None, "size", "an int or [height, width]", "null")
        super().__init__(len(SHAPES), list(SHAPES), size=size, channels=channels, **options)
        self.seed = seed
        self.sizes = sizes

    def find_train(self) -> tuple[Split, Split]:
        """Train and validation."""
        return self._made("train"), self._made("val")

    def find_test(self) -> Split:
        """Test."""
        return self._made("test")

    def make_set(self, split: Split, training: bool) -> ImageSet:
        """As all images have it; those that are generated are in memory."""
        images = super().make_set(split, training)
        if split.where == "generated":
            images.cached, images.prepared = torch.from_numpy(np.stack(split.items)), True
        return images

    def _made(self, split: str) -> Split:
        height, width = self.modalities["image"]["resolution"]
        kind = IMAGES._replace(open=Image.fromarray)
        return made(split, self, kind, lambda rng, labels: draw_shapes(rng, labels, (height, width), self.channels))


class Tones(Audio):
    """Sounds that hold their pitch, rise, fall, or do both (a peak, a dip), at any pitch and loudness, in noise.

    Args:
        seed: of the sounds.
        sizes: examples of train, validation and test.
        seconds: as all sound has it, and so the next five.
        sample_rate: see there.
        mels: see there; null for the waveform.
        window: see there.
        hop: see there.
        options: see there.
    """

    def __init__(
        self,
        seed: int = 0,
        sizes: tuple[int, int, int] = SIZES,
        seconds: float = 0.25,
        sample_rate: int = 8000,
        mels: int | None = 32,
        window: int = 256,
        hop: int = 64,
        **options: Any,
    ) -> None:
        check_sizes(sizes)
        super().__init__(
            len(TONES),
            list(TONES),
            seconds=seconds,
            sample_rate=sample_rate,
            mels=mels,
            window=window,
            hop=hop,
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
            clips.arrays, clips.prepared = Arrays(np.concatenate(split.items), ends, {}), True
        return clips

    def _made(self, split: str) -> Split:
        def draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
            sound = draw_tones(rng, labels, self.length, self.sample_rate)
            return sound.repeat(self.channels, 2)

        return made(split, self, self.kind, draw)


class Solids(Points):
    """Points of the surfaces of spheres, boxes, cylinders and cones, stretched, turned, of any size and place.

    Args:
        seed: of the points.
        sizes: examples of train, validation and test.
        num_points: of each solid.
        normalise: as all point clouds have it; null leaves sizes and places as they are.
        resolution: as all point clouds have it: twice the highest frequency.
        options: as all point clouds have them, but no features.
    """

    def __init__(
        self,
        seed: int = 0,
        sizes: tuple[int, int, int] = SIZES,
        num_points: int = 256,
        normalise: Into | None = None,
        resolution: int = 16,
        **options: Any,
    ) -> None:
        check_sizes(sizes)
        require(not options.get("features"), "features", "none, as solids have bare points", options.get("features"))
        super().__init__(
            len(SOLIDS), list(SOLIDS), num_points=num_points, normalise=normalise, resolution=resolution, **options
        )
        self.seed = seed
        self.sizes = sizes

    def find_train(self) -> tuple[Split, Split]:
        """Train and validation."""
        return self._made("train"), self._made("val")

    def find_test(self) -> Split:
        """Test."""
        return self._made("test")

    def _made(self, split: str) -> Split:
        points = self.elements["points"]
        return made(split, self, ARRAYS, lambda rng, labels: draw_solids(rng, labels, points))


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
            num_classes=4,
            class_names=[f"{way} {tone}" for way in WAYS for tone in ("rising", "falling")],
            batch_size=batch_size,
            num_workers=num_workers,
        )
        self.mel = mel
        self.seed = seed
        self.sizes = sizes

    def setup(self, stage: str) -> None:
        """Draw the splits that the stage needs."""
        for split in {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}[stage]:
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
        spectrum = normalise(spectrum, None, torch.ones_like(spectrum[..., 0, 0], dtype=torch.bool))
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

        split_ = made(split, self, Kind("films", (), tuple), draw)
        return [
            {
                "inputs": {
                    "video": {"content": torch.from_numpy(film)},
                    "audio": {"content": torch.from_numpy(sound)},
                },
                "labels": label,
                "name": name,
            }
            for (film, sound), label, name in zip(split_.items, split_.labels or [], split_.names, strict=True)
        ]


def made(split: str, data: Any, kind: Kind, draw: Callable[[np.random.Generator, np.ndarray], Any]) -> Split:
    """One split of generated data: as many examples of each class, in an order by chance.

    Args:
        split: "train", "val" or "test".
        data: what has the seed, the sizes and the number of classes.
        kind: of the examples.
        draw: makes an example for each label (N,) from random numbers.
    """
    place = SPLITS.index(split)
    rng = np.random.default_rng([data.seed, place])
    labels = rng.permutation(np.arange(data.sizes[place]) % data.num_classes)
    names = [f"{split} {row}" for row in range(len(labels))]
    return Split(list(draw(rng, labels)), names, labels.tolist(), "generated", kind)


def check_sizes(sizes: Any) -> None:
    """Raise an InputError unless there is a size for each split."""
    are_sizes = len(sizes) == len(SPLITS) and all(isinstance(size, int) and size >= 1 for size in sizes)
    require(are_sizes, "sizes", "[train, validation, test], integers of at least 1", list(sizes))
