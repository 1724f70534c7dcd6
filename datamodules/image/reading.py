"""Which files are images, and how they are decoded."""

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.common.splits import Kind

IMAGES = Kind("images", IMG_EXTENSIONS, Image.open)


def upright_bytes(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it: turned as its camera noted, on white where it is transparent, 8 bits a channel.

    Raises:
        ValueError: the image has a mode without a known range (32-bit integers, floats), which Pillow would clip.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits a channel, found 32, mode {image.mode}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
