"""A folder of images."""

from datamodules.common.folders import InFolders
from datamodules.image.base import Images


class ImageFolder(InFolders, Images):
    """A folder of images, any that Pillow reads; `InFolders` says how they lie."""
