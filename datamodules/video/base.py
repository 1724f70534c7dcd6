"""What all video here shares: clips, augmentation, space-time patches, positions in time."""

from abc import ABC
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from datamodules.common.collate import own_places, rows_of_clips
from datamodules.common.files import Files
from datamodules.common.patches import patches
from datamodules.common.scale import Numbers, Scale
from datamodules.common.splits import Split
from datamodules.video.augment import VideoAugment, changes
from datamodules.video.dataset import Track, VideoSet, cut_pictures
from datamodules.video.reading import VIDEOS, decode_pictures
from perceiver_lightning.errors import require


@dataclass(frozen=True)
class Pictures:
    """Size, colour and values of the pictures of a video.

    Args:
        size: what every picture is brought to, an int or [height, width].
        channels: 3 for colour, 1 for grey; files are converted.
        centre_crop: share of a picture that is kept where it is brought to `size`: 1 for the largest centred piece of
            that shape, less for a smaller one, null for the whole picture, stretched.
        centre: of that piece, as shares of the height and the width from top and left; it stays inside the picture.
        mean: what is taken off each channel, of values in [0, 1]; one number or one per channel, or "train" for that
            of the train split, which is computed once and kept in checkpoints.
        std: what each channel is then divided by, likewise.
        changes: give each picture as what changed since the one before, in units of its clip's own standard deviation,
            in the place of the picture: what stands still and how bright it is are gone.
    """

    size: int | list[int] = 64
    channels: int = 3
    centre_crop: float | None = 1.0
    centre: tuple[float, float] = (0.5, 0.5)
    mean: Numbers = 0.5
    std: Numbers = 0.5
    changes: bool = False

    def checked_size(self) -> list[int]:
        """[height, width]; InputError that names what is out of its range, here or in how they are cut to it."""
        size = [self.size, self.size] if isinstance(self.size, int) else self.size
        require(len(size) == 2 and min(size) >= 1, "size", "an int or [height, width] of at least 1", size)
        require(self.channels in (1, 3), "channels", "1 or 3", self.channels)
        crop, centre = self.centre_crop, self.centre
        require(crop is None or 0 < crop <= 1, "centre_crop", "null, or a number above 0 and up to 1", crop)
        require(len(centre) == 2 and 0 <= min(centre) <= max(centre) <= 1, "centre", "two shares from 0 to 1", centre)
        return size


class Video(Files, ABC):
    """Clips of one modality, `video`: pixels (B, T, H, W, C), single ones or space-time patches.

    A subclass says where its splits are from.

    Clips are decoded and resized one by one as bytes, and augmented and made floats as a batch, on its device: one draw
    a clip, the same for all its pictures. The training split is augmented, the others never.

    Positions are times and places: those of a clip shorter than `seconds` are the first of the time axis, not all of
    it, so that a second is as long in every clip.

    Args:
        facts: what a task needs to know, as `DataModule` has them.
        frames: pictures of a clip, evenly spread over `seconds`: each is from the middle of an equal part.
        seconds: length of a clip. Of a longer file training takes a random piece, evaluation `eval_clips`; a shorter
            one is padded and masked.
        fps: pictures a second that files are decoded at and cached; as many as a clip has, if not given. More of them
            let a random piece begin between.
        patch: size of a patch, [pictures, height, width] ([2, 8, 8] and [1, 4, 4] in the papers), whose pixels become
            channels; null for single pixels.
        eval_clips: clips of each file in evaluation, evenly spread, whose probabilities are averaged.
        pictures: size, colour and values of each picture.
        augment: what is done by chance in training.
        batch_size: files in a batch, on each device.
        options: as `Files` has them. Pictures are cached decoded, as bytes at `fps` and `size`.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    kind = VIDEOS

    def __init__(
        self,
        facts: dict[str, Any],
        frames: int = 16,
        seconds: float = 2.0,
        fps: float | None = None,
        patch: list[int] | None = None,
        eval_clips: int = 1,
        pictures: Pictures = Pictures(),
        augment: VideoAugment = VideoAugment(),
        batch_size: int = 16,
        **options: Any,
    ) -> None:
        for key, count in {"frames": frames, "eval_clips": eval_clips}.items():
            require(count >= 1, key, "an integer of at least 1", count)
        require(seconds > 0, "seconds", "the length of a clip, above 0", seconds)
        require(fps is None or fps > 0, "fps", "null, or a number above 0", fps)
        size = pictures.checked_size()
        patch = patch or [1, 1, 1]
        is_patch = len(patch) == 3 and min(patch) >= 1 and size[0] % patch[1] == 0 and size[1] % patch[2] == 0
        expected = f"null, or [pictures, height, width] that divide the size {size}"
        require(is_patch, "patch", expected, patch)
        self.scale = Scale(pictures.mean, pictures.std, pictures.channels)
        augment.check()

        resolution = [-(-frames // patch[0]), size[0] // patch[1], size[1] // patch[2]]
        channels = pictures.channels * torch.Size(patch).numel()
        modalities = {"video": {"channels": channels, "resolution": resolution}}
        super().__init__(modalities, facts, batch_size=batch_size, **options)
        self.scales = {"video": self.scale}
        self.seconds = seconds
        self.patch = patch
        self.eval_clips = eval_clips
        self.pictures = pictures
        self.augment = augment
        fps = fps or frames / seconds
        self.track = Track(
            partial(
                decode_pictures,
                fps=fps,
                size=size,
                channels=pictures.channels,
                centre_crop=pictures.centre_crop,
                centre=pictures.centre,
            ),
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
            shift=self.augment.time_shift,
            clips=1 if training else self.eval_clips,
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
            content = self.augment.apply(content)
        content = self.scale(content.float() / 255, mask)
        if self.pictures.changes:
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
