"""Videos listed by a table."""

from datamodules.common.tables import InTables
from datamodules.video.base import Video


class VideoTable(InTables, Video):
    """Any videos by a CSV; `InTables` says how it lists them."""
