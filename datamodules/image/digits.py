"""scikit-learn's handwritten digits."""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from datamodules.common.classes import class_facts
from datamodules.common.files import Cache
from datamodules.common.splits import Split, cut
from datamodules.image.base import Images
from datamodules.image.reading import IMAGES


class Digits(Images):
    """scikit-learn's handwritten digits: 1,797 real scans of 8x8 grey pixels, inside the package, so no download.

    A fifth, drawn once and for all with the same share of each class, is the test split.

    Args:
        size: as all images have it; 8 is their own.
        channels: 1 for grey, 3 for colour.
        cache: as all files have it; they are kept in memory unless it is null.
        options: as all images have them.
    """

    def __init__(
        self,
        size: int | list[int] | None = 8,
        channels: int = 1,
        cache: Cache | None = "memory",
        **options: Any,
    ) -> None:
        super().__init__(class_facts(10), size=size, channels=channels, cache=cache, **options)

    def find_train(self) -> tuple[Split, None]:
        """Four fifths of the digits."""
        return self._train_and_test()[0], None

    def find_test(self) -> Split:
        """The other fifth."""
        return self._train_and_test()[1]

    def _train_and_test(self) -> tuple[Split, Split]:
        digits = load_digits()
        scans = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0 to 16 in the package
        names = [f"digit {row}" for row in range(len(scans))]
        kind = IMAGES._replace(open=Image.fromarray)
        return cut(Split(list(scans), names, digits.target.tolist(), "digits", kind), 0.2, 0, "test")
