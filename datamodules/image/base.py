"""What all image data here share: sizes, splits, augmentation, normalisation, permuted pixels."""

from abc import ABC
from functools import partial
from typing import Any

from datamodules.common.collate import rows_of_clips
from datamodules.common.files import Files
from datamodules.common.scale import Numbers, Scale
from datamodules.common.splits import Split
from datamodules.image.augment import (
    ImageAugment,
    crop_and_flip,
    example_transform,
    mix,
    permutation,
    ten_crops,
)
from datamodules.image.dataset import ImageSet
from datamodules.image.reading import IMAGES
from perceiver_lightning.clock import time_spent
from perceiver_lightning.errors import require


class Images(Files, ABC):
    """Images of one modality, `image`; a subclass says where its splits are from.

    Images are read and augmented one by one as bytes, and made floats on the device. The training split is augmented,
    the others never; the test split is looked at in stage `test` only.

    Args:
        facts: what a task needs to know, as `DataModule` has them.
        size: what every image is brought to, an int or [height, width]; null keeps each image's own size, and a
            batch of several sizes is padded and masked.
        resolution: with `size: null`, the [height, width] that the Fourier bands are made for.
        channels: 3 for colour, 1 for grey; images are converted.
        centre_crop: share of the image that is kept where it is brought to `size`: 1 for the largest centred piece
            of that shape, 0.875 as the papers evaluate, null for the whole image, stretched.
        ten_crop: in `test` and `predict`, evaluate each image on ten pieces of it, this share of its width and height
            (the corners, the centre, and their mirror images), by the mean of their probabilities; null for the image.
        mean: what is taken off each channel, of values in [0, 1]; one number or one per channel, or "train" for that
            of the train split, which is computed once and kept in checkpoints.
        std: what each channel is then divided by, likewise.
        permute_pixels: the seed of one fixed shuffle of the pixels of all images, after augmentation: content
            (B, M, C) with each pixel's own position in `positions` (M, 2). Null for none.
        augment: what is done by chance in training.
        options: as `Files` has them. Images are cached as bytes, brought to `size` (for `random_resized_crop` in their
            own size).

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    kind = IMAGES

    def __init__(
        self,
        facts: dict[str, Any],
        size: int | list[int] | None = 224,
        resolution: list[int] | None = None,
        channels: int = 3,
        centre_crop: float | None = 1.0,
        ten_crop: float | None = None,
        mean: Numbers = 0.5,
        std: Numbers = 0.5,
        permute_pixels: int | None = None,
        augment: ImageAugment = ImageAugment(),
        **options: Any,
    ) -> None:
        require(channels in (1, 3), "channels", "1 or 3", channels)
        size = [size, size] if isinstance(size, int) else size
        if size is None:
            require(resolution is not None, "resolution", "[height, width], as size is null", resolution)
            crops = [augment.random_crop, augment.random_resized_crop, ten_crop, permute_pixels is not None]
            names = "random_crop, random_resized_crop, mixup, cutmix, ten_crop or permute_pixels"
            needs_size = any([*crops, augment.mixup, augment.cutmix])
            require(not needs_size, "size", f"[height, width], as {names} is given", "null")
        else:
            require(resolution is None, "resolution", "null, as size is given", resolution)
            require(len(size) == 2, "size", "an int or [height, width]", size)
        for key, share in (("centre_crop", centre_crop), ("ten_crop", ten_crop)):
            require(share is None or 0 < share <= 1, key, "null, or a number above 0 and up to 1", share)
        augment.check(facts)
        self.scale = Scale(mean, std, channels)
        modalities = {"image": {"channels": channels, "resolution": size or resolution}}
        super().__init__(modalities, facts, **options)
        self.scales = {"image": self.scale}
        self.channels = channels
        self.size = size
        self.centre_crop = centre_crop
        self.ten_crop = ten_crop
        self.augment = augment
        self._permutation = permutation(size, permute_pixels) if size and permute_pixels is not None else None
        if self._permutation is not None:
            self.elements = {"image": len(self._permutation[0])}  # coordinates, no grid any more

    def make_set(self, split: Split, training: bool) -> ImageSet:
        """The images of a split, brought to their size, or in training to a random piece of it, and augmented."""
        if not training:
            return ImageSet(split, self.channels, self.size, self.centre_crop)
        augment = self.augment
        step = example_transform(self.size, augment.random_resized_crop, augment.rand_augment)
        whole = augment.random_resized_crop is not None
        return ImageSet(split, self.channels, None if whole else self.size, self.centre_crop, step)

    def make_test_set(self, split: Split) -> ImageSet:
        """The images of a split to evaluate on, in ten pieces if asked for."""
        if self.ten_crop is None:
            return self.make_set(split, training=False)
        size = self.modalities["image"]["resolution"]
        larger = [round(length / self.ten_crop) for length in size]
        return ImageSet(split, self.channels, larger, 1.0, partial(ten_crops, size=size))

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device: crop, flip and mix if training, normalise, permute.

        For loops without a Trainer: `for batch in data.train_dataloader(): batch = data.finish(batch, training=True)`.

        Args:
            batch: as the loaders give it, with uint8 content (B, H, W, C), or (B, 10, H, W, C) for ten crops.
            training: whether to crop, flip and mix.

        Returns:
            A batch of the contract in `datamodules.base`; the crops of an image are rows with one `example`.
        """
        batch = rows_of_clips(batch, {"image": 4})
        image, rest = dict(batch["inputs"]["image"]), {key: batch[key] for key in batch if key != "inputs"}
        content, mask = image["content"], image.get("mask")
        augment = self.augment
        if training and (augment.random_crop or augment.horizontal_flip):
            content = crop_and_flip(content, augment.random_crop, augment.horizontal_flip, mask)
        content = self.scale(content.float() / 255, mask)
        if training and (augment.mixup or augment.cutmix) and not self._is_mixing_over():
            content, rest["labels"] = mix(content, rest["labels"], self.num_classes, augment.mixup, augment.cutmix)
        if self._permutation is not None:
            order, positions = (tensor.to(content.device) for tensor in self._permutation)
            content, image["positions"] = content.flatten(1, 2)[:, order], positions
        return {"inputs": {"image": {**image, "content": content}}, **rest}

    def _is_mixing_over(self) -> bool:
        off, trainer = self.augment.mixup_off_epoch, self.trainer
        if off is None or trainer is None:
            return off == 0
        by_time = time_spent(trainer) * (trainer.max_epochs or 0)  # epochs, as far as the schedule has come
        return max(trainer.current_epoch, by_time) >= off
