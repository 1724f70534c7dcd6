"""Sets of sound: spoken digits, environmental sounds, spoken words, folders and tables."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from grouped import made
from image_files import batch_of
from jsonargparse import ArgumentParser
from sound_files import (
    write_esc10,
    write_esc50,
    write_folder,
    write_fsdd,
    write_sound,
    write_speech_commands,
    write_table,
)

from datamodules import ESC, FSDD, AudioFolder, AudioTable, SpeechCommands
from datamodules.audio.esc import ESC10, ESC50
from datamodules.audio.spectrogram import Spectrogram
from datamodules.audio.speech_commands import WORDS
from datamodules.base import DataModule, check_batch
from perceiver_lightning.errors import InputError

DATA = Path(os.environ.get("PERCEIVER_DATA", "data")) / "audio"
has_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no {DATA}: unpack the sound there or name its folder's parent in PERCEIVER_DATA"
)


def names_of(data: DataModule) -> dict[str, list[str]]:
    return {split: batch_of(data, split)["name"] for split in ("train", "val", "test")}


def are_apart(names: dict[str, list[str]], count: int):
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == count


# ---------------------------------------------------------------- spoken digits


def test_fsdd_official_split(tmp_path):
    write_fsdd(tmp_path, takes=(0, 4, *range(5, 10)))
    data = FSDD(str(tmp_path), val_fraction=0.2)
    names = names_of(data)
    are_apart(names, 10 * 6 * 7)
    assert sorted(names["test"]) == sorted(f for f in os.listdir(tmp_path) if f.endswith(("_0.wav", "_4.wav")))
    shares = [tuple(name.split("_")[:2]) for name in names["val"]]
    assert len(shares) == len(set(shares)) == 60  # of each speaker's each digit
    assert batch_of(data, "test")["labels"].tolist() == [int(name[0]) for name in names["test"]]
    assert names == names_of(FSDD(str(tmp_path), val_fraction=0.2))
    assert names["val"] != names_of(FSDD(str(tmp_path), val_fraction=0.2, split_seed=1))["val"]


def test_fsdd_with_speakers_held_out(tmp_path):
    write_fsdd(tmp_path)
    speakers = {
        split: {name.split("_")[1] for name in names}
        for split, names in names_of(FSDD(str(tmp_path), test_speakers=["theo", "yweweler"], val_fraction=0.2)).items()
    }
    others = {"george", "jackson", "lucas", "nicolas"}
    assert speakers == {"train": others, "val": others, "test": {"theo", "yweweler"}}
    names = names_of(FSDD(str(tmp_path), test_speakers=["theo"], val_speakers=["lucas"]))
    are_apart(names, 300)
    assert {name.split("_")[1] for name in names["val"]} == {"lucas"}
    assert "lucas" not in {name.split("_")[1] for name in names["train"]}


def test_fsdd_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=f"root: expected a folder of .* found none in {tmp_path}/nowhere"):
        FSDD(str(tmp_path / "nowhere")).setup("fit")
    with pytest.raises(InputError, match=r"test_speakers: expected names of george, .*, found Theo"):
        FSDD(test_speakers=["Theo"])
    with pytest.raises(InputError, match=r"val_speakers: expected none of test_speakers, found \['theo'\]"):
        FSDD(test_speakers=["theo"], val_speakers=["theo"])
    write_sound(tmp_path / "seven.wav")
    with pytest.raises(InputError, match=f"{tmp_path}/seven.wav: expected <digit>_<speaker>_<index>.wav of george"):
        FSDD(str(tmp_path)).setup("fit")


# ---------------------------------------------------------------- environmental sounds


@pytest.mark.slow
@pytest.mark.parametrize("release", ["esc10", "esc50", "esc50's ten"])
def test_esc_folds_and_recordings_stay_apart(tmp_path, release):
    (write_esc10 if release == "esc10" else write_esc50)(tmp_path)
    classes = 50 if release == "esc50" else 10
    for fold in (1, 5):
        data = ESC(str(tmp_path), classes, test_fold=fold, val_fraction=0.25, sample_rate=8000)
        names = names_of(data)
        count = {"esc10": 10 * 5 * 4, "esc50": 50 * 10, "esc50's ten": 10 * 10}[release]
        are_apart(names, count)
        files = {split: [os.path.basename(name).split("-") for name in found] for split, found in names.items()}
        assert {file[0] for file in files["test"]} == {str(fold)} and len(files["test"]) == count // 5
        assert str(fold) not in {file[0] for file in files["train"] + files["val"]}
        sources = {split: {file[1] for file in found} for split, found in files.items()}
        assert not sources["train"] & sources["val"]
        assert len(batch_of(data, "val")["labels"].unique()) == classes
    names = names_of(ESC(str(tmp_path), classes, test_fold=1, val_fold=2, sample_rate=8000))
    assert {os.path.basename(name)[0] for name in names["val"]} == {"2"}


def test_esc_labels_are_the_releases_own(tmp_path):
    write_esc10(tmp_path / "ten", sources=1)
    write_esc50(tmp_path / "fifty")
    ten, of_fifty, fifty = (
        ESC(str(tmp_path / "ten"), 10),
        ESC(str(tmp_path / "fifty"), 10),
        ESC(str(tmp_path / "fifty")),
    )
    assert ten.class_names == of_fifty.class_names == ESC10 and fifty.class_names == ESC50
    batch = batch_of(ten, "test")
    for name, label in zip(batch["name"], batch["labels"], strict=True):
        assert name.startswith(f"{label + 1:03} - {ESC10[label]}")
    for data in (of_fifty, fifty):
        batch = batch_of(data, "test")
        for name, label in zip(batch["name"], batch["labels"], strict=True):
            assert ESC50[int(name.removesuffix(".wav").split("-")[3])] == data.class_names[label]


def test_esc_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="classes: expected 10 or 50, found 20"):
        ESC(classes=20)
    with pytest.raises(InputError, match="test_fold: expected a fold from 1 to 5, found 0"):
        ESC(test_fold=0)
    with pytest.raises(InputError, match=r"val_fold: expected null, or one of \[1, 2, 4, 5\], as test_fold is not"):
        ESC(test_fold=3, val_fold=3)
    for classes in (10, 50):
        with pytest.raises(
            InputError, match=f"root: expected meta/esc50.csv and audio/.*, found neither in {tmp_path}"
        ):
            ESC(str(tmp_path), classes).setup("fit")
    write_sound(tmp_path / "001 - Dog bark" / "bark.ogg")
    with pytest.raises(InputError, match=r"bark.ogg: expected a name that begins with <fold>-<source>-, found another"):
        ESC(str(tmp_path), 10).setup("fit")


def test_a_table_of_esc_that_names_absent_files(tmp_path):
    write_esc50(tmp_path)
    gone = next((tmp_path / "audio").iterdir())
    gone.unlink()
    message = f"{tmp_path}/meta/esc50.csv: expected the files it names, found 1 of 500 absent, as {gone}"
    with pytest.raises(InputError, match=message):
        ESC(str(tmp_path)).setup("fit")
    data = ESC(str(tmp_path), skip_broken=True, sample_rate=8000, val_fold=2)
    assert sum(map(len, names_of(data).values())) == 499


# ---------------------------------------------------------------- spoken words


def test_speech_commands_keep_their_lists(tmp_path):
    write_speech_commands(tmp_path)
    data = SpeechCommands(str(tmp_path), spectrogram=Spectrogram(mels=8))
    assert data.num_classes == 35
    names = names_of(data)
    are_apart(names, 4 * 35)
    for split, takes in (("train", "01"), ("val", "2"), ("test", "3")):
        batch = batch_of(data, split)
        assert batch["labels"].tolist() == [WORDS.index(Path(name).parent.name) for name in batch["name"]]
        assert {Path(name).name[2] for name in batch["name"]} == set(takes)


def test_speech_commands_say_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=f"root: expected SpeechCommands/speech_commands_v0.02 in {tmp_path}, or down"):
        SpeechCommands(str(tmp_path)).setup("fit")
    write_speech_commands(tmp_path)
    write_sound(tmp_path / "SpeechCommands" / "speech_commands_v0.02" / "hello" / "0a0b_nohash_0.wav")
    with pytest.raises(InputError, match=r"hello/0a0b_nohash_0.wav: expected a folder named by one of the 35 words"):
        SpeechCommands(str(tmp_path)).setup("fit")


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("write", "kind", "options"),
    [
        (partial(write_fsdd, digits=2), FSDD, {}),
        (partial(write_esc10, sources=1), ESC, {"classes": 10}),
        (write_speech_commands, SpeechCommands, {}),
    ],
)
def test_what_a_system_leaves_among_the_files_is_no_sound(tmp_path, write, kind, options):
    write(tmp_path)
    data = kind(str(tmp_path), **options)
    names = data.find_train()[0].names
    for path in sorted(tmp_path.rglob("*.wav")) or sorted(tmp_path.rglob("*.ogg")):
        (path.parent / f"._{path.name}").write_bytes(b"no sound")
        if kind is not FSDD:
            (path.parent / ".ipynb_checkpoints").mkdir(exist_ok=True)
            shutil.copy(path, path.parent / ".ipynb_checkpoints")
    assert data.find_train()[0].names == names


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_folder_of_any_format(tmp_path, suffix):
    write_folder(tmp_path, 10, suffix)
    data = AudioFolder(
        str(tmp_path), sample_rate=8000, test_fraction=0.2, val_fraction=0.25, spectrogram=Spectrogram(mels=8)
    )
    assert data.class_names == ["high", "low"]
    names = names_of(data)
    are_apart(names, 20)
    assert [len(found) for found in names.values()] == [12, 4, 4]
    batch = batch_of(data, "train")
    assert [Path(name).parent.name for name in batch["name"]] == [data.class_names[k] for k in batch["labels"]]
    mel = data.finish(batch, training=False)["inputs"]["audio"]["content"][:, 2, :, 0]
    assert ((mel.argmax(1) > 1).long() == 1 - batch["labels"]).all()  # the high tones are high


def test_a_truncated_clip_is_named_or_left_out_and_counted(tmp_path, caplog):
    write_folder(tmp_path / "train", 6)
    path = tmp_path / "train" / "low" / "3.wav"
    path.write_bytes(path.read_bytes()[:300])
    for cache in ("memory", "disk", None):
        options = {"cache": cache, "cache_dir": str(tmp_path / "cache"), "val_fraction": 0.3}
        with pytest.raises(InputError, match=f"{path}: expected .* bytes of sound, as its header says, found 256"):
            names_of(made(AudioFolder, str(tmp_path), **options))
        caplog.clear()
        data = made(AudioFolder, str(tmp_path), skip_broken=True, **options)
        data.setup("fit")
        assert len(data.train_set) + len(data.val_set) == 11
        assert "left out 1 of" in caplog.messages[-1] and "['train/low/3.wav']" in caplog.messages[-1]


def test_the_number_of_classes_stands_in_for_a_missing_folder(tmp_path):
    data = AudioFolder(str(tmp_path / "nowhere"), num_classes=3)
    assert (data.num_classes, data.class_names) == (3, ["0", "1", "2"])
    with pytest.raises(InputError, match=f"one folder of clips per class, found no folder {tmp_path}/nowhere"):
        data.setup("fit")
    with pytest.raises(InputError, match="predict_dir: expected a folder of clips to predict, found null"):
        data.setup("predict")


# ---------------------------------------------------------------- tables


def table(folder: Path, **options) -> AudioTable:
    return made(AudioTable, str(folder / "table.csv"), sample_rate=8000, mels=8, **options)


def test_a_table_with_named_folds(tmp_path):
    write_table(tmp_path, folds=("train", "val", "test"))
    data = table(tmp_path, val_fold="val")
    assert (data.class_names, data.multilabel) == (["cat", "dog"], False)
    names = names_of(data)
    are_apart(names, 24)
    for split, found in names.items():
        assert {Path(name).name.split("-")[0] for name in found} == {split}
        assert batch_of(data, split)["labels"].tolist() == [1] * 4 + [0] * 4
    assert names_of(table(tmp_path)) == names


def test_a_table_with_several_labels(tmp_path):
    write_table(tmp_path, labels=("b, a", "b", ""), folds=("1", "2"))
    data = table(tmp_path, label_separator=",", test_fold=2, val_fraction=0.5)
    assert (data.class_names, data.multilabel) == (["a", "b"], True)
    batch = batch_of(data, "test")
    assert batch["labels"].tolist() == [[1, 1]] * 4 + [[0, 1]] * 4 + [[0, 0]] * 4
    check_batch(data.finish(batch, training=False), data.modalities)
    data.setup("fit")
    assert data.class_counts() == batch_of(data, "train")["labels"].sum(0).tolist()


def test_a_table_without_folds_and_with_other_columns(tmp_path):
    write_table(tmp_path, folds=("train", "val", "test"))
    text = (tmp_path / "table.csv").read_text().replace("path,label,fold", "\ufefffile,kind,x")
    (tmp_path / "table.csv").write_text(text)
    options = {"path_column": "file", "label_column": "kind", "fold_column": None, "val_fraction": 0.25}
    names = names_of(table(tmp_path, test_fraction=0.25, **options))
    are_apart(names, 24)
    assert len(names["test"]) == 6


def test_a_table_says_what_is_wrong(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(InputError, match=f"table: expected a CSV file, or a folder of them, found none at {path}"):
        table(tmp_path)
    assert table(tmp_path, num_classes=3).class_names == ["0", "1", "2"]
    write_table(tmp_path)
    whole = path.read_text()
    with pytest.raises(InputError, match=f"{path}: expected the columns path, species, fold, found path, label, fold"):
        table(tmp_path, label_column="species")
    with pytest.raises(InputError, match=f"num_classes: expected 2, the labels in {path}, found 3"):
        table(tmp_path, num_classes=3)
    for stage in ("fit", "test"):  # in fit, what is meant for test would be trained on
        with pytest.raises(InputError, match=f"test_fold: expected one of train, val, the folds in {path}, found 5"):
            table(tmp_path, test_fold=5, num_classes=2).setup(stage)
    with pytest.raises(InputError, match=f"val_fold: expected one of train, val, the folds in {path}, found 3"):
        table(tmp_path, val_fold=3)
    with pytest.raises(InputError, match=f"test_fold: expected clips of test in {path}, found those of train, val"):
        table(tmp_path).setup("test")
    with pytest.raises(InputError, match="val_fold: expected another fold than test, test_fold, found test"):
        table(tmp_path, test_fold="test", val_fold="test")
    for name in ("train-0-1", "train-1-2"):
        (tmp_path / "clips" / f"{name}.wav").unlink()
    absent = f"{path}: expected the files it names, found 2 of 8 absent, as {tmp_path}/clips/train-0-1.wav"
    with pytest.raises(InputError, match=absent):
        table(tmp_path).setup("fit")
    data = table(tmp_path, skip_broken=True)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 14
    for text, sentence in (
        ("path,label,fold\n", f"{path}: expected a line for each file, found none"),
        ("", f"{path}: expected the columns path, label, fold, found none"),
        (whole + "\nclips/x.wav,dog", f"{path}, line 18: expected 3 columns, as the first line has, found 2"),
        (whole + "\nclips/x.wav,dog,1,2,3", f"{path}, line 18: expected 3 columns, as the first line has, found 5"),
        (whole + "\nclips/x.wav,,train", f"{path}, clips/x.wav: expected a label, found none"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"^{sentence}"):
            table(tmp_path)


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize(
    "class_path, init_args, kind",
    [
        ("FSDD", {"test_speakers": ["theo"], "spectrogram": {"mels": None}, "patch": [32]}, FSDD),
        ("ESC", {"classes": 10, "test_fold": 2, "cache": "disk"}, ESC),
        ("SpeechCommands", {"augment": {"spec_augment": [2, 20, 2, 8]}}, SpeechCommands),
        ("AudioFolder", {"root": "nowhere", "num_classes": 2, "augment": {"noise": [10, 30]}}, AudioFolder),
        ("AudioTable", {"table": "nowhere", "num_classes": 2, "label_separator": ",", "test_fold": 1}, AudioTable),
    ],
)
def test_all_are_made_from_a_config(class_path, init_args, kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    config = parser.parse_object({"data": {"class_path": class_path, "init_args": init_args}})
    assert type(parser.instantiate(config).data) is kind
    with pytest.raises(Exception, match="batchsize"):
        parser.parse_object({"data": {"class_path": class_path, "init_args": {**init_args, "batchsize": 8}}})


# ---------------------------------------------------------------- real data


@has_data
def test_real_spoken_digits():
    data = FSDD(
        str(DATA / "fsdd" / "recordings"),
        patch=[2, 4],
        cache="memory",
        spectrogram=Spectrogram(mels=40, window=256, hop=80),
    )
    data.setup("fit")
    data.setup("test")
    assert [len(split) for split in (data.train_set, data.val_set, data.test_set)] == [2430, 270, 300]
    assert min(data.class_counts()) >= 242
    torch.manual_seed(0)
    batch = data.finish(next(iter(data.train_dataloader())), training=True)
    check_batch(batch, data.modalities)
    speech = batch["inputs"]["audio"]
    assert 0.4 < speech["content"][speech["mask"]].std() < 1.1


@pytest.mark.slow
@has_data
def test_real_environmental_sounds():
    for fold in range(1, 6):
        data = ESC(str(DATA / "esc10"), 10, test_fold=fold)
        data.setup("fit")
        data.setup("test")
        assert (len(data.train_set) + len(data.val_set), len(data.test_set)) == (320, 80)
        assert not set(data.train_set.split.groups) & set(data.val_set.split.groups)
        assert 28 <= len(data.val_set) <= 36
    example = data.test_set[0]["inputs"]["audio"]["content"]
    assert example.dtype == torch.int16 and example.abs().max() > 300
