"""A folder of sound files."""

from datamodules.audio.base import Audio
from datamodules.common.folders import InFolders


class AudioFolder(InFolders, Audio):
    """A folder of sound files; `InFolders` says how they lie, and docs/files.md which are read."""
