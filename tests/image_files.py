"""Small files of images and whole splits of them, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.base import DataModule


def write_images(folder: Path, count: int, value: int = 0, size: tuple[int, int] | None = (6, 8)):
    """Images of `value`; of sizes that vary where `size` (height, width) is None."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        shape = size or (5 + i % 3, 9 - i % 2)
        Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(folder / f"{i}.png")


def batch_of(data: DataModule, split: str) -> dict:
    """All examples of a split, not shuffled."""
    data.setup({"train": "fit", "val": "fit"}.get(split, split))
    data.batch_size = 10000
    return next(iter(data.loader(split)))
