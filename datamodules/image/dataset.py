"""The dataset that reads images."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from datamodules.common.file_set import FileSet
from datamodules.common.splits import Split
from datamodules.image.augment import resize
from datamodules.image.reading import pack, say_frames, unpack, upright_bytes
from perceiver_lightning.errors import InputError


class ImageSet(FileSet):
    """Reads the images of a split as examples with uint8 content (H, W, C).

    Args:
        split: the images.
        channels: 3 for colour, 1 for grey.
        size: [height, width] that each is brought to, a step without chance, done once if the images are cached; None
            leaves them their own.
        centre_crop: share that is kept of them then; see `datamodules.image.augment.resize`.
        augment: what is done each time: a step with chance, or several pieces (10, H, W, C) of an image.

    Attributes:
        images: all of them, if they are cached in memory: one tensor if all have one size.
    """

    def __init__(
        self,
        split: Split,
        channels: int,
        size: list[int] | None = None,
        centre_crop: float | None = 1.0,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        settings = {"images": "uint8", "channels": channels, "size": size, "centre_crop": centre_crop}
        super().__init__(split, {"images": settings})
        self.channels = channels
        self.size = size
        self.centre_crop = centre_crop
        self.augment = augment
        self.images: Sequence[Tensor] | Tensor | None = None

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One image, augmented."""
        image = self.image(row)
        return self.example(row, {"image": {"content": image if self.augment is None else self.augment(image)}})

    def image(self, row: int) -> Tensor:
        """One image, from the cache if there is one: uint8 (H, W, C)."""
        if self.images is not None:
            return self.images[row]
        return unpack(self.content(row)["images"], self.channels) if self.arrays else self.decode(row)

    def decode(self, row: int) -> Tensor:
        """Decode and resize one image: uint8 (H, W, C), as `upright_bytes` has it.

        Raises:
            InputError: the image cannot be decoded.
        """
        path = os.path.join(self.split.where, self.split.names[row])
        try:
            with self.split.kind.open(self.split.items[row]) as image:
                say_frames(image, path)
                image = upright_bytes(image)
                pixels = pil_to_tensor(image.convert("RGB" if self.channels == 3 else "L")).permute(1, 2, 0)
        # Pillow's decoders raise nearly anything for a broken file: OSError, SyntaxError, ValueError, struct.error ...
        except Exception as error:
            line = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path}: expected an image, found a file that cannot be read ({line})") from error
        return pixels if self.size is None else resize(pixels, self.size, self.centre_crop)

    def read(self, name: str, row: int) -> np.ndarray:
        """Decode one image, and pack it: bytes (8 + H x W x C,)."""
        return pack(self.decode(row))

    def prepare(self, skip_broken: bool, cache: bool, folder: Path | None = None) -> list[str]:
        """As `FileSet.prepare`; images in memory are made tensors once, not each time."""
        broken = super().prepare(skip_broken, cache, folder)
        if self.images is None and self.arrays and self.arrays["images"].folder is None:
            images = [unpack(self.content(row)["images"], self.channels) for row in range(len(self))]
            self.images = torch.stack(images) if len({image.shape for image in images}) == 1 else images
            self.arrays = {}
        return broken
