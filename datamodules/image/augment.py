"""What is done to images: one by one as bytes (H, W, C) where they are read, then to the whole batch on its device.

torchvision's transforms, but for crop with padding and flip: those are one indexing of the whole batch, because one by
one they cost more than all the rest of the way of a small cached image (50 of 75 us; so it is 20). Bytes travel, floats
are made on the device.

Legend: B batch, H height, W width, C channels, M = H x W pixels, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from datamodules.common.classes import require_classes
from perceiver_lightning.errors import require


@dataclass(frozen=True)
class ImageAugment:
    """What is done to images by chance, in training alone.

    Args:
        random_crop: pad by this many pixels on each side and cut a random `size` out (4 for CIFAR).
        random_resized_crop: [least, greatest] share of the area of a random piece that is brought to `size` (inception
            crops: [0.08, 1]); takes the place of `centre_crop`.
        horizontal_flip: mirror an image or not, by a coin.
        rand_augment: RandAugment's [number of operations, magnitude from 0 to 30].
        mixup: alpha of MixUp; 0 for none. Makes labels soft.
        cutmix: alpha of CutMix; 0 for none. With both, each batch gets one of them, by a coin.
        mixup_off_epoch: the epoch, from 0, from which on nothing is mixed any more, as timm has it: the training then
            ends on unchanged images. Where time ends it (`max_time`), the same share of the time. Null to mix to the
            end.
    """

    random_crop: int = 0
    random_resized_crop: list[float] | None = None
    horizontal_flip: bool = False
    rand_augment: list[int] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_off_epoch: int | None = None

    def check(self, facts: dict[str, Any]) -> None:
        """Raise an InputError that names what is out of its range, or needs classes where the facts have none."""
        if self.random_resized_crop is not None:
            crop = self.random_resized_crop
            is_range = len(crop) == 2 and 0 < crop[0] <= crop[1] <= 1
            require(is_range, "random_resized_crop", "[least, greatest] above 0 and up to 1", crop)
        if self.rand_augment is not None:
            policy = self.rand_augment
            is_policy = len(policy) == 2 and policy[0] >= 1 and 0 <= policy[1] <= 30
            require(is_policy, "rand_augment", "[operations, magnitude from 0 to 30]", policy)
        for key in ("random_crop", "mixup", "cutmix"):
            require(getattr(self, key) >= 0, key, "a number of at least 0", getattr(self, key))
        require_classes(facts, mixup=self.mixup, cutmix=self.cutmix)
        off, mixes = self.mixup_off_epoch, self.mixup > 0 or self.cutmix > 0
        if off is not None:
            require(off >= 0, "mixup_off_epoch", "null, or an epoch of at least 0", off)
            require(mixes, "mixup_off_epoch", "null, as neither mixup nor cutmix is given", off)


def resize(image: Tensor, size: list[int], centre_crop: float | None) -> Tensor:
    """An image (H, W, C) brought to `size`, [height, width], without chance.

    `centre_crop` is the share of the image that is kept: 1 the largest centred piece of the wanted shape, less a
    smaller piece (0.875 in the papers), None the whole image, stretched.
    """
    own = list(image.shape[:2])
    # Scaled to cover `size`; stretched, a scale of 0 leaves `size` itself.
    scale = 0.0 if centre_crop is None else max(size[0] / own[0], size[1] / own[1]) / centre_crop
    scaled = [max(least, round(length * scale)) for least, length in zip(size, own, strict=True)]
    image_CHW = image.permute(2, 0, 1)
    if scaled != own:
        image_CHW = v2.functional.resize(image_CHW, scaled, antialias=True)
    if scaled != size:
        image_CHW = v2.functional.center_crop(image_CHW, size)
    return image_CHW.permute(1, 2, 0)


def example_transform(
    size: list[int] | None, random_resized_crop: list[float] | None, rand_augment: list[int] | None
) -> Callable[[Tensor], Tensor] | None:
    """Random resized crop and RandAugment of one image (H, W, C) by chance; None if neither is asked for."""
    steps: list[torch.nn.Module] = []
    if random_resized_crop and size:
        steps.append(v2.RandomResizedCrop(size, scale=tuple(random_resized_crop), antialias=True))
    if rand_augment:
        steps.append(v2.RandAugment(*rand_augment))
    return partial(_channels_last, v2.Compose(steps)) if steps else None


def ten_crops(image: Tensor, size: list[int]) -> Tensor:
    """The corners, the centre, and their mirror images, of an image (H, W, C): (10, *size, C)."""
    crops = v2.functional.ten_crop(image.permute(2, 0, 1), size)
    return torch.stack(crops).permute(0, 2, 3, 1)


def _channels_last(transform: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    return transform(image.permute(2, 0, 1)).permute(1, 2, 0)


def crop_and_flip(content: Tensor, padding: int, flip: bool, mask: Tensor | None = None) -> Tensor:
    """Shift each image of a batch (B, H, W, C) by up to `padding` pixels, zeros coming in, and mirror it by a coin.

    The same as a random crop of the padded image, then a flip. An image smaller than the batch, as `mask` (B, H, W)
    tells, is mirrored in its own width. (The papers do this before RandAugment, here it is after. A flip commutes with
    it, whose signs are drawn by a coin as well; of the crop only the colour of the padding differs.)
    """
    batch, height, width, _ = content.shape
    device = content.device
    rows, columns = (torch.arange(length, device=device).expand(batch, length) for length in (height, width))
    if flip:
        own_width = width if mask is None else mask.any(1).sum(1, keepdim=True)
        mirrored = torch.where(columns < own_width, own_width - 1 - columns, columns)
        columns = torch.where(torch.rand(batch, 1, device=device) < 0.5, mirrored, columns)
    if padding:
        content = torch.nn.functional.pad(content, (0, 0, padding, padding, padding, padding))
        rows = rows + torch.randint(2 * padding + 1, (batch, 1), device=device)
        columns = columns + torch.randint(2 * padding + 1, (batch, 1), device=device)
    each = torch.arange(batch, device=device)
    return content[each[:, None, None], rows[:, :, None], columns[:, None, :]]


def mix(content: Tensor, labels: Tensor, num_classes: int, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of a batch (B, H, W, C) with labels (B,): either if both, by a coin. Labels become (B, K)."""
    mixers = [kind(alpha=a, num_classes=num_classes) for kind, a in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if a > 0]
    content_BCHW, labels = v2.RandomChoice(mixers)(content.permute(0, 3, 1, 2), labels)
    return content_BCHW.permute(0, 2, 3, 1), labels


def permutation(size: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """One shuffle of all pixels, (M,): which pixel comes to each place; and the positions (M, 2) they bring along.

    The paper's experiment (Perceiver, section 4.1, table 2): the order carries nothing any more, the positions do.
    """
    order = torch.randperm(size[0] * size[1], generator=torch.Generator().manual_seed(seed))
    axes = [torch.linspace(-1, 1, length) for length in size]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
    return order, positions[order]
