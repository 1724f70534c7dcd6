"""Clips of pictures: decoded by time, cut, made patches, padded; folders and tables of them."""

import os
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from grouped import made
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import batch_of
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer
from sound_files import tone
from torch import Tensor
from video_clips import CODECS, greys, write_clip, write_folder, write_table

from datamodules import VideoFolder, VideoTable
from datamodules.base import DataModule, check_batch
from datamodules.common.collate import collate
from datamodules.image.augment import resize
from datamodules.video.base import Pictures
from datamodules.video.dataset import cut_pictures, cut_sound
from datamodules.video.reading import _resized, decode_pictures
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver
from perceiver_lightning.tasks.classification import ClassificationTask

DATA = Path(os.environ.get("PERCEIVER_DATA", "data")) / "audiovisual" / "grid-s1"
has_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no {DATA}: unpack GRID's clips there or name its folder's parent in PERCEIVER_DATA"
)
SMALL = {"frames": 4, "seconds": 0.8, "size": 8}


def absent(**options) -> VideoFolder:
    return made(VideoFolder, "nowhere", num_classes=2, **{**SMALL, **options})


def decoded(path: Path, fps: float = 10, size: tuple[int, int] = (8, 8), channels: int = 3, crop: float | None = 1.0):
    return decode_pictures(path, fps, list(size), channels, crop)


def made_of(clips: list[Tensor]) -> dict:
    return collate([{"inputs": {"video": {"content": clip}}, "labels": 0} for clip in clips])


def random_clip(length: int, size: int = 8) -> Tensor:
    return torch.randint(256, (length, size, size, 3), dtype=torch.uint8)


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("suffix", CODECS)
def test_each_format_is_read(tmp_path, suffix):
    levels = np.arange(30, 230, 20)
    path = write_clip(tmp_path / f"a{suffix}", greys(levels), sound=None if suffix == ".gif" else tone(1.0, 16000))
    found = decoded(path)
    assert (found.dtype, found.shape) == (np.uint8, (10, 8, 8, 3))
    assert np.abs(found.astype(int) - levels[:, None, None, None]).max() <= 4
    assert decoded(path, channels=1).shape == (10, 8, 8, 1)


def test_pictures_are_those_shown_at_the_middle_of_each_part(tmp_path):
    levels = np.arange(20, 240, 20)
    path = write_clip(tmp_path / "a.mkv", greys(levels))  # 11 pictures, 1.1 s

    @given(st.floats(1.3, 60).map(lambda fps: round(fps, 3) + 0.0001))
    def check(fps: float) -> None:
        expected = [floor((k + 0.5) / fps * 10) for k in range(ceil(1.1 * fps - 0.5))]
        found = decoded(path, fps)[:, 4, 4, 0]
        assert np.abs(found - levels[expected].astype(int)).max() <= 4

    check()


def test_a_picture_is_shown_until_the_next(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for pts, level in ((3, 50), (4, 100), (9, 200)):
            frame = av.VideoFrame.from_ndarray(greys([level], (16, 16))[0], "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = decoded(path)[:, 0, 0, 0]
    assert np.abs(found - np.array([50, 100, 100, 100, 100, 100, 200])).max() <= 4  # from the first one on


@pytest.mark.parametrize("size, crop", [((12, 12), 1.0), ((12, 12), 0.75), ((12, 20), None), ((24, 20), 1.0)])
def test_pictures_are_resized_as_images_are(tmp_path, size, crop):
    rows, columns = np.mgrid[0:48, 0:64]
    picture = np.stack([4 * rows, 3 * columns, 255 - 2 * rows - 2 * columns], -1).clip(0, 255).astype(np.uint8)
    path = write_clip(tmp_path / "a.mp4", np.stack([picture] * 3))
    expected = resize(torch.from_numpy(picture), list(size), crop).int()
    assert (torch.from_numpy(decoded(path, size=size, crop=crop)[1]).int() - expected).abs().float().mean() < 3


@pytest.mark.parametrize(
    "centre, rows, columns",
    [((0.25, 0.75), (0, 24), (36, 60)), ((0.0, 1.0), (0, 24), (40, 64)), ((1, 0.5), (24, 48), (20, 44))],
)
def test_a_piece_about_another_centre(centre, rows, columns):
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)  # half of 48 rows, at its own scale
    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    found = _resized(VideoReformatter(), 1, [24, 24], 3, 0.5, centre, frame)
    assert np.array_equal(found, picture[slice(*rows), slice(*columns)])


@given(st.integers(1, 40), st.integers(1, 12), st.floats(0.5, 3), st.floats(0, 2), st.floats(-1, 1), st.floats(2, 30))
def test_a_clip_has_the_pictures_of_its_seconds(length, frames, seconds, start, shift, fps):
    found = cut_pictures(np.arange(length), start, shift, fps, frames, seconds)
    times = [start + (i + 0.5) * seconds / frames for i in range(frames)]
    there = [t for t in times if t * fps < length] or times[:1]  # a file that ends before has one all the same
    expected = [min(max(floor((t + shift) * fps), 0), length - 1) for t in there]
    assert found.tolist() == expected


def test_a_clip_of_sound_ends_where_the_file_does():
    sound = np.arange(1, 101)[:, None]
    assert cut_sound(sound, 2.0, 0.0, 10, 3.0)[:, 0].tolist() == list(range(21, 51))
    assert cut_sound(sound, 9.0, 0.0, 10, 3.0)[:, 0].tolist() == list(range(91, 101))
    assert cut_sound(sound, 9.0, 0.5, 10, 1.0)[:, 0].tolist() == [*range(96, 101), 0, 0, 0, 0, 0]
    assert cut_sound(sound, 0.0, -0.2, 10, 0.5)[:, 0].tolist() == [0, 0, 1, 2, 3]
    assert cut_sound(sound, 11.0, 0.0, 10, 3.0).shape == (0, 1)


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize(
    "options, channels, resolution",
    [
        ({"frames": 32, "seconds": 1.28, "size": 224, "patch": [2, 8, 8]}, 384, [16, 28, 28]),  # 12,544, the paper's
        ({"frames": 16, "size": 224, "patch": [1, 4, 4]}, 48, [16, 56, 56]),
        ({"frames": 5, "size": [8, 12], "channels": 1, "patch": [2, 4, 4]}, 32, [3, 2, 3]),
        ({}, 3, [4, 8, 8]),
    ],
)
def test_facts_follow_from_the_settings(options, channels, resolution):
    assert absent(**options).modalities == {"video": {"channels": channels, "resolution": resolution}}


def test_a_patch_is_its_pixels():
    data = absent(patch=[2, 4, 2], mean=0.0, std=1 / 255)
    clip = random_clip(4)
    part = data.finish(made_of([clip]), training=False)["inputs"]["video"]
    assert set(part) == {"content"} and part["content"].shape == (1, 2, 2, 4, 48)
    torch.testing.assert_close(part["content"][0, 1, 0, 3], clip[2:4, 0:4, 6:8].float().flatten())
    plain = absent(mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.3])
    expected = (clip / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(plain.finish(made_of([clip]), False)["inputs"]["video"]["content"][0], expected)


@pytest.mark.parametrize("gain, offset", [(1, 0), (2, 30)])
def test_changes_are_what_moves_whatever_the_light(gain, offset):
    clip = torch.randint(100, (5, 8, 8, 3), dtype=torch.uint8)
    data = absent(frames=5, changes=True)
    found = data.finish(made_of([clip * gain + offset, clip[:1].expand(5, -1, -1, -1)]), False)["inputs"]["video"]
    moved = np.diff(clip.numpy().astype(float), axis=0, prepend=clip[:1].numpy().astype(float))
    expected = torch.tensor(moved / np.sqrt((moved**2).mean()), dtype=torch.float32)
    torch.testing.assert_close(found["content"][0], expected)
    assert found["content"][1].abs().max() == 0


@pytest.mark.parametrize(
    "options",
    [{}, {"patch": [1, 4, 4]}, {"patch": [2, 4, 4]}, {"frames": 5, "patch": [3, 8, 2]}, {"frames": 5, "changes": True}],
)
def test_a_clip_that_ends_early_gives_the_very_output_that_it_gives_alone(options):
    data = absent(**options)
    frames = options.get("frames", 4)
    torch.manual_seed(0)
    model = Perceiver(
        data.modalities, 3, num_latents=4, latent_width=8, cross_attends=[1, 1], self_attends=1, self_heads=2, bands=4
    ).eval()

    @settings(max_examples=10)
    @given(st.lists(st.integers(1, frames), min_size=2, max_size=4))
    def check(lengths: list[int]) -> None:
        clips = [random_clip(length) for length in lengths]
        batch = data.finish(made_of(clips), training=False)
        check_batch(batch, data.modalities)
        with torch.no_grad():
            together = model(batch["inputs"])
            alone = torch.cat([model(data.finish(made_of([clip]), False)["inputs"]) for clip in clips])
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)

    check()


def test_positions_are_times_however_long_the_clip():
    part = absent(frames=8, patch=[2, 4, 4]).finish(made_of([random_clip(3), random_clip(5)]), False)["inputs"]["video"]
    assert torch.equal(part["positions"][0], torch.linspace(-1, 1, 4)[:3])
    assert [len(axis) for axis in part["positions"]] == [3, 2, 2]
    assert part["mask"].all((2, 3)).tolist() == [[True, True, False], [True, True, True]]
    assert part["content"][0, 2].eq(0).all()


def test_augmentation_is_one_draw_a_clip():
    torch.manual_seed(0)
    data = absent(random_crop=2, horizontal_flip=True, brightness=0.5, mean=0.0, std=1.0)
    still = made_of([random_clip(1).expand(4, -1, -1, -1)] * 20)
    content = data.finish(still, training=True)["inputs"]["video"]["content"]
    assert torch.equal(content, content[:, :1].expand_as(content))
    assert len({tuple(clip.flatten().tolist()) for clip in content}) == 20
    plain = data.finish(still, training=False)["inputs"]["video"]["content"]
    assert torch.equal(plain[0], plain[1])
    only = absent(brightness=0.5, mean=0.0, std=1.0)
    ratio = (only.finish(still, True)["inputs"]["video"]["content"] / plain)[plain.gt(0.02) & plain.lt(0.6)]
    assert 0.5 <= ratio.min() < 0.7 and 1.3 < ratio.max() <= 1.51
    mirrored = absent(horizontal_flip=True, mean=0.0, std=1.0).finish(still, True)["inputs"]["video"]["content"]
    flips = [torch.equal(clip, plain[0].flip(2)) for clip in mirrored]
    assert 0 < sum(flips) < 20 and all(torch.equal(c, plain[0]) for c, f in zip(mirrored, flips, strict=True) if not f)


def test_training_takes_random_pieces_and_evaluation_the_middle(tmp_path):
    for name in ("a", "b"):
        for i in range(6):
            write_clip(tmp_path / name / f"{i}.mkv", greys(np.arange(20, 240, 10)))  # 2.2 s
    options = {"frames": 4, "seconds": 0.4, "size": 8, "cache": "memory", "val_fraction": 0.3, "test_fraction": 0.2}
    data = made(VideoFolder, str(tmp_path), **options)
    starts = [
        round((int(clip[0, 0, 0, 0]) - 20) / 10) for clip in batch_of(data, "train")["inputs"]["video"]["content"]
    ]
    assert len(set(starts)) > 2 and min(starts) >= 0 and max(starts) <= 18
    middle = batch_of(data, "val")["inputs"]["video"]["content"][:, :, 0, 0, 0].int()
    assert (middle - torch.tensor([110, 120, 130, 140])).abs().max() <= 4
    several = made(VideoFolder, str(tmp_path), eval_clips=3, **options)
    batch = several.finish(batch_of(several, "val"), training=False)
    check_batch(batch, several.modalities)
    assert batch["example"].tolist() == [row for row in range(len(batch["name"]) // 3) for _ in range(3)]
    first = (batch["inputs"]["video"]["content"][:3, 0, 0, 0, 0] * 0.5 + 0.5) * 255
    assert (first - torch.tensor([20.0, 110.0, 200.0])).abs().max() <= 4
    assert "example" not in several.finish(batch_of(several, "train"), training=True)


def test_a_greater_rate_lets_a_piece_begin_between(tmp_path):
    for name in ("a", "b"):
        for i in range(10):
            write_clip(tmp_path / name / f"{i}.mkv", greys(np.arange(20, 220, 10)))
    firsts = {}
    for fps in (None, 10):
        data = VideoFolder(
            str(tmp_path),
            frames=2,
            seconds=1.0,
            fps=fps,
            test_fraction=0.2,
            val_fraction=0.2,
            pictures=Pictures(size=8),
        )
        clips = batch_of(data, "train")["inputs"]["video"]["content"][:, :, 0, 0, 0].int()
        assert ((clips[:, 1] - clips[:, 0] - 50).abs() <= 4).all()
        firsts[fps] = {round(int(level) / 10) for level in clips[:, 0]}
    assert len(firsts[None]) <= 3 < len(firsts[10])


@pytest.mark.parametrize("table", [True, False])
def test_it_trains_validates_tests_and_predicts(tmp_path, table):
    options = {**SMALL, "patch": [2, 4, 4], "cache": "disk", "cache_dir": str(tmp_path / "cache"), "batch_size": 4}
    if table:
        write_table(tmp_path, labels=("a,b", "b", ""), folds=("1", "2", "3"))
        options |= {"label_separator": ",", "test_fold": 1, "val_fold": 2, "eval_clips": 2, "seconds": 0.5}
        data = made(VideoTable, str(tmp_path / "table.csv"), predict_dir=str(tmp_path / "clips"), **options)
        assert data.multilabel and data.class_names == ["a", "b"]
    else:
        write_folder(tmp_path / "clips", 8, ".avi")
        options |= {"val_fraction": 0.3, "test_fraction": 0.2}
        data = made(VideoFolder, str(tmp_path / "clips"), predict_dir=str(tmp_path / "clips" / "dark"), **options)
    task = ClassificationTask(
        data.modalities, 2, data.class_names, data.multilabel, num_latents=2, latent_width=4, self_heads=1, bands=2
    )
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    names = [name for part in trainer.predict(task, data) for name in part["name"]]
    assert len(names) == len(set(names)) == (18 if table else 8)
    assert len(list((tmp_path / "cache").glob("*/about.json"))) == 3


# ---------------------------------------------------------------- folders and tables


def test_a_folder_is_split_and_labelled(tmp_path):
    write_folder(tmp_path, 8, ".avi", sound=False)
    data = made(VideoFolder, str(tmp_path), test_fraction=0.25, val_fraction=0.25, **SMALL)
    assert data.class_names == ["bright", "dark"]
    batches = {split: batch_of(data, split) for split in ("train", "val", "test")}
    names = [name for batch in batches.values() for name in batch["name"]]
    assert len(names) == len(set(names)) == 16 and len(batches["test"]["name"]) == 4
    for batch in batches.values():
        bright = batch["inputs"]["video"]["content"][:, 0, 0, 0, 0] > 120
        assert torch.equal(bright, batch["labels"] == 0)


def test_what_is_cached_is_what_is_read(tmp_path):
    write_folder(tmp_path / "train", 4, ".webm", sound=False)
    options = {**SMALL, "val_fraction": 0.3, "cache_dir": str(tmp_path / "cache")}
    found = [
        batch_of(made(VideoFolder, str(tmp_path), cache=cache, **options), "val")["inputs"]["video"]["content"]
        for cache in (None, "memory", "disk", "disk")
    ]
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_table_says_what_is_wrong(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(InputError, match=f"table: expected a CSV file, or a folder of them, found none at {path}"):
        VideoTable(str(path))
    assert VideoTable(str(path), num_classes=3).class_names == ["0", "1", "2"]
    write_table(tmp_path)
    with pytest.raises(InputError, match=f"{path}: expected the columns path, kind, fold, found path, label, fold"):
        VideoTable(str(path), label_column="kind")
    with pytest.raises(InputError, match=f"test_fold: expected one of train, val, the folds in {path}, found 2"):
        VideoTable(str(path), test_fold=2)
    with pytest.raises(InputError, match=f"test_fold: expected videos of test in {path}, found those of train, val"):
        VideoTable(str(path)).setup("test")
    (tmp_path / "clips" / "train-0-1.avi").unlink()
    absent_files = f"{path}: expected the files it names, found 1 of 4 absent, as {tmp_path}/clips/train-0-1.avi"
    with pytest.raises(InputError, match=absent_files):
        VideoTable(str(path)).setup("fit")
    data = made(VideoTable, str(path), skip_broken=True, **SMALL)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 7


# ---------------------------------------------------------------- bad input


def truncated(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])
    return path


@pytest.mark.parametrize(
    "suffix, options, sentence",
    [
        (".mp4", {}, "a video, found a file that cannot be decoded"),  # its table is at the end
        (".mp4", {"movflags": "faststart"}, "(3.00 s of video, as its header says|a video, found a file that cannot)"),
        (".avi", {}, r"\d+ bytes, as its header says, found \d+"),
        (".mkv", {}, "3.00 s of video, as its header says, found"),
        (".webm", {}, "3.00 s of video, as its header says, found"),
        (".gif", {}, "a whole GIF, found one that is cut short"),
    ],
    ids=["mp4", "mp4 with its table in front", "avi", "mkv", "webm", "gif"],
)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_file_that_is_cut_short_is_named(tmp_path, suffix, options, sentence, share):
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
    path = write_clip(tmp_path / f"a{suffix}", noise, **options)
    assert len(decoded(path)) == 30
    with pytest.raises(InputError, match=f"{path}: expected {sentence}"):
        decoded(truncated(path, share))


@pytest.mark.parametrize("suffix", [".gif", ".avi"])
def test_a_cut_anywhere_is_named(tmp_path, suffix):
    path = write_clip(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 10, len(whole) // 100):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"^{path}: expected"):
            decoded(path)


@pytest.mark.parametrize("suffix", [".gif", ".avi", ".mkv"])
@pytest.mark.parametrize("more", [b"", b"\0\0\0", b"\r\n"])
def test_bytes_behind_a_whole_file_do_not_matter(tmp_path, suffix, more):
    path = write_clip(tmp_path / f"a{suffix}", greys([0, 90, 180]))
    path.write_bytes(path.read_bytes() + more)
    assert len(decoded(path)) == 3


def test_a_gif_without_its_last_byte_is_whole(tmp_path):
    path = write_clip(tmp_path / "a.gif", greys([0, 90, 180]))
    path.write_bytes(path.read_bytes().removesuffix(b";"))
    assert len(decoded(path)) == 3


def test_an_avi_whose_writer_could_not_go_back(tmp_path):
    path = write_clip(tmp_path / "a.avi", greys([0, 90, 180] * 10))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 4 + whole[8:])
    assert len(decoded(path)) == 30


def test_a_picture_that_stays_long_hides_no_cut(tmp_path):
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8), [100] + [1] * 29, 0)
    path = write_clip(tmp_path / "a.mkv", still)
    with pytest.raises(InputError, match=r"12\.90 s of video, as its header says, found"):
        decoded(truncated(path, 0.5))


def test_what_is_no_video_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(InputError, match=f"^{path}: expected a video, found no file$"):
        decoded(path)
    for content in (b"", b"a text, not a video\n" * 20, bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}: expected a video, found a file that cannot be decoded"):
            decoded(path)


@pytest.mark.parametrize("cache", ["memory", "disk", None])
def test_broken_files_end_the_run_or_are_left_out_and_counted(tmp_path, caplog, cache):
    write_folder(tmp_path / "train", 6, ".mkv", sound=False)
    options = {**SMALL, "cache": cache, "cache_dir": str(tmp_path / "cache"), "val_fraction": 0.3}
    whole = batch_of(made(VideoFolder, str(tmp_path), **options), "train")
    assert len(whole["name"]) == 8
    silent = write_clip(tmp_path / "train" / "dark" / "1.mkv", None, sound=tone(0.8, 16000))
    with pytest.raises(InputError, match=f"^{silent}: expected video, found a file without$"):
        for split in ("train", "val"):
            batch_of(made(VideoFolder, str(tmp_path), **options), split)
    (tmp_path / "train" / "bright" / "4.mkv").write_bytes(b"nothing")
    data = made(VideoFolder, str(tmp_path), skip_broken=True, **options)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 10
    left_out = " ".join(message for message in caplog.messages if "left out" in message)
    assert "train/dark/1.mkv" in left_out and "train/bright/4.mkv" in left_out
    for split in ("train", "val"):  # the right clip to each name still
        batch = batch_of(data, split)
        assert torch.equal(batch["inputs"]["video"]["content"][:, 0, 0, 0, 0] > 120, batch["labels"] == 0)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"frames": 0}, "frames: expected an integer of at least 1, found 0"),
        ({"seconds": 0.0}, "seconds: expected the length of a clip, above 0, found 0.0"),
        ({"fps": 0.0}, "fps: expected null, or a number above 0, found 0.0"),
        ({"size": [8]}, r"size: expected an int or \[height, width\] of at least 1, found \[8\]"),
        ({"channels": 2}, "channels: expected 1 or 3, found 2"),
        ({"centre_crop": 0.0}, "centre_crop: expected null, or a number above 0 and up to 1, found 0.0"),
        ({"centre": (0.5, 1.5)}, r"centre: expected two shares from 0 to 1, found \(0.5, 1.5\)"),
        ({"patch": [1, 3, 4]}, r"patch: expected null, or .pictures, height, width. that divide the size \[8, 8\], fo"),
        ({"patch": [8, 8]}, "patch: expected null, or"),
        ({"mean": [0.5]}, r"mean: expected one number, or 3 \(channels\), found"),
        ({"std": 0.0}, r"std: expected one number above 0, or 3 \(channels\), found"),
        ({"time_shift": -1.0}, "time_shift: expected a number of at least 0, found -1.0"),
        ({"brightness": 2.0}, "brightness: expected a number from 0 to 1, found 2.0"),
        ({"eval_clips": 0}, "eval_clips: expected an integer of at least 1, found 0"),
    ],
)
def test_what_cannot_be_is_said(options, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        absent(**options)


@pytest.mark.parametrize(
    "class_path, init_args, kind",
    [
        ("VideoFolder", {"root": "nowhere", "num_classes": 2, "patch": [2, 8, 8], "cache": "disk"}, VideoFolder),
        ("VideoTable", {"table": "nowhere", "num_classes": 2, "label_separator": ",", "val_fold": 1}, VideoTable),
    ],
)
def test_all_are_made_from_a_config(class_path, init_args, kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    config = parser.parse_object({"data": {"class_path": class_path, "init_args": init_args}})
    assert type(parser.instantiate(config).data) is kind
    with pytest.raises(Exception, match="framess"):
        parser.parse_object({"data": {"class_path": class_path, "init_args": {**init_args, "framess": 8}}})


# ---------------------------------------------------------------- real data


@has_data
def test_real_clips_are_read_as_they_are():
    clips = sorted((DATA / "clips").glob("*.mp4"))[:3]
    for path in clips:
        found = decoded(path, fps=25, size=(128, 128))
        assert found.shape in ((75, 128, 128, 3), (74, 128, 128, 3))
        with av.open(str(path)) as container:
            raw = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert len(raw) == len(found) and np.abs(found.astype(int) - raw).mean() < 2
        small = decoded(path, fps=16 / 3, size=(48, 48))
        assert len(small) == 16 and 20 < small.std() < 100
