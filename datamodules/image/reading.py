"""Which files are images, how they are decoded, and how decoded ones are kept."""

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from datamodules.common.say import say_once
from datamodules.common.splits import Kind

log = logging.getLogger(__name__)

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".pcx", ".sgi", ".ico", ".avif"),
)
FEW_BITS = 12  # of 16, with which an image is nearly one shade
HEAD = 8  # bytes in front of a packed image: its height and its width
FRAMES = ("TIFF", "GIF", "WEBP", "PNG")  # formats with several pictures of equal rank; others have previews
# Tags of a TIFF, and the values of the last.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, SAMPLE_FORMAT = 258, 259, 262, 277, 284, 339
SAMPLE_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}


def open_image(path: Any) -> Image.Image:
    """As `Image.open`, but for a TIFF that Pillow does not know, what it holds is named."""
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(_unknown_tiff(path) or str(error)) from error


IMAGES = Kind("images", EXTENSIONS, open_image)


def upright_bytes(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it: turned as its camera noted, on white where it is transparent, 8 bits a channel.

    16 bits are scaled by their whole range, signed ones too: the lowest value is black, the highest white.

    Raises:
        ValueError: the image has a mode without a known range (32-bit integers, floats), which Pillow would clip; or
            one that Pillow reads wrong.
    """
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", []))  # gone once the pixels are read
    image.load()
    image.getexif()
    image.info.pop("exif", None)  # read, and not to be written again, which odd entries beside the orientation forbid
    if image.mode == "RGB" and deep and "transparency" in image.info:
        raise ValueError("expected a transparent colour of 8 bits, found one of 16")
    if deep and image.mode in ("RGB", "RGBA", "LA"):  # which Pillow has brought to 8 bits
        colours = cast(Any, image.getextrema())[: 1 if image.mode == "LA" else 3]
        _say_dark(256 * max(high for _, high in colours) + 255, image)
    image = _eight_bits(ImageOps.exif_transpose(image), image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _eight_bits(image: Image.Image, source: Image.Image) -> Image.Image:
    """An image with 8 bits a channel, or one, by what the file that it is from says of its values."""
    is_tiff, tags = source.format == "TIFF", cast(Any, getattr(source, "tag_v2", {}))
    bits = max(tags.get(BITS, (1,))) if is_tiff else 16
    signed = is_tiff and 2 in tags.get(SAMPLE_FORMAT, (1,))
    # Of channels in planes, Pillow reads those of 8 bits without alpha right.
    if is_tiff and tags.get(SAMPLES, 1) > 1 and tags.get(PLANAR, 1) == 2 and (bits > 8 or image.mode in ("LA", "La")):
        raise ValueError(f"expected channels side by side, found planes of {bits} bits, mode {image.mode}")
    if bits == 16 and signed and tags.prefix == b"MM" and tags.get(COMPRESSION, 1) != 1:  # Pillow swaps their bytes
        raise ValueError("expected little-endian or uncompressed values, found compressed big-endian signed integers")
    if image.mode.startswith("I;16") or (image.mode == "I" and bits == 16 and source.format in ("TIFF", "PPM")):
        values = np.asarray(image).astype(np.int32) + (32768 if signed else 0)
        if bits == 16:
            _say_dark(int(np.abs(values - 32768 * signed).max()), source)
        grey = (values >> (bits - 8)).astype(np.uint8)
        if tags.get(PHOTOMETRIC) == 0:  # white is zero
            grey = 255 - grey
        clear = source.info.get("transparency")
        if clear is None:
            return Image.fromarray(grey)
        return Image.fromarray(np.stack([grey, np.where(values == clear, 0, 255).astype(np.uint8)], -1))
    if image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "integers"
        raise ValueError(f"expected 8 or 16 bits a channel, found 32, mode {image.mode}: {kind} of no known range")
    if image.mode == "L" and signed:
        return image.point([(value + 128) % 256 for value in range(256)])
    return image


def _unknown_tiff(path: Any) -> str | None:
    """What a TIFF holds, if the file is one."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
            if head.startswith(b"MM\0\x2b"):
                return "expected a TIFF that Pillow reads, found a big-endian BigTIFF"
            tags = TiffImagePlugin.ImageFileDirectory_v2(head if head[2] == 43 else head[:8])
            file.seek(tags.next)
            tags.load(file)
            bits, kinds = tags[BITS], tags.get(SAMPLE_FORMAT, (1,))
    except Exception:
        return None
    held = " and ".join(SAMPLE_FORMATS.get(kind, "other values") for kind in sorted(set(kinds)))
    what = f"{len(bits)} x {max(bits)}-bit {held}, photometric interpretation {tags.get(PHOTOMETRIC)}"
    return f"expected a TIFF that Pillow reads, found {what}"


def _say_dark(largest: int, image: Image.Image) -> None:
    """Say once that an image of 16 bits has no more than 12 of them, as many cameras and scanners write."""
    bits = largest.bit_length()
    if 0 < bits <= FEW_BITS:
        found = f"none of its 16-bit values reaches {2**bits}, so it seems to hold {bits} bits"
        line = f"{found}: files like it become nearly one shade, as they are scaled by the whole range"
        say_once(log, "dark", f"{getattr(image, 'filename', '') or 'an image'}: {line}")


def say_frames(image: Image.Image, where: str) -> None:
    """Say once that an image has several frames or pages, of which the first is read, if it has."""
    if image.format in FRAMES and getattr(image, "is_animated", False):
        count = getattr(image, "n_frames", 1)
        say_once(log, "frames", f"{where}: {count} frames or pages, of which the first is read, as of all such images")


def pack(image: Tensor) -> np.ndarray:
    """Bytes (H, W, C) in one row, with height and width in front, as images that differ in both are cached."""
    size = np.array(image.shape[:2], "<u4").view(np.uint8)
    return np.concatenate([size, image.numpy().reshape(-1)])


def unpack(packed: np.ndarray, channels: int) -> Tensor:
    """The bytes (H, W, C) of a packed image; a view, if it may be written on."""
    height, width = packed[:HEAD].view("<u4").tolist()
    image = packed[HEAD:].reshape(height, width, channels)
    return torch.from_numpy(image if image.flags.writeable else image.copy())
