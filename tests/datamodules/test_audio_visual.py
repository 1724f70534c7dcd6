"""Clips with sound: cut from the same seconds, one modality or both, missing ones, dropout, noise; GRID's labels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import fails
from grouped import made
from image_files import batch_of
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer
from sound_files import tone
from video_clips import greys, write_clip, write_folder, write_grid

from datamodules import GRID, AudioVisualFolder
from datamodules.audio_visual.base import with_noise
from datamodules.audio_visual.grid import SENTENCES
from datamodules.base import DataModule, check_batch
from datamodules.video.reading import decode_sound
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver
from perceiver_lightning.tasks.classification import ClassificationTask

DATA = Path(os.environ.get("PERCEIVER_DATA", "data")) / "audiovisual" / "grid-s1"
has_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no {DATA}: unpack GRID's clips there or name its folder's parent in PERCEIVER_DATA"
)
SMALL = {
    "seconds": 0.8,
    "video": {"frames": 4, "size": 8, "patch": [2, 4, 4]},
    "audio": {"sample_rate": 8000, "mels": 8, "window": 128, "hop": 80, "patch": [2, 2]},
}
RAW = {  # unchanged values
    "video": {"frames": 8, "size": 8, "mean": 0.0, "std": 1.0},
    "audio": {"sample_rate": 8000, "mels": None, "scale": [0.0, 1.0]},
}


def folder(root: Path, **options) -> AudioVisualFolder:
    return made(AudioVisualFolder, str(root), **{**SMALL, "val_fraction": 0.3, "test_fraction": 0.2, **options})


def finished(data: DataModule, split: str, training: bool = False) -> dict:
    batch = data.finish(batch_of(data, split), training)
    check_batch(batch, data.modalities)
    return batch


def flat(inputs: dict) -> dict:
    return {f"{name} {key}": value for name, part in inputs.items() for key, value in part.items()}


# ---------------------------------------------------------------- sound of a file


@pytest.mark.parametrize("suffix, tolerance", [(".mkv", 2e-3), (".avi", 2e-3), (".mp4", 0.1), (".webm", 0.1)])
@pytest.mark.parametrize("rate", [16000, 8000, 44100])
def test_sound_is_decoded_at_its_time_and_rate(tmp_path, suffix, tolerance, rate):
    sound = np.concatenate([np.zeros((4000, 1), np.float32), tone(1.0, 16000)])
    path = write_clip(tmp_path / f"a{suffix}", greys([50] * 12), sound=sound)
    found = decode_sound(path, rate, 1)
    assert found.dtype == np.int16 and abs(len(found) / rate - 1.25) < 0.07
    expected = tone(1.0, rate)
    start, middle = rate // 4, slice(rate // 10, rate // 2)
    assert np.abs(found[start:][middle] / 32768 - expected[middle]).max() < tolerance
    assert np.abs(found[: start - rate // 20]).max() < 330
    assert decode_sound(path, rate, 2).shape == (len(found), 2)


# ---------------------------------------------------------------- both


@pytest.mark.slow
def test_sound_and_pictures_are_of_the_same_seconds(tmp_path):
    """In each file a tone begins when the picture gets bright: so it must in every clip, wherever it is cut."""
    for k, name in enumerate(("a", "b")):
        for i in range(10):
            begin = 8 + k + i % 4
            levels = [20] * begin + [220] * (20 - begin)
            sound = np.concatenate([np.zeros((1600 * begin, 1), np.float32), tone((20 - begin) / 10, 16000, 500.0)])
            write_clip(tmp_path / name / f"{i}.mkv", greys(levels), sound=sound)
    for options in ({}, {"time_shift": 0.3}, {"cache": "memory"}, {"eval_clips": 3}):
        raw = {**RAW, "video": {**RAW["video"], "frames": 16, "fps": 80}}
        data = folder(tmp_path, **{**raw, "seconds": 1.6, **options})
        begins = []
        for split in ("train", "val"):
            inputs = finished(data, split)["inputs"]
            bright = inputs["video"]["content"][:, :, 4, 4, 0] > 0.5
            loud = inputs["audio"]["content"].abs().unflatten(1, (16, -1)).flatten(2).amax(2) > 0.05
            # They may differ by the part in which it begins.
            assert (bright.float().argmax(1) - loud.float().argmax(1)).abs().max() <= 1
            begins += bright.float().argmax(1).tolist()
        assert len(set(begins)) > 3


def test_one_or_both_are_one_line(tmp_path):
    write_folder(tmp_path / "clips", 6, ".mkv")
    both = folder(tmp_path / "clips", cache="disk", cache_dir=str(tmp_path / "cache"))
    assert both.modalities == {
        "video": {"channels": 96, "resolution": [2, 2, 2]},
        "audio": {"channels": 4, "resolution": [40, 4]},
    }
    whole = finished(both, "val")
    for name in ("video", "audio"):
        one = folder(tmp_path / "clips", modalities=[name], cache="disk", cache_dir=str(tmp_path / "cache"))
        assert one.modalities == {name: both.modalities[name]}
        batch = finished(one, "val")
        assert batch["name"] == whole["name"]
        assert torch.equal(batch["inputs"][name]["content"], whole["inputs"][name]["content"])
    assert len(list((tmp_path / "cache").glob("*/about.json"))) == 4  # a track of a split each: shared


@pytest.mark.parametrize("eval_clips", [1, 3])
@pytest.mark.parametrize("cache", [None, "disk"])
def test_a_clip_may_lack_either(tmp_path, eval_clips, cache):
    root = tmp_path / "clips"
    write_folder(root, 6, ".mkv", frames=20)
    for name in ("bright", "dark"):
        write_clip(root / name / "0.mkv", greys([90] * 10))
        write_clip(root / name / "1.mkv", None, sound=tone(0.7, 16000))
        write_clip(root / name / "2.mkv", greys([90] * 9), sound=tone(1.9, 16000))
    options = {"eval_clips": eval_clips, "cache": cache, "cache_dir": str(tmp_path / "cache")}
    data = folder(root, **options, val_fraction=0.5)
    torch.manual_seed(0)
    model = Perceiver(
        data.modalities, 3, num_latents=4, latent_width=8, cross_attends=[1, 1], self_attends=1, self_heads=2, bands=4
    ).eval()
    lacking = 0
    for split in ("train", "val", "test"):
        batch = finished(data, split)
        own = 1 if split == "train" else eval_clips
        there = {name: part.get("mask", torch.ones(len(batch["name"]), 1)) for name, part in batch["inputs"].items()}
        for row, name in enumerate(batch["name"]):
            stem = Path(name).stem
            if stem in "01":
                lacking += 1
                assert there["audio"][row].any() == (stem == "1") and there["video"][row].any() == (stem == "0")
        with torch.no_grad():
            together = model(batch["inputs"])
            if split != "train":
                data.batch_size = 1
                for row, one in enumerate(data.loader(split)):
                    alone = data.finish(one, training=False)
                    assert set(alone["inputs"]) == {"video", "audio"} - {
                        {"0": "audio", "1": "video"}.get(Path(alone["name"][0]).stem)
                    }
                    rows = slice(row * own, (row + 1) * own)
                    torch.testing.assert_close(model(alone["inputs"]), together[rows], atol=2e-5, rtol=1e-4)
    assert lacking >= 4


def test_a_modality_is_dropped_in_training_alone_and_never_the_only_one(tmp_path):
    write_folder(tmp_path, 8, ".mkv", vary=1)
    for name in ("bright", "dark"):
        for i in (0, 1, 2):
            write_clip(tmp_path / name / f"{i}.mkv", greys([90] * 10))
    data = folder(tmp_path, modality_dropout={"video": 0.5}, cache="memory")
    silent = torch.tensor([Path(name).stem in "012" for name in batch_of(data, "train")["name"]])
    torch.manual_seed(0)
    dropped = 0
    for _ in range(30):
        inputs = finished(data, "train", training=True)["inputs"]
        video, audio = (inputs[name]["mask"].flatten(1).any(1) for name in ("video", "audio"))
        assert torch.equal(audio, ~silent) and video[silent].all()
        dropped += int((~video).sum())
    assert abs(dropped / (30 * int((~silent).sum())) - 0.5) < 0.15
    assert "mask" not in finished(data, "train", training=False)["inputs"]["video"]


def test_noise_has_its_level_in_training_and_evaluation(tmp_path):
    pictures = greys([60] * 10)
    pictures[:, :, 16:] = 190
    for name in ("a", "b"):
        for i in range(6):
            write_clip(tmp_path / name / f"{i}.mkv", pictures, sound=tone(1.0, 16000, 200.0 * (i + 1)))
    options = {**RAW, "cache": "memory", "seconds": 1.0}
    clean = folder(tmp_path, **options)
    noisy = folder(tmp_path, noise={"video": 0.2, "audio": 0.5}, **options)
    for split in ("train", "val"):
        before, after = finished(clean, split)["inputs"], finished(noisy, split)["inputs"]
        added = {name: after[name]["content"] - before[name]["content"] for name in before}
        loudness = [part.square().mean((1, 2)) for part in (before["audio"]["content"], added["audio"])]
        levels = (loudness[1] / loudness[0]).sqrt()
        if split == "val":
            assert abs(added["video"].std() / before["video"]["content"].std() - 0.2) < 0.01
            assert (levels - 0.5).abs().max() < 0.02
        else:
            assert levels.max() < 0.52 and levels.std() > 0.05 and added["video"].any()
        again = finished(noisy, split)["inputs"]
        same = all(torch.equal(after[name]["content"], again[name]["content"]) for name in after)
        assert same == (split == "val")
    state = torch.random.get_rng_state()
    first = noisy.val_set[0]["inputs"]
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(first["audio"]["content"], noisy.val_set[1]["inputs"]["audio"]["content"])
    quiet = folder(tmp_path, noise={"audio": 0.5}, modalities=["audio"], **options)
    assert torch.equal(finished(quiet, "val")["inputs"]["audio"]["content"], after["audio"]["content"])


@pytest.mark.parametrize("eval_clips", [1, 2])
def test_noise_keeps_off_what_is_missing(tmp_path, eval_clips):
    write_folder(tmp_path / "val", 3, ".mkv", frames=12)
    write_folder(tmp_path / "train", 3, ".mkv")
    write_clip(tmp_path / "val" / "dark" / "0.mkv", greys([90] * 5))
    write_clip(tmp_path / "val" / "dark" / "1.mkv", greys([90] * 12), sound=tone(0.3, 16000))
    data = folder(tmp_path, noise={"video": 0.3, "audio": 1.0}, eval_clips=eval_clips)
    for part in finished(data, "val")["inputs"].values():
        assert part["content"][~part["mask"]].eq(0).all()


def test_it_trains_validates_tests_and_predicts(tmp_path):
    write_grid(tmp_path)
    data = made(
        GRID,
        "color",
        str(tmp_path),
        centred=False,
        val_fraction=0.25,
        modality_dropout={"video": 0.3},
        batch_size=4,
        predict_dir=str(tmp_path / "clips"),
        **{**SMALL, "seconds": 0.6, "eval_clips": 2, "noise": {"audio": 0.5}},
    )
    task = ClassificationTask(
        data.modalities, 4, data.class_names, num_latents=2, latent_width=4, self_heads=1, bands=2
    )
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert len([name for part in trainer.predict(task, data) for name in part["name"]]) == 20


# ---------------------------------------------------------------- GRID


@pytest.mark.slow
@pytest.mark.parametrize("label", ["color", "letter"])
def test_grid_has_its_splits_and_labels(tmp_path, label):
    write_grid(tmp_path, label, count=2)
    data = made(GRID, label, str(tmp_path), val_fraction=0.5, **SMALL)
    assert data.class_names == SENTENCES[label] and data.num_classes == {"color": 4, "letter": 25}[label]
    names = []
    for split in ("train", "val", "test"):
        batch = batch_of(data, split)
        assert sorted(batch["labels"].tolist()) == list(range(data.num_classes))  # the same share of each
        assert [name[:-1] for name in batch["name"]] == [data.class_names[k] for k in batch["labels"]]
        level = batch["inputs"]["video"]["content"][:, 0, 0, 0, 0].int()
        assert ((level - 20 - 8 * batch["labels"]).abs() <= 4).all()  # the right file
        names += batch["name"]
    assert len(names) == len(set(names)) == 3 * data.num_classes


@pytest.mark.slow
@pytest.mark.parametrize("label, first", [("command", 0), ("color", 0), ("letter", 3), ("digit", 4), ("adverb", 4)])
@pytest.mark.parametrize("cache", [None, "memory"])
def test_centred_clips_lie_about_their_word(tmp_path, label, first, cache):
    """Of eight pictures, each brighter than the last, those of the 0.4 s about a word said at 0.1, ..., 0.7 s."""
    write_grid(tmp_path, label, count=2)
    for path in (tmp_path / "clips").iterdir():
        sound = np.concatenate([tone(0.1, 16000) * (i + 1) / 8 for i in range(8)])
        write_clip(path, greys(np.arange(20, 180, 20), (16, 16)), sound=sound)
    options = {"seconds": 0.4, "video": {**RAW["video"], "frames": 4}, "audio": RAW["audio"], "cache": cache}
    data = made(GRID, label, str(tmp_path), centred=True, val_fraction=0.5, **options)
    for split in ("train", "val", "test"):
        inputs = finished(data, split, training=split == "train")["inputs"]
        seen = inputs["video"]["content"][:, :, 4, 4, 0] * 255
        assert (seen - 20 * torch.arange(first + 1, first + 5)).abs().max() < 6
        loud = inputs["audio"]["content"][..., 0].unflatten(1, (4, -1))[:, :, 200:600].abs().amax(2)
        if label == "adverb":
            continue  # at the end of the file, to which AAC adds a little silence
        assert (loud / loud[:, -1:] - torch.arange(first + 1, first + 5) / (first + 4)).abs().max() < 0.05
    with pytest.raises(InputError, match=r"^eval_clips: expected 1 for clips that are centred, found 2"):
        made(GRID, label, str(tmp_path), centred=True, eval_clips=2, **options)
    table = tmp_path / "index.csv"
    whole = table.read_text()
    word, place = SENTENCES[label][0], list(SENTENCES).index(label)
    for span, other in ((f"{word}:{1 + 3 * place}", f"sp:{1 + 3 * place}"), (f";{word}:", ";word:")):
        table.write_text(whole.replace(span, other))
        said = f"expected alignment_video_frames of 6 words, with '{word}' as number {place + 1}, found 'sil"
        with pytest.raises(InputError, match=f"^{table}, .*: {said}"):
            made(GRID, label, str(tmp_path), centred=True, **options).setup("fit")
    table.write_text(whole.replace("alignment_video_frames", "alignment"))
    with pytest.raises(InputError, match=r"expected the columns .*alignment_video_frames, found"):
        made(GRID, label, str(tmp_path), centred=True, **options).setup("fit")


def test_grid_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"index.csv: expected a CSV file, found one that cannot be read"):
        GRID("color", str(tmp_path / "nowhere")).setup("fit")
    write_grid(tmp_path)
    table = tmp_path / "index.csv"
    whole = table.read_text()
    for text, sentence in (
        (
            whole.replace("color", "colour"),
            f"{table}: expected the columns clip, split, color, alignment_video_frames, found",
        ),
        (whole.replace(",train,", ",dev,"), f"{table}: expected clips of the split train, found none"),
        (whole.replace(",red,", ",pink,"), f"{table}, red0: expected a color of GRID's, found 'pink'"),
        (whole.replace("red1", "red9"), f"{table}: expected the files it names, found 1 of 16 absent, as .*/red9.mp4"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=f"^{sentence}"):
            GRID("color", str(tmp_path)).setup("fit")
    data = made(GRID, "color", str(tmp_path), skip_broken=True, cache="memory", val_fraction=0.3, **SMALL)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 15


def test_a_broken_file_is_named_or_left_out(tmp_path, caplog):
    write_folder(tmp_path / "train", 4, ".mkv")
    path = write_clip(tmp_path / "train" / "dark" / "1.mkv", greys([50] * 8))
    for cache in ("memory", None):
        options = {"modalities": ["audio"], "cache": cache}
        with pytest.raises(InputError, match=f"^{path}: expected audio, found a file without$"):
            for split in ("train", "val"):
                batch_of(folder(tmp_path, **options), split)
        caplog.clear()
        data = folder(tmp_path, skip_broken=True, **options)
        data.setup("fit")
        assert len(data.train_set) + len(data.val_set) == 7
        assert "left out 1 of" in caplog.messages[-1] and "['train/dark/1.mkv']" in caplog.messages[-1]
    (tmp_path / "train" / "bright" / "2.mkv").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bright/2.mkv: expected a video, found a file that cannot be decoded"):
        for split in ("train", "val"):
            batch_of(folder(tmp_path, cache="memory"), split)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"modalities": ["sound"]}, r"modalities: expected .video., .audio. or .video, audio., found \['sound'\]"),
        ({"modalities": ["audio", "audio"]}, "modalities: expected"),
        ({"modality_dropout": {"video": 1.5}}, "modality_dropout: expected shares that add up to 1 at most, found"),
        ({"noise": {"sound": 1.0}}, "noise: expected numbers of at least 0 for video and audio, found"),
        ({"modalities": []}, r"modalities: expected .video., .audio. or .video, audio., found \[\]"),
        ({"noise": {"audio": 0.1, "video": float("nan")}}, "noise: expected numbers of at least 0 for video and audio"),
        (
            {"video": {"patch": [1, 5, 5]}},
            "video.patch: expected null, or .pictures, height, width. that divide the size",
        ),
        ({"audio": {"mels": 0}}, "audio.mels: expected a multiple of 1"),
        ({"audio": {"speed": 0.1}}, "audio.speed: expected 0, as sound and pictures are changed together, found 0.1"),
        ({"audio": {"mixup": 0.1}}, "audio.mixup: expected 0, as sound and pictures are changed together, found 0.1"),
        ({"video": {"time_shift": 0.1}}, "video.time_shift: expected 0, as sound and pictures are changed together"),
        ({"time_shift": -1.0}, "time_shift: expected a number of at least 0, found -1.0"),
        ({"seconds": 0.0}, "seconds: expected the length of a clip, above 0, found 0.0"),
        ({"eval_clips": 0}, "eval_clips: expected an integer of at least 1, found 0"),
    ],
)
def test_what_cannot_be_is_said(options, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        made(AudioVisualFolder, "nowhere", num_classes=2, **options)


def test_all_are_made_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    parts = {
        "seconds": 0.8,
        "video": {"frames": 4, "pictures": {"size": 8}, "patch": [2, 4, 4]},
        "audio": {"spectrogram": {"mels": 8, "window": 256}, "augment": {"gain": 3.0}},
    }
    init_args = {"label": "letter", **parts, "modalities": ["video"], "modality_dropout": {"video": 0.3}}
    config = parser.parse_object({"data": {"class_path": "GRID", "init_args": init_args}})
    data = parser.instantiate(config).data
    assert type(data) is GRID and data.modalities == {"video": {"channels": 96, "resolution": [2, 2, 2]}}
    given = parser.parse_args(
        [
            "--data=GRID",
            "--data.label=color",
            "--data.modalities=[audio]",
            "--data.audio={spectrogram: {mels: 20, window: 512}}",
        ]
    )
    assert parser.instantiate(given).data.modalities["audio"]["resolution"] == [300, 20]
    for wrong in ({"label": "noun"}, {"label": "color", "modalities": ["sound"]}, {"label": "color", "videos": 3}):
        with pytest.raises(Exception, match=r"noun|sound|videos"):
            parser.parse_object({"data": {"class_path": "GRID", "init_args": wrong}})


# ---------------------------------------------------------------- real data


@has_data
def test_real_sentences():
    data = made(GRID, "letter", str(DATA), val_fraction=0.15, **{**SMALL, "seconds": 3.0, "audio": {}})
    data.setup("fit")
    data.setup("test")
    assert [len(split) for split in (data.train_set, data.val_set, data.test_set)] == [408, 72, 120]
    assert min(data.class_counts()) >= 10
    for label, count in {"command": 4, "color": 4, "preposition": 4, "digit": 10, "adverb": 4}.items():
        other = GRID(label, str(DATA))
        other.setup("fit")
        assert len(other.class_counts()) == count and min(other.class_counts()) > 0
    data.batch_size = 4
    batch = data.finish(next(iter(data.train_dataloader())), training=True)
    check_batch(batch, data.modalities)
    assert batch["inputs"]["audio"]["content"].shape[1:] == (300, 64, 1)
    assert batch["inputs"]["audio"]["content"].std() > 0.5


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("video={patch: 3}", "data.init_args.video.patch: expected list or null, found 3"),
        ("video={patch: 3, augment: {brightness: .nan}}", "data.init_args.video: expected list or null, found 3"),
        (
            "video={augment: {horizontal_flip: maybe}}",
            "data.init_args.video.augment.horizontal_flip: expected true or false",
        ),
        ("audio={augment: {noise: 0.5}}", "data.init_args.audio.augment.noise: expected list or null, found 0.5"),
        ("video={frame: 8}", "data.init_args.video.frame: there is no such key; did you mean frames?"),
        ("audio={seconds: 1}", "data.init_args.audio.seconds: there is no such key"),
    ],
)
def test_types_and_keys_of_one_modality_are_checked(capsys, given, sentence):
    config = "--config=configs/audio_visual/grid_letter.yaml"
    assert fails(capsys, "summary", config, f"--data.init_args.{given}").startswith(sentence)


def test_noise_of_several_modalities_is_drawn_in_one_order(monkeypatch):
    drawn = []
    monkeypatch.setattr("datamodules.audio_visual.base.noisy", lambda content, level, generator: drawn.append(level))
    example = {"inputs": {"video": {"content": None}, "audio": {"content": None}}, "name": "x"}
    for levels in ({"video": 1.0, "audio": 2.0}, {"audio": 2.0, "video": 1.0}):
        drawn.clear()
        with_noise(example, levels, training=True)
        assert drawn == list(levels.values())
