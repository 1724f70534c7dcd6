"""Images listed by a table."""

from datamodules.common.tables import InTables
from datamodules.image.base import Images


class ImageTable(InTables, Images):
    """Any images by a CSV; `InTables` says how it lists them."""
