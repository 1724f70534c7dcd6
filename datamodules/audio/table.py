"""Sound files listed by a table."""

from datamodules.audio.base import Audio
from datamodules.common.tables import InTables


class AudioTable(InTables, Audio):
    """Any sound files by a CSV; `InTables` says how it lists them."""
