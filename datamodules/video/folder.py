"""A folder of videos. Clips with sound: `datamodules.audio_visual`."""

from datamodules.common.folders import InFolders
from datamodules.video.base import Video


class VideoFolder(InFolders, Video):
    """A folder of videos; `InFolders` says how they lie."""
