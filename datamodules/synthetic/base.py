"""Generated data, no files: a first run of each modality in a minute, and tutorials and tests that need nothing.

The classes are told by forms, in place or time: statistics pooled over an example say little of them, and where there
are two modalities, each says only half. Train, validation and test are drawn from seeds of their own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from datamodules.common.splits import Kind, Split
from perceiver_lightning.errors import require

SIZES = (8000, 1000, 2000)
SPLITS = ("train", "val", "test")


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
