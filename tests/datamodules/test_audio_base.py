"""What all sound shares: facts, batches, positions in time, options."""

import pytest
import torch
from grouped import made
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import batch_of
from pytorch_lightning import Trainer
from sound_files import write_folder, write_sound, write_table
from torch import Tensor

from datamodules import AudioFolder, AudioTable
from datamodules.audio.spectrogram import Spectrogram
from datamodules.base import check_batch
from datamodules.common.collate import collate
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver
from perceiver_lightning.tasks.classification import ClassificationTask

WAVE = {"mels": None, "sample_rate": 8000, "seconds": 0.05}
MEL = {"mels": 8, "window": 64, "hop": 20, "sample_rate": 8000, "seconds": 0.05}
FORMS = {
    "samples": {**WAVE, "seconds": 0.01},
    "patches": {**WAVE, "patch": [16], "scale": [0.0, 0.1]},
    "patches that do not divide": {**WAVE, "patch": [47], "channels": 2},
    "mel": MEL,
    "mel patches": {**MEL, "patch": [3, 4], "channels": 2},
    "mel by numbers": {**MEL, "patch": [2, 2], "scale": [-5.0, 3.0]},
}


def absent(**options) -> AudioFolder:
    return made(AudioFolder, "nowhere", num_classes=2, **options)


def made_of(sounds: list[Tensor]) -> dict:
    return collate([{"inputs": {"audio": {"content": sound}}, "labels": 0} for sound in sounds])


@pytest.mark.parametrize(
    "options, channels, resolution",
    [
        ({"mels": None, "seconds": 1.28, "sample_rate": 48000, "patch": [128]}, 128, [480]),  # the paper's
        ({"mels": None, "seconds": 1.0, "sample_rate": 8000}, 1, [8000]),
        ({"mels": None, "seconds": 1.0, "sample_rate": 8000, "patch": [3], "channels": 2}, 6, [2667]),
        ({"mels": 64, "seconds": 1.0}, 1, [100, 64]),
        ({"mels": 40, "seconds": 0.995, "sample_rate": 8000, "hop": 80, "patch": [2, 4]}, 8, [50, 10]),
    ],
)
def test_facts_follow_from_the_settings(options, channels, resolution):
    assert absent(**options).modalities == {"audio": {"channels": channels, "resolution": resolution}}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_a_full_clip_has_the_whole_axis_and_the_facts_size(options):
    data = absent(**options)
    batch = data.finish(made_of([torch.randint(-9999, 9999, (data.length, data.channels)).short()] * 2), False)
    audio = batch["inputs"]["audio"]
    check_batch(batch, data.modalities)
    assert set(audio) == {"content"}
    assert list(audio["content"].shape[1:-1]) == data.modalities["audio"]["resolution"]


RELATIVE = {
    "relative waveform": {**WAVE, "relative_time": True},
    "relative mel": {**MEL, "patch": [3, 4], "relative_time": True},
}


@pytest.mark.parametrize("options", (FORMS | RELATIVE).values(), ids=FORMS | RELATIVE)
def test_a_padded_clip_gives_the_very_output_that_it_gives_alone(options):
    data = absent(**options)
    torch.manual_seed(0)
    model = Perceiver(
        data.modalities, 3, num_latents=4, latent_width=8, cross_attends=[1, 1], self_attends=1, self_heads=2, bands=4
    ).eval()

    @settings(max_examples=12)
    @given(st.lists(st.integers(1, data.length), min_size=2, max_size=4))
    def check(lengths: list[int]) -> None:
        sounds = [(torch.randn(length, data.channels) * 3000).short() for length in lengths]
        batch = data.finish(made_of(sounds), training=False)
        check_batch(batch, data.modalities)
        with torch.no_grad():
            together = model(batch["inputs"])
            alone = torch.cat([model(data.finish(made_of([sound]), False)["inputs"]) for sound in sounds])
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)

    check()


def test_positions_are_times_whatever_the_clips_length():
    data = absent(**MEL)
    batch = data.finish(made_of([torch.ones(100, 1).short(), torch.ones(250, 1).short()]), False)["inputs"]["audio"]
    frames, bands = batch["positions"]
    assert torch.equal(frames, torch.linspace(-1, 1, 20)[:13]) and torch.equal(bands, torch.linspace(-1, 1, 8))
    assert batch["mask"].shape == (2, 13, 8)
    assert batch["mask"].all(2).sum(1).tolist() == [5, 13]
    assert batch["content"][0, 5:].eq(0).all()


def test_relative_time_goes_from_each_clips_start_to_its_own_end():
    data = absent(**MEL, relative_time=True)
    sounds = [torch.ones(length, 1).short() for length in (1, 100, 250)]
    batch = data.finish(made_of(sounds), False)["inputs"]["audio"]
    frames, bands = batch["positions"]
    for row, count in zip(frames, (1, 5, 13), strict=True):
        torch.testing.assert_close(row[:count], torch.linspace(-1, 1, count))
        assert row.max() <= 1
    assert torch.equal(bands, torch.linspace(-1, 1, 8))
    assert batch["mask"].all(2).sum(1).tolist() == [1, 5, 13]


AUGMENTED = {"time_shift": 0.01, "speed": 0.2, "gain": 6.0, "noise": [5.0, 20.0]}


@pytest.mark.parametrize(
    "options",
    [
        {**WAVE, **AUGMENTED, "patch": [16], "mixup": 0.4},
        {**MEL, **AUGMENTED, "mixup": 0.4, "equaliser": 6.0, "spec_augment": [1, 4, 2, 2]},
        {**MEL, **AUGMENTED, "spec_augment": [1, 4, 2, 2], "patch": [2, 2], "channels": 2, "balanced_sampling": True},
    ],
    ids=["wave", "mel", "balanced"],
)
def test_training_is_augmented_within_each_clip_and_evaluation_never(tmp_path, options):
    write_folder(tmp_path / "train", 6)
    data = made(AudioFolder, str(tmp_path), val_fraction=0.3, cache="memory", **options)
    raw = batch_of(data, "train")
    first, second = (data.finish(raw, training=True) for _ in range(2))
    check_batch(first, data.modalities)
    assert not torch.equal(first["inputs"]["audio"]["content"], second["inputs"]["audio"]["content"])
    assert (first["labels"].ndim == 2) == ("mixup" in options)
    plain, again = (data.finish(batch_of(data, "val"), training=False) for _ in range(2))
    assert torch.equal(plain["inputs"]["audio"]["content"], again["inputs"]["audio"]["content"])
    audio = first["inputs"]["audio"]
    assert "mask" not in audio or audio["content"][~audio["mask"]].eq(0).all()


def test_spec_augment_hides_whole_frames_and_bands_with_the_mean():
    data = absent(**MEL, spec_augment=[1, 8, 1, 4])
    raw = made_of([(torch.randn(data.length, 1) * 3000).short() for _ in range(40)])
    hidden = data.finish(raw, training=True)["inputs"]["audio"]["content"].eq(0).squeeze(-1)
    frames, bands = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert 0 < frames.max() < 8 and 0 < bands.max() < 4
    assert len(frames.unique()) > 3  # other ones in each clip
    assert not data.finish(raw, training=False)["inputs"]["audio"]["content"].eq(0).any()


def test_several_clips_of_a_file_are_rows_of_one_example(tmp_path):
    write_folder(tmp_path, 10)
    data = AudioFolder(
        str(tmp_path), seconds=0.03, sample_rate=8000, eval_clips=3, spectrogram=Spectrogram(mels=8, window=64, hop=20)
    )
    batch = data.finish(batch_of(data, "val"), training=False)
    check_batch(batch, data.modalities)
    files = len(set(batch["name"]))
    assert batch["example"].tolist() == [row for row in range(files) for _ in range(3)]
    assert batch["labels"].tolist() == [label for label in batch["labels"][::3].tolist() for _ in range(3)]
    assert "example" not in data.finish(batch_of(data, "train"), training=True)
    task = ClassificationTask(data.modalities, 2, num_latents=2, latent_width=4, self_heads=1, bands=2).eval()
    predicted = task.predict_step({key: batch[key] for key in batch if key != "labels"}, 0)
    assert predicted["name"] == batch["name"][::3]
    with torch.no_grad():
        each = task(batch["inputs"]).softmax(-1)
    torch.testing.assert_close(predicted["predictions"], each.unflatten(0, (-1, 3)).mean(1))


@pytest.mark.parametrize("table", [True, False])
def test_it_trains_validates_tests_and_predicts(tmp_path, table):
    options = {**MEL, "cache": "disk", "cache_dir": str(tmp_path / "cache"), "eval_clips": 2, "batch_size": 4}
    if table:
        write_table(tmp_path, labels=("a,b", "b", ""), folds=("1", "2", "3"))
        options |= {"label_separator": ",", "test_fold": 1, "val_fold": 2}
        data = made(AudioTable, str(tmp_path / "table.csv"), predict_dir=str(tmp_path / "clips"), **options)
        assert data.multilabel and data.class_names == ["a", "b"]
    else:
        write_folder(tmp_path / "sounds", 10)
        data = made(AudioFolder, str(tmp_path / "sounds"), predict_dir=str(tmp_path / "sounds" / "low"), **options)
    task = ClassificationTask(
        data.modalities, 2, data.class_names, data.multilabel, num_latents=2, latent_width=4, self_heads=1, bands=2
    )
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    predictions = trainer.predict(task, data)
    names = [name for part in predictions for name in part["name"]]
    assert len(names) == len(set(names)) == (36 if table else 10)
    assert len(list((tmp_path / "cache").glob("*/about.json"))) == 3


def test_a_silent_and_a_very_short_clip_are_finite(tmp_path):
    write_folder(tmp_path / "train", 4)
    write_sound(tmp_path / "train" / "low" / "short.wav", seconds=1 / 8000)
    write_sound(tmp_path / "train" / "low" / "silent.wav", pitch=0.0)
    for options in (WAVE, MEL):
        data = made(AudioFolder, str(tmp_path), val_fraction=0.3, noise=[0, 10], gain=3, **options)
        for training in (True, False):
            check_batch(data.finish(batch_of(data, "train"), training), data.modalities)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"channels": 3}, "channels: expected 1 or 2, found 3"),
        ({"seconds": 0.0}, "seconds: expected the length of a clip, a sample at least, found 0.0"),
        ({"patch": [4]}, r"patch: expected null, or \[frames, bands\] of at least 1, found \[4\]"),
        ({"mels": None, "patch": [2, 2]}, r"patch: expected null, or \[samples\] of at least 1, found \[2, 2\]"),
        ({"patch": [1, 5]}, "mels: expected a multiple of 5, as patch has it, found 64"),
        ({"frequencies": [0, 9000]}, "frequencies: expected null, or .* of 0 to 8000, half of sample_rate, found"),
        ({"scale": [0.0, 0.0]}, "scale: expected null, train, or .mean, standard deviation above 0., found"),
        ({"noise": [20, 10]}, r"noise: expected null, or \[low, high\] decibels, found \[20, 10\]"),
        ({"spec_augment": [1, 2]}, "spec_augment: expected null, or .time masks, frames, frequency masks, bands."),
        ({"spec_augment": [1, 2, 1, 2], "mels": None}, "spec_augment: expected null, as mels is"),
        ({"equaliser": -1.0}, "equaliser: expected a number of at least 0, found -1.0"),
        ({**WAVE, "equaliser": 1.0}, "equaliser: expected 0, as mels is null, found 1.0"),
        ({"gain": -1.0}, "gain: expected a number of at least 0, found -1.0"),
        (
            {"window": 100},
            "mels: expected bands that a window of 100 samples can tell apart, found 64 of them",
        ),
        ({"speed": 1.0}, "speed: expected a number of at least 0 and below 1, found 1.0"),
        ({"hop": 0}, "hop: expected a whole number of samples, or below 1 so many seconds, found 0"),
        ({"val_fraction": 1.0}, "val_fraction: expected a number between 0 and 1, found 1.0"),
        (
            {"multilabel": True, "balanced_sampling": True},
            "balanced_sampling: expected false, as examples have",
        ),
    ],
)
def test_what_cannot_be_is_said(options, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        if "multilabel" in options:
            AudioTable("nowhere.csv", label_separator=",", num_classes=2, balanced_sampling=True)
        else:
            absent(**options)


@pytest.mark.parametrize("rate, window, hop", [(16000, 512, 160), (8000, 256, 80), (44100, 1411, 441)])
def test_windows_and_hops_may_be_seconds(rate, window, hop):
    sound = torch.randn(1, rate, 1)
    seconds, samples = Spectrogram(40, 0.032, 0.01), Spectrogram(40, window, hop)
    by_seconds, by_samples = (one.log_mel(rate, 4)(sound) for one in (seconds, samples))
    assert torch.equal(by_seconds, by_samples) and by_seconds.shape == (1, 100, 40, 1)
    with pytest.raises(InputError, match="hop: expected a whole number of samples, or below 1 so many seconds"):
        Spectrogram(40, 400, 160.5).log_mel(rate, 4)
