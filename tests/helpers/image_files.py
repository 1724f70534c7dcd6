"""Small files of images and whole splits of them, for tests."""

import struct
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


def write_mnist(root: Path, classes: int = 10):
    """MNIST's own files: 40 scans to train and 20 to test, each of one grey."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 20)):
        pixels = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes())
        labels = (np.arange(count) % classes).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


def batch_of(data: DataModule, split: str) -> dict:
    """All examples of a split, not shuffled."""
    data.setup({"train": "fit", "val": "fit"}.get(split, split))
    data.batch_size = 10000
    return next(iter(data.loader(split)))
