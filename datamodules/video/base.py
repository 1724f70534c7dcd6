"""What all video here shares: clips, augmentation, space-time patches, positions in time."""

from abc import ABC
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import require
from datamodules.common.cache import cache_folder
from datamodules.common.collate import own_places, rows_of_clips
from datamodules.common.files import Files
from datamodules.common.patches import patches
from datamodules.common.splits import Split
from datamodules.image.augment import crop_and_flip, normalise
from datamodules.video.augment import changes
from datamodules.video.dataset import Track, VideoSet, cut_pictures
from datamodules.video.reading import VIDEOS, decode_pictures


class Video(Files, ABC):
    """Clips of one modality, `video`: pixels (B, T, H, W, C), single ones or space-time patches; a subclass says where
    its splits are from.

    Clips are decoded and resized one by one as bytes, and augmented and made floats as a batch, on its device: one draw
    a clip, the same for all its pictures. The training split is augmented, the others never.

    Positions are times and places: those of a clip shorter than `seconds` are the first of the time axis, not all of
    it, so that a second is as long in every clip.

    Args:
        num_classes: number of classes.
        class_names: their names; numbers if not given.
        multilabel: whether a clip may have several classes (or none).
        frames: pictures of a clip, evenly spread over `seconds`: each is from the middle of an equal part.
        seconds: length of a clip. Of a longer file training takes a random piece, evaluation `eval_clips`; a shorter
            one is padded and masked.
        fps: pictures a second that files are decoded at and cached; as many as a clip has, if not given. More of them
            let a random piece begin between.
        size: what every picture is brought to, an int or [height, width].
        channels: 3 for colour, 1 for grey; files are converted.
        centre_crop: share of a picture that is kept where it is brought to `size`: 1 for the largest centred piece of
            that shape, less for a smaller one, null for the whole picture, stretched.
        centre: of that piece, as shares of the height and the width from top and left; it stays inside the picture.
        patch: size of a patch, [pictures, height, width] ([2, 8, 8] and [1, 4, 4] in the papers), whose pixels become
            channels; null for single pixels.
        mean: what is taken off each channel, of values in [0, 1]; one number or one per channel.
        std: what each channel is then divided by; one number or one per channel.
        changes: give each picture as what changed since the one before, in units of its clip's own standard deviation,
            in the place of the picture: what stands still and how bright it is are gone.
        eval_clips: clips of each file in evaluation, evenly spread, whose probabilities are averaged.
        batch_size: files in a batch, on each device.
        num_workers: processes that read ahead; 0 is right for cached clips that fit into memory, else one per core.
        val_fraction: share of train that is cut off for validation where the data bring no validation split,
            the same share of each class.
        split_seed: the seed of that cut.
        time_shift: in training, seconds by which a clip is moved either way, at most; past the ends of the file its
            first and last picture stay on.
        random_crop: in training, pixels by which a clip is moved along height and width, at most; zeros come in.
        horizontal_flip: in training, mirror a clip or not, by a coin.
        brightness: in training, share by which a clip gets brighter or darker, at most.
        balanced_sampling: in training, draw each class equally often; see `Files`.
        cache: keep decoded pictures, as bytes at `fps` and `size`: "memory"; or "disk", memory-mapped, which all
            processes share and later runs find again; null decodes each file each time.
        cache_dir: the folder of caches on disk; `cache` in the folder of all data if not given.
        predict_dir: a folder of videos without labels, at any depth, for `predict`.
        skip_broken: leave out files that cannot be read, after decoding all once to find them, and log how many;
            otherwise the first one ends the run.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        multilabel: bool = False,
        frames: int = 16,
        seconds: float = 2.0,
        fps: float | None = None,
        size: int | list[int] = 64,
        channels: int = 3,
        centre_crop: float | None = 1.0,
        centre: tuple[float, float] = (0.5, 0.5),
        patch: list[int] | None = None,
        mean: float | list[float] = 0.5,
        std: float | list[float] = 0.5,
        changes: bool = False,
        eval_clips: int = 1,
        batch_size: int = 16,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        time_shift: float = 0.0,
        random_crop: int = 0,
        horizontal_flip: bool = False,
        brightness: float = 0.0,
        balanced_sampling: bool = False,
        cache: Literal["memory", "disk"] | None = None,
        cache_dir: str | None = None,
        predict_dir: str | None = None,
        skip_broken: bool = False,
    ) -> None:
        for key, count in {"frames": frames, "eval_clips": eval_clips}.items():
            require(count >= 1, key, "an integer of at least 1", count)
        require(seconds > 0, "seconds", "the length of a clip, above 0", seconds)
        require(fps is None or fps > 0, "fps", "null, or a number above 0", fps)
        size = [size, size] if isinstance(size, int) else size
        require(len(size) == 2 and min(size) >= 1, "size", "an int or [height, width] of at least 1", size)
        require(channels in (1, 3), "channels", "1 or 3", channels)
        if centre_crop is not None:
            require(0 < centre_crop <= 1, "centre_crop", "null, or a number above 0 and up to 1", centre_crop)
        require(len(centre) == 2 and 0 <= min(centre) <= max(centre) <= 1, "centre", "two shares from 0 to 1", centre)
        patch = patch or [1, 1, 1]
        is_patch = len(patch) == 3 and min(patch) >= 1 and size[0] % patch[1] == 0 and size[1] % patch[2] == 0
        expected = f"null, or [pictures, height, width] that divide the size {size}"
        require(is_patch, "patch", expected, patch)
        means = mean if isinstance(mean, list) else [mean] * channels
        stds = std if isinstance(std, list) else [std] * channels
        require(len(means) == channels, "mean", f"one number, or {channels} (channels)", mean)
        require(len(stds) == channels and min(stds) > 0, "std", f"one number above 0, or {channels} (channels)", std)
        for name, amount in {"time_shift": time_shift, "random_crop": random_crop}.items():
            require(amount >= 0, name, "a number of at least 0", amount)
        require(0 <= brightness <= 1, "brightness", "a number from 0 to 1", brightness)

        resolution = [-(-frames // patch[0]), size[0] // patch[1], size[1] // patch[2]]
        super().__init__(
            VIDEOS,
            {"video": {"channels": channels * torch.Size(patch).numel(), "resolution": resolution}},
            num_classes,
            class_names,
            multilabel,
            batch_size=batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            split_seed=split_seed,
            balanced_sampling=balanced_sampling,
            cache=cache is not None,
            predict_dir=predict_dir,
            skip_broken=skip_broken,
        )
        self.seconds = seconds
        self.patch = patch
        self.mean = means
        self.std = stds
        self.changes = changes
        self.eval_clips = eval_clips
        self.time_shift = time_shift
        self.random_crop = random_crop
        self.horizontal_flip = horizontal_flip
        self.brightness = brightness
        self.cache_dir = cache_folder(cache, cache_dir)
        fps = fps or frames / seconds
        self.track = Track(
            partial(decode_pictures, fps=fps, size=size, channels=channels, centre_crop=centre_crop, centre=centre),
            partial(cut_pictures, fps=fps, frames=frames, seconds=seconds),
            fps,
        )

    def make_set(self, split: Split, training: bool) -> VideoSet:
        """The clips of a split: a random one of each file in training, else `eval_clips`."""
        return VideoSet(
            split,
            {"video": self.track},
            self.seconds,
            training,
            shift=self.time_shift,
            clips=1 if training else self.eval_clips,
            num_classes=self.num_classes if self.multilabel else None,
            cache_dir=self.cache_dir,
        )

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device: augmentation if training, floats, patches.

        For loops without a Trainer: `for batch in data.train_dataloader(): batch = data.finish(batch, training=True)`.

        Args:
            batch: as the loaders give it, with uint8 content (B, T, H, W, C), or (B, clips, T, H, W, C) for several.
            training: whether to augment.

        Returns:
            A batch of the contract in `datamodules.base`; several clips of a file are rows with one `example`.
        """
        batch = rows_of_clips(batch, {"video": 5})
        content, mask = batch["inputs"]["video"]["content"], batch["inputs"]["video"].get("mask")
        if training:
            content = self._augment(content)
        content = normalise(content, self.mean, self.std, mask)
        if self.changes:
            content = changes(content, mask)
        content = patches(content, self.patch)
        part: dict[str, Any] = {"content": content}
        places, full = content.shape[1], self.modalities["video"]["resolution"]
        if places < full[0]:
            axes = [torch.linspace(-1, 1, length, device=content.device) for length in full]
            part["positions"] = [axes[0][:places], *axes[1:]]
        if mask is not None:
            own = -(-mask[:, :, 0, 0].sum(1) // self.patch[0])
            part["mask"] = own_places(own, places)[:, :, None, None].expand(content.shape[:-1])
        return {**batch, "inputs": {"video": part}}

    def _augment(self, content: Tensor) -> Tensor:
        """Pictures (B, T, H, W, C) of the training split moved, mirrored, made brighter or darker, each clip as one."""
        if self.random_crop or self.horizontal_flip:
            size = content.shape[1], content.shape[4]
            as_one = content.permute(0, 2, 3, 1, 4).flatten(3)
            as_one = crop_and_flip(as_one, self.random_crop, self.horizontal_flip)
            content = as_one.unflatten(3, size).permute(0, 3, 1, 2, 4)
        if self.brightness:
            drawn = torch.rand(len(content), 1, 1, 1, 1, device=content.device)
            content = (content * (1 + self.brightness * (2 * drawn - 1))).clamp(max=255)
        return content
