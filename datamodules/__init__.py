"""Every datamodule, under the name that configs and checkpoints give it: `datamodules.ImageFolder`.

A class is imported when it is first asked for, with the libraries that its files need, so that a run loads no more
than it uses. A new datamodule is a line in `MODULES`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.audio.esc import ESC
    from datamodules.audio.folder import AudioFolder
    from datamodules.audio.fsdd import FSDD
    from datamodules.audio.speech_commands import SpeechCommands
    from datamodules.audio.table import AudioTable
    from datamodules.audio_visual.folder import AudioVisualFolder
    from datamodules.audio_visual.grid import GRID
    from datamodules.base import DataModule
    from datamodules.image.digits import Digits
    from datamodules.image.folder import ImageFolder
    from datamodules.image.table import ImageTable
    from datamodules.image.torchvision_images import TorchvisionImages
    from datamodules.multimodal.paired import Paired
    from datamodules.points.arrays import PointArrays
    from datamodules.points.folder import PointFolder
    from datamodules.points.modelnet import ModelNet
    from datamodules.points.targets import PointTargets
    from datamodules.synthetic.moving import Moving
    from datamodules.synthetic.shapes import Shapes
    from datamodules.synthetic.solids import Solids
    from datamodules.synthetic.tones import Tones
    from datamodules.video.folder import VideoFolder
    from datamodules.video.table import VideoTable

MODULES = {
    "DataModule": "base",
    "Digits": "image.digits",
    "ImageFolder": "image.folder",
    "ImageTable": "image.table",
    "TorchvisionImages": "image.torchvision_images",
    "AudioFolder": "audio.folder",
    "AudioTable": "audio.table",
    "ESC": "audio.esc",
    "FSDD": "audio.fsdd",
    "SpeechCommands": "audio.speech_commands",
    "VideoFolder": "video.folder",
    "VideoTable": "video.table",
    "AudioVisualFolder": "audio_visual.folder",
    "GRID": "audio_visual.grid",
    "ModelNet": "points.modelnet",
    "PointArrays": "points.arrays",
    "PointFolder": "points.folder",
    "PointTargets": "points.targets",
    "Paired": "multimodal.paired",
    "Moving": "synthetic.moving",
    "Shapes": "synthetic.shapes",
    "Solids": "synthetic.solids",
    "Tones": "synthetic.tones",
}

__all__ = [  # noqa: RUF022  by modality
    "DataModule",
    "Digits", "ImageFolder", "ImageTable", "TorchvisionImages",
    "AudioFolder", "AudioTable", "ESC", "FSDD", "SpeechCommands",
    "VideoFolder", "VideoTable",
    "AudioVisualFolder", "GRID",
    "ModelNet", "PointArrays", "PointFolder", "PointTargets",
    "Paired",
    "Moving", "Shapes", "Solids", "Tones",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *MODULES])
