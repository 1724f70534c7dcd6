"""Generated images of shapes."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from datamodules.common.classes import class_facts
from datamodules.common.splits import Split
from datamodules.image.base import Images
from datamodules.image.dataset import ImageSet
from datamodules.image.reading import IMAGES
from datamodules.synthetic.base import SIZES, check_sizes, made
from datamodules.synthetic.generate import SHAPES, draw_shapes
from perceiver_lightning.errors import require


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
        super().__init__(class_facts(len(SHAPES), list(SHAPES)), size=size, channels=channels, **options)
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
            images.images, images.prepared = torch.from_numpy(np.stack(split.items)), True
        return images

    def _made(self, split: str) -> Split:
        height, width = self.modalities["image"]["resolution"]
        kind = IMAGES._replace(open=Image.fromarray)
        return made(split, self, kind, lambda rng, labels: draw_shapes(rng, labels, (height, width), self.channels))
