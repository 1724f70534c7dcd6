"""Which files are images, how they are decoded, and how decoded ones are kept."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.common.splits import Kind

IMAGES = Kind("images", IMG_EXTENSIONS, Image.open)
HEAD = 8  # bytes in front of a packed image: its height and its width


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


def pack(image: Tensor) -> np.ndarray:
    """Bytes (H, W, C) in one row, with height and width in front, as images that differ in both are cached."""
    size = np.array(image.shape[:2], "<u4").view(np.uint8)
    return np.concatenate([size, image.numpy().reshape(-1)])


def unpack(packed: np.ndarray, channels: int) -> Tensor:
    """The bytes (H, W, C) of a packed image; a view, if it may be written on."""
    height, width = packed[:HEAD].view("<u4").tolist()
    image = packed[HEAD:].reshape(height, width, channels)
    return torch.from_numpy(image if image.flags.writeable else image.copy())
