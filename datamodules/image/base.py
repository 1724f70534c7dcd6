"""What all image data here share: sizes, splits, augmentation, normalisation, permuted pixels."""

from abc import ABC
from functools import partial
from typing import Any

from datamodules.base import require
from datamodules.common.collate import rows_of_clips
from datamodules.common.files import Files
from datamodules.common.splits import Split
from datamodules.image.augment import crop_and_flip, example_transform, mix, normalise, permutation, resize, ten_crops
from datamodules.image.dataset import ImageSet
from datamodules.image.reading import IMAGES


class Images(Files, ABC):
    """Images of one modality, `image`; a subclass says where its splits are from.

    Images are read and augmented one by one as bytes, and made floats on the device. The training split is augmented,
    the others never; the test split is looked at in stage `test` only.

    Args:
        num_classes: number of classes.
        class_names: their names; numbers if not given.
        size: what every image is brought to, an int or [height, width]; null keeps each image's own size, and a
            batch of several sizes is padded and masked.
        resolution: with `size: null`, the [height, width] that the Fourier bands are made for.
        channels: 3 for colour, 1 for grey; images are converted.
        batch_size: images in a batch, on each device.
        num_workers: processes that read ahead; 0 is right for cached small images, else about one per core.
        val_fraction: share of train that is cut off for validation where the data bring no validation split,
            the same share of each class.
        split_seed: the seed of that cut.
        centre_crop: share of the image that is kept where it is brought to `size`: 1 for the largest centred piece
            of that shape, 0.875 as the papers evaluate, null for the whole image, stretched.
        random_crop: in training, pad by this many pixels on each side and cut a random `size` out (4 for CIFAR).
        random_resized_crop: in training, [least, greatest] share of the area of a random piece that is brought to
            `size` (inception crops: [0.08, 1]); takes the place of `centre_crop`.
        horizontal_flip: in training, mirror an image or not, by a coin.
        rand_augment: in training, RandAugment's [number of operations, magnitude from 0 to 30].
        mixup: in training, alpha of MixUp; 0 for none. Makes labels soft.
        cutmix: in training, alpha of CutMix; 0 for none. With both, each batch gets one of them, by a coin.
        mixup_off_epoch: the epoch, from 0, from which on nothing is mixed any more, as timm has it: the training then
            ends on images as they are. Null to mix to the end.
        ten_crop: in `test` and `predict`, judge each image by ten pieces of it, this share of its width and height
            (the corners, the centre, and their mirror images), by the mean of their probabilities; null for the image.
        mean: what is taken off each channel, of values in [0, 1]; one number or one per channel.
        std: what each channel is then divided by; one number or one per channel.
        balanced_sampling: in training, draw each class equally often. An epoch has as many examples as the split, but
            drawn with replacement: it repeats some and misses others. On several devices each draws from the whole
            split and takes its share of that, so two of them may get the same example in one epoch.
        permute_pixels: the seed of one fixed shuffle of the pixels of all images, after augmentation: content
            (B, M, C) with each pixel's own position in `positions` (M, 2). Null for none.
        cache: keep decoded images in memory, as bytes, brought to `size` (for `random_resized_crop` in their own
            size). Forked workers share them; each device's process has its own.
        predict_dir: a folder of images without labels, at any depth, for `predict`.
        skip_broken: leave out images that cannot be read, after decoding all once to find them, and log how many;
            otherwise the first one ends the run.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        size: int | list[int] | None = 224,
        resolution: list[int] | None = None,
        channels: int = 3,
        batch_size: int = 64,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        centre_crop: float | None = 1.0,
        random_crop: int = 0,
        random_resized_crop: list[float] | None = None,
        horizontal_flip: bool = False,
        rand_augment: list[int] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mixup_off_epoch: int | None = None,
        ten_crop: float | None = None,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
        balanced_sampling: bool = False,
        permute_pixels: int | None = None,
        cache: bool = False,
        predict_dir: str | None = None,
        skip_broken: bool = False,
    ) -> None:
        require(channels in (1, 3), "channels", "1 or 3", channels)
        size = [size, size] if isinstance(size, int) else size
        if size is None:
            require(resolution is not None, "resolution", "[height, width], as size is null", resolution)
            needs_size = [random_crop, random_resized_crop, mixup, cutmix, ten_crop, permute_pixels is not None]
            names = "random_crop, random_resized_crop, mixup, cutmix, ten_crop or permute_pixels"
            require(not any(needs_size), "size", f"[height, width], as {names} is given", "null")
        else:
            require(resolution is None, "resolution", "null, as size is given", resolution)
            require(len(size) == 2, "size", "an int or [height, width]", size)
        if centre_crop is not None:
            require(0 < centre_crop <= 1, "centre_crop", "null, or a number above 0 and up to 1", centre_crop)
        if random_resized_crop is not None:
            is_range = len(random_resized_crop) == 2 and 0 < random_resized_crop[0] <= random_resized_crop[1] <= 1
            require(is_range, "random_resized_crop", "[least, greatest] above 0 and up to 1", random_resized_crop)
        if rand_augment is not None:
            is_policy = len(rand_augment) == 2 and rand_augment[0] >= 1 and 0 <= rand_augment[1] <= 30
            require(is_policy, "rand_augment", "[operations, magnitude from 0 to 30]", rand_augment)
        for key, value in (("random_crop", random_crop), ("mixup", mixup), ("cutmix", cutmix)):
            require(value >= 0, key, "a number of at least 0", value)
        if ten_crop is not None:
            require(0 < ten_crop <= 1, "ten_crop", "null, or a number above 0 and up to 1", ten_crop)
        if mixup_off_epoch is not None:
            require(mixup_off_epoch >= 0, "mixup_off_epoch", "null, or an epoch of at least 0", mixup_off_epoch)
            require(
                mixup > 0 or cutmix > 0,
                "mixup_off_epoch",
                "null, as neither mixup nor cutmix is given",
                mixup_off_epoch,
            )
        means = mean if isinstance(mean, list) else [mean] * channels
        stds = std if isinstance(std, list) else [std] * channels
        require(len(means) == channels, "mean", f"one number, or {channels} (channels)", mean)
        require(len(stds) == channels and min(stds) > 0, "std", f"one number above 0, or {channels} (channels)", std)

        modalities = {"image": {"channels": channels, "resolution": size or resolution}}
        super().__init__(
            IMAGES,
            modalities,
            num_classes,
            class_names,
            batch_size=batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            split_seed=split_seed,
            balanced_sampling=balanced_sampling,
            cache=cache,
            predict_dir=predict_dir,
            skip_broken=skip_broken,
        )
        self.channels = channels
        self.mean = means
        self.std = stds
        self.random_crop = random_crop
        self.horizontal_flip = horizontal_flip
        self.mixup = mixup
        self.cutmix = cutmix
        self.mixup_off_epoch = mixup_off_epoch
        self.ten_crop = ten_crop
        self._resize = partial(resize, size=size, centre_crop=centre_crop) if size else None
        self._train_resize = None if random_resized_crop else self._resize
        self._augment = example_transform(size, random_resized_crop, rand_augment)
        self._permutation = permutation(size, permute_pixels) if size and permute_pixels is not None else None
        if self._permutation is not None:
            self.elements = {"image": len(self._permutation[0])}  # coordinates, no grid any more

    def make_set(self, split: Split, training: bool) -> ImageSet:
        """The images of a split, brought to their size, or in training to a random piece of it, and augmented."""
        if training:
            return ImageSet(split, self.channels, self._train_resize, self._augment)
        return ImageSet(split, self.channels, self._resize)

    def make_test_set(self, split: Split) -> ImageSet:
        """The images of a split to be judged, in ten pieces if asked for."""
        if self.ten_crop is None:
            return self.make_set(split, training=False)
        size = self.modalities["image"]["resolution"]
        larger = [round(length / self.ten_crop) for length in size]
        return ImageSet(
            split, self.channels, partial(resize, size=larger, centre_crop=1.0), partial(ten_crops, size=size)
        )

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
        if training and (self.random_crop or self.horizontal_flip):
            content = crop_and_flip(content, self.random_crop, self.horizontal_flip, mask)
        content = normalise(content, self.mean, self.std, mask)
        if training and (self.mixup or self.cutmix) and not self._is_mixing_over():
            content, rest["labels"] = mix(content, rest["labels"], self.num_classes, self.mixup, self.cutmix)
        if self._permutation is not None:
            order, positions = (tensor.to(content.device) for tensor in self._permutation)
            content, image["positions"] = content.flatten(1, 2)[:, order], positions
        return {"inputs": {"image": {**image, "content": content}}, **rest}

    def _is_mixing_over(self) -> bool:
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        return self.mixup_off_epoch is not None and epoch >= self.mixup_off_epoch
