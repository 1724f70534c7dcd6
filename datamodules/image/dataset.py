"""The dataset that reads images."""

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from datamodules.common.files import FileSet
from datamodules.common.splits import Split
from datamodules.image.reading import upright_bytes
from perceiver_lightning.errors import InputError


class ImageSet(FileSet):
    """Reads the images of a split as examples with uint8 content (H, W, C).

    Args:
        split: the images.
        channels: 3 for colour, 1 for grey.
        resize: the step without chance, done once if the images are cached.
        augment: what is done anew each time: a step with chance, or several pieces (10, H, W, C) of an image.
    """

    def __init__(
        self,
        split: Split,
        channels: int,
        resize: Callable[[Tensor], Tensor] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(split)
        self.channels = channels
        self.resize = resize
        self.augment = augment

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One image, augmented."""
        image = self.content(row)
        return self.example(row, {"image": {"content": image if self.augment is None else self.augment(image)}})

    def read(self, row: int) -> Tensor:
        """Decode and resize one image: uint8 (H, W, C), as `upright_bytes` has it.

        Raises:
            InputError: the image cannot be decoded.
        """
        try:
            with self.split.kind.open(self.split.items[row]) as image:
                image = upright_bytes(image)
                pixels = pil_to_tensor(image.convert("RGB" if self.channels == 3 else "L")).permute(1, 2, 0)
        # Pillow's decoders raise nearly anything for a broken file: OSError, SyntaxError, ValueError, struct.error ...
        except Exception as error:
            path = os.path.join(self.split.where, self.split.names[row])
            raise InputError(f"{path}: expected an image, found a file that cannot be read ({error})") from error
        return pixels if self.resize is None else self.resize(pixels)
