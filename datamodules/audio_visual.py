"""Clips with sound, as two modalities cut from the same seconds: GRID's spoken sentences, and folders of your own."""

from abc import ABC
from functools import partial
from typing import Any, Literal
from zlib import crc32

import torch

from datamodules.audio_base import Audio
from datamodules.audio_batch import noise
from datamodules.base import located, require
from datamodules.file_base import Files
from datamodules.splits import ClassFolder, Split
from datamodules.tables import check_present, read_csv
from datamodules.video_base import Video, cache_folder, rows_of_clips
from datamodules.video_files import VIDEOS, Track, VideoSet, cut_sound, decode_sound

Modality = Literal["video", "audio"]
# fmt: off
PICTURES = [  # what the two have by themselves; the rest is that of the whole
    "frames", "fps", "size", "channels", "centre_crop", "patch", "mean", "std", "random_crop", "horizontal_flip",
    "brightness",
]
SOUND = [
    "sample_rate", "channels", "mels", "window", "hop", "frequencies", "patch", "scale", "gain", "noise",
    "spec_augment",
]
# fmt: on
SENTENCES = {
    "command": ["bin", "lay", "place", "set"],
    "color": ["blue", "green", "red", "white"],
    "preposition": ["at", "by", "in", "with"],
    "letter": list("abcdefghijklmnopqrstuvxyz"),  # no w, whose name is too long
    "digit": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "adverb": ["again", "now", "please", "soon"],
}


class AudioVisual(Files, ABC):
    """Clips of two modalities, `video` and `audio`, cut from the same seconds; a subclass says where they are from.

    Either is made as `Video` and `Audio` make it. A clip may lack one, which is then masked. One alone is
    `modalities: [video]` or `modalities: [audio]`, with all else as it stands.

    Args:
        num_classes: number of classes.
        class_names: their names; numbers if not given.
        modalities: which of the two are used.
        seconds: length of a clip. Of a longer file training takes a random piece, evaluation `eval_clips`; what is
            shorter is padded and masked.
        video: what `Video` has of frames, fps, size, channels, centre_crop, patch, mean, std, random_crop,
            horizontal_flip and brightness.
        audio: what `Audio` has of sample_rate, channels, mels, window, hop, frequencies, patch, scale, gain, noise and
            spec_augment; the last three are augmentation, in training alone.
        drop: in training, the share of clips of which a modality is hidden, as {video: 0.3}, the paper's; never the
            only one that a clip has.
        video_noise: the standard deviation of noise that is added to every value of a picture, in training and
            evaluation alike; of values in [0, 1], which it leaves as a camera would, within their range. For
            experiments on fusion.
        audio_noise: the decibels by which white noise that is added to the sound is softer than the clip, in training
            and evaluation alike; null for none. In evaluation a clip has the same noise each time.
        eval_clips: clips of each file in evaluation, evenly spread, whose probabilities are averaged.
        batch_size: files in a batch, on each device.
        num_workers: processes that read ahead; 0 is right for cached clips, else about one per core.
        val_fraction: share of train that is cut off for validation where the data bring no validation split,
            the same share of each class.
        split_seed: the seed of that cut.
        time_shift: in training, seconds by which a clip is moved either way, at most, sound and pictures together.
        balanced_sampling: in training, draw each class equally often; see `Files`.
        cache: keep what was decoded, before noise: "memory"; or "disk", memory-mapped, which all processes share and
            later runs find again; null decodes each file each time.
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
        modalities: list[Modality] | None = None,
        seconds: float = 2.0,
        video: dict[str, Any] | None = None,
        audio: dict[str, Any] | None = None,
        drop: dict[str, float] | None = None,
        video_noise: float = 0.0,
        audio_noise: float | None = None,
        eval_clips: int = 1,
        batch_size: int = 16,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        time_shift: float = 0.0,
        balanced_sampling: bool = False,
        cache: Literal["memory", "disk"] | None = None,
        cache_dir: str | None = None,
        predict_dir: str | None = None,
        skip_broken: bool = False,
    ) -> None:
        names = modalities or ["video", "audio"]
        known = set(names) <= {"video", "audio"} and len(set(names)) == len(names)
        require(known, "modalities", "[video], [audio] or [video, audio]", modalities)
        drop = drop or {}
        shares = set(drop) <= {"video", "audio"} and all(0 <= share < 1 for share in drop.values())
        require(shares, "drop", "shares of video and audio, of at least 0 and below 1", drop)
        require(eval_clips >= 1, "eval_clips", "an integer of at least 1", eval_clips)
        for key, amount in {"video_noise": video_noise, "time_shift": time_shift}.items():
            require(amount >= 0, key, "a number of at least 0", amount)
        # Both are made whichever is used, so that what is wrong is said, whichever is used.
        pictures = _Pictures(num_classes, seconds=seconds, **_checked("video", video, PICTURES))
        sound = _Sound(num_classes, seconds=seconds, **_checked("audio", audio, SOUND))
        parts: dict[str, Video | Audio] = {"video": pictures, "audio": sound}
        super().__init__(
            VIDEOS,
            {name: parts[name].modalities[name] for name in names},
            num_classes,
            class_names,
            batch_size=batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            split_seed=split_seed,
            balanced_sampling=balanced_sampling,
            cache=cache is not None,
            predict_dir=predict_dir,
            skip_broken=skip_broken,
        )
        self.parts = {name: parts[name] for name in names}
        rate = sound.sample_rate
        heard = Track(
            partial(decode_sound, sample_rate=rate, channels=sound.channels),
            partial(cut_sound, sample_rate=rate, seconds=seconds),
            rate,
        )
        self.tracks = {name: pictures.track if name == "video" else heard for name in names}
        self.seconds = seconds
        self.drop = drop
        self.video_noise = video_noise
        self.audio_noise = audio_noise
        self.eval_clips = eval_clips
        self.time_shift = time_shift
        self.cache_dir = cache_folder(cache, cache_dir)

    def make_set(self, split: Split, training: bool) -> VideoSet:
        """The clips of a split: a random one of each file in training, else `eval_clips`; noisy if so told."""
        noisy = self.video_noise > 0 or self.audio_noise is not None
        return VideoSet(
            split,
            self.tracks,
            self.seconds,
            training,
            shift=self.time_shift,
            clips=1 if training else self.eval_clips,
            cache_dir=self.cache_dir,
            finish=partial(with_noise, video=self.video_noise, audio=self.audio_noise, drawn_anew=training)
            if noisy
            else None,
        )

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device: as `Video` and `Audio` do it; in training, a modality hidden.

        For loops without a Trainer: `for batch in data.train_dataloader(): batch = data.finish(batch, training=True)`.

        Args:
            batch: as the loaders give it, with uint8 video (B, T, H, W, C) and int16 audio (B, T, C), or with
                (B, clips, *) for several clips.
            training: whether to do what is done by chance.

        Returns:
            A batch of the contract in `datamodules.base`; several clips of a file are rows with one `example`.
        """
        batch = rows_of_clips(batch, {"video": 5, "audio": 3})
        inputs = {}
        for name, part in batch["inputs"].items():
            done = self.parts[name].finish({**batch, "inputs": {name: part}}, training)["inputs"][name]
            if "mask" in done:  # nothing divided by its own size is no number
                done["content"] = done["content"].masked_fill(~done["mask"][..., None], 0.0)
            inputs[name] = done
        return {**batch, "inputs": hide(inputs, self.drop) if training and self.drop else inputs}


def with_noise(example: dict[str, Any], video: float, audio: float | None, drawn_anew: bool) -> dict[str, Any]:
    """An example, one clip or several, with noise on its bytes and samples; see `AudioVisual`.

    Its name is the seed, whichever modalities there are, unless it is `drawn_anew`.
    """
    inputs = {name: dict(part) for name, part in example["inputs"].items()}

    def seed(modality: str) -> None:
        if not drawn_anew:
            torch.manual_seed(crc32(f"{modality} {example['name']}".encode()))

    with torch.random.fork_rng(devices=[], enabled=not drawn_anew):
        if video and "video" in inputs:
            seed("video")
            content = inputs["video"]["content"]
            noisy = torch.randn(content.shape).mul_(255 * video).add_(content)
            inputs["video"]["content"] = noisy.round_().clamp_(0, 255).byte()
        if audio is not None and "audio" in inputs:
            seed("audio")
            content = inputs["audio"]["content"]
            clips = content.float().reshape(-1, *content.shape[-2:])
            mask = inputs["audio"].get("mask", torch.ones(content.shape[:-1], dtype=torch.bool))
            there = mask.reshape(clips.shape[:2])
            noisy = noise(clips, [audio, audio], there.sum(1).clamp(min=1)) * there[..., None]
            inputs["audio"]["content"] = noisy.round_().clamp_(-32767, 32767).short().view(content.shape)
    return {**example, "inputs": inputs}


def hide(inputs: dict[str, dict[str, Any]], shares: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Inputs of a batch with modalities masked in a random share of its rows, each row keeping at least one it had."""
    masks = {
        name: part.get("mask", torch.ones(part["content"].shape[:-1], dtype=torch.bool, device=part["content"].device))
        for name, part in inputs.items()
    }
    had = torch.stack([mask.flatten(1).any(1) for mask in masks.values()])
    share = torch.tensor([shares.get(name, 0.0) for name in masks], device=had.device)
    hidden = torch.rand(had.shape, device=had.device) < share[:, None]
    hidden &= (had & ~hidden).any(0)
    return {
        name: {**part, "mask": masks[name] & ~rows.view(-1, *[1] * (masks[name].ndim - 1))}
        for (name, part), rows in zip(inputs.items(), hidden, strict=True)
    }


class GRID(AudioVisual):
    """Sentences of the GRID corpus, "bin blue at f two now": clips of 3 s of a face, and one of the six words to tell.

    Reads `index.csv` (columns clip, split, and the six words) and `clips/<clip>.mp4`. The splits are train and test;
    validation is cut from train with the same share of each class.

    Args:
        label: the word that is to be told: command, color, preposition, adverb (4 classes each), letter (25), digit.
        root: the folder, from here or below the folder of all data.
        seconds: as all clips have it; 3 is their own.
        options: as all clips have them.

    Source: https://doi.org/10.1121/1.2229005 (Cooke, Barker, Cunningham, Shao 2006)
    """

    def __init__(
        self,
        label: Literal["command", "color", "preposition", "letter", "digit", "adverb"],
        root: str = "audiovisual/grid-s1",
        seconds: float = 3.0,
        **options: Any,
    ) -> None:
        names = SENTENCES[label]
        super().__init__(num_classes=len(names), class_names=list(names), seconds=seconds, **options)
        self.label = label
        self.folder = located(root)

    def find_train(self) -> tuple[Split, None]:
        """The clips of train."""
        return self._list("train"), None

    def find_test(self) -> Split:
        """The clips of test."""
        return self._list("test")

    def _list(self, split: str) -> Split:
        table = self.folder / "index.csv"
        lines = [line for line in read_csv(table, ["clip", "split", self.label]) if line["split"] == split]
        require(len(lines) > 0, str(table), f"clips of the split {split}", "none")
        for line in lines:
            word = line[self.label]
            require(word in self.class_names, f"{table}, {line['clip']}", f"a {self.label} of GRID's", repr(word))
        paths = [str(self.folder / "clips" / f"{line['clip']}.mp4") for line in lines]
        check_present(paths, table, self.skip_broken)
        labels = [self.class_names.index(line[self.label]) for line in lines]
        return Split(paths, [line["clip"] for line in lines], labels, str(self.folder), VIDEOS)


class AudioVisualFolder(AudioVisual):
    """A folder of videos with sound: `<split>/<class>/*.mp4`, or `<class>/*.mp4`, which is then split by seed.

    Formats, splits and classes are those of `datamodules.video.VideoFolder`.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder where it is there.
        test_fraction: share that is cut off for test where the folder is not split.
        options: as all clips have them.
    """

    def __init__(self, root: str, num_classes: int | None = None, test_fraction: float = 0.1, **options: Any) -> None:
        self.files = ClassFolder(root, VIDEOS, num_classes, test_fraction)
        super().__init__(num_classes=self.files.num_classes, class_names=self.files.class_names, **options)

    def find_train(self) -> tuple[Split, Split | None]:
        """The train folder, and the validation folder if there is one."""
        return self.files.find_train(self.split_seed)

    def find_test(self) -> Split:
        """The test folder."""
        return self.files.find_test(self.split_seed)


def _checked(key: str, options: dict[str, Any] | None, known: list[str]) -> dict[str, Any]:
    """The options of one modality; InputError that names one which there is not."""
    for name in options or {}:
        require(name in known, f"{key}.{name}", f"one of {', '.join(known)}", repr(name))
    return options or {}


class _Pictures(Video):
    """What makes pictures a modality; it finds no files of its own."""

    def find_train(self) -> Any:
        """Never asked for."""

    def find_test(self) -> Any:
        """Never asked for."""


class _Sound(Audio):
    """What makes sound a modality; it finds no files of its own."""

    def find_train(self) -> Any:
        """Never asked for."""

    def find_test(self) -> Any:
        """Never asked for."""
