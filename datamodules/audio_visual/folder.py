"""A folder of videos with sound."""

from datamodules.audio_visual.base import AudioVisual
from datamodules.common.folders import InFolders


class AudioVisualFolder(InFolders, AudioVisual):
    """A folder of videos with sound; `InFolders` says how they lie."""
