"""What is done to a whole batch of pictures on its device.

Legend: B batch, T pictures, H height, W width, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.image.augment import crop_and_flip
from perceiver_lightning.errors import require


@dataclass(frozen=True)
class VideoAugment:
    """What is done to video by chance, in training alone: one draw a clip, the same for all its pictures.

    Args:
        time_shift: seconds by which a clip is moved either way, at most; past the ends of the file its first and last
            picture stay on.
        random_crop: pixels by which a clip is moved along height and width, at most; zeros come in.
        horizontal_flip: mirror a clip or not, by a coin.
        brightness: share by which a clip gets brighter or darker, at most.
    """

    time_shift: float = 0.0
    random_crop: int = 0
    horizontal_flip: bool = False
    brightness: float = 0.0

    def check(self) -> None:
        """Raise an InputError that names what is out of its range."""
        for key in ("time_shift", "random_crop"):
            require(getattr(self, key) >= 0, key, "a number of at least 0", getattr(self, key))
        require(0 <= self.brightness <= 1, "brightness", "a number from 0 to 1", self.brightness)

    def apply(self, content: Tensor) -> Tensor:
        """Pictures (B, T, H, W, C) moved, mirrored, made brighter or darker, each clip as one."""
        if self.random_crop or self.horizontal_flip:
            size = content.shape[1], content.shape[4]
            as_one = content.permute(0, 2, 3, 1, 4).flatten(3)
            as_one = crop_and_flip(as_one, self.random_crop, self.horizontal_flip)
            content = as_one.unflatten(3, size).permute(0, 3, 1, 2, 4)
        if self.brightness:
            drawn = torch.rand(len(content), 1, 1, 1, 1, device=content.device)
            content = (content * (1 + self.brightness * (2 * drawn - 1))).clamp(max=255)
        return content


def changes(content: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pictures (B, T, H, W, C) less the one before each, over the root mean square of all that; the first is zero."""
    changed = torch.cat([torch.zeros_like(content[:, :1]), content.diff(dim=1)], 1)
    there = torch.ones_like(content[..., 0]) if mask is None else mask.to(content.dtype)
    changed = changed * there[..., None]
    values_B = there.flatten(1).sum(1).clamp(min=1) * content.shape[-1]
    size_B = (changed.flatten(1).square().sum(1) / values_B).sqrt().clamp(min=1e-6)  # of a still clip it is zero
    return changed / size_B[:, None, None, None, None]
