"""Several datamodules as one: what is paired, who finishes what, what is masked, what is refused."""

import math
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import TINY, fails
from grouped import made
from hypothesis import given
from hypothesis import strategies as st
from image_files import batch_of, write_images
from sound_files import write_fsdd, write_sound

from datamodules import FSDD, AudioFolder, Digits, ImageFolder, Moving, Paired, Shapes, Solids
from datamodules.audio.spectrogram import Spectrogram
from datamodules.base import DataModule, check_batch
from datamodules.common.classes import class_facts
from datamodules.common.noise import noisy
from datamodules.multimodal.pairs import draw_pairs
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver


class Rows(DataModule):
    """Examples of one number in one modality: 100 times the label, and the row within it; named by a letter and both.

    `counts` are the examples of each class in train, val and test; `finish` adds a half.
    """

    def __init__(self, modality: str, counts=(2, 3), names="{label}/{row}.x", classes=("cat", "dog"), multilabel=False):
        facts = class_facts(len(classes), list(classes), multilabel)
        super().__init__({modality: {"channels": 1, "resolution": [3]}}, **facts)
        self.counts, self.names, self.modality, self.stages = counts, names, modality, []
        self.labelled = True

    def setup(self, stage):
        self.stages.append(stage)

        def example(label, row, split):
            content = torch.full((3, 1), 100.0 * label + row + 10 * split)
            name = self.names.format(label=label, row=row, split=split)
            found = {"inputs": {self.modality: {"content": content}}, "name": name}
            return {**found, "labels": label} if self.labelled else found

        splits = [
            [example(label, row, split) for label, count in enumerate(self.counts) for row in range(count)]
            for split in range(3)
        ]
        self.train_set, self.val_set, self.test_set = splits
        self.predict_set = splits[2]

    def finish(self, batch, training):
        part = batch["inputs"][self.modality]
        return {**batch, "inputs": {self.modality: {**part, "content": part["content"] + (0.5 if training else 0.25)}}}


def two(counts=(2, 3), others=(4, 1), **options) -> Paired:
    return made(Paired, {"one": Rows("x", counts), "other": Rows("y", others)}, **options)


def values(batch: dict) -> list[tuple[int, ...]]:
    """The number of each modality, example by example."""
    return list(zip(*(part["content"][:, 0, 0].int().tolist() for part in batch["inputs"].values()), strict=True))


# ---------------------------------------------------------------- facts


def test_facts_are_those_of_all_datamodules():
    datamodules = {"a": Rows("x"), "b": Solids(sizes=(4, 4, 4)), "c": Moving(sizes=(4, 4, 4))}
    for data in (datamodules["a"], datamodules["b"]):
        data.facts |= datamodules["c"].facts
    data = Paired(datamodules)
    assert list(data.modalities) == ["x", "points", "video", "audio"]
    assert data.modalities["video"] == datamodules["c"].modalities["video"]
    assert (data.num_classes, data.class_names) == (4, datamodules["c"].class_names)
    assert data.elements == {"points": 256}


@pytest.mark.parametrize(
    "datamodules, options, message",
    [
        (lambda: {"a": Rows("x")}, {}, "datamodules: expected two or more, found 1"),
        (
            lambda: {"a": Rows("x"), "b": Rows("x")},
            {},
            r"datamodules\['b'\]: expected modalities that no other has, found 'x', which 'a' has too",
        ),
        (
            lambda: {"a": Rows("x"), "b": Rows("y", (1, 1, 1), classes=("cat", "dog", "owl"))},
            {},
            r"datamodules\['b'\]: expected 2 classes, as 'a' has, found 3 \(cat, dog, owl ...\)",
        ),
        (
            lambda: {"a": Rows("x"), "b": Rows("y", classes=("cat", "hen"))},
            {},
            r"datamodules\['b'\]: class_names\[1\]: expected 'dog', as 'a' has, found 'hen'",
        ),
        (
            lambda: {"a": Rows("x"), "b": Rows("y", multilabel=True)},
            {},
            r"datamodules\['b'\]: multilabel: expected False, as 'a' has, found True",
        ),
        (
            lambda: {"a": Rows("x", multilabel=True), "b": Rows("y", multilabel=True)},
            {},
            "key: expected a regular expression, as examples have several labels, found null",
        ),
        (
            lambda: {"a": Digits(balanced_sampling=True), "b": Rows("y", [1] * 10, classes="0123456789")},
            {},
            r"datamodules\['a'\]: balanced_sampling: expected false, as pairs are drawn here, found true",
        ),
        (
            lambda: {"a": Rows("x"), "b": DataModule({"y": {"channels": 1, "resolution": [3]}}, num_targets=1)},
            {},
            r"datamodules\['b'\]: expected data with classes, found DataModule",
        ),
        (None, {"key": "(a"}, r"key: expected a regular expression, found '\(a' \("),
        (None, {"hide": ["z"]}, r"hide: expected modalities of \['x', 'y'\], found 'z'"),
        (None, {"hide": ["x", "y"]}, r"hide: expected some of \['x', 'y'\], not all, found \['x', 'y'\]"),
        (None, {"noise": {"z": 1.0}}, r"noise: expected modalities of \['x', 'y'\], found 'z'"),
        (None, {"noise": {"x": -1.0}}, r"noise\['x'\]: expected a number of at least 0, found -1.0"),
        (None, {"modality_dropout": {"z": 0.1}}, r"modality_dropout: expected modalities of \['x', 'y'\], found 'z'"),
        (
            None,
            {"modality_dropout": {"x": 0.6, "y": 0.5}},
            r"modality_dropout: expected shares of at least 0 that add up to 1 at most, found \[0.6, 0.5\]",
        ),
    ],
)
def test_what_cannot_be_joined_is_said_in_words(datamodules, options, message):
    with pytest.raises(InputError, match=message):
        made(Paired, datamodules() if datamodules else {"a": Rows("x"), "b": Rows("y")}, **options)


def test_noise_needs_content():
    solids = Solids(sizes=(4, 4, 4))
    with pytest.raises(InputError, match="noise: expected modalities with channels, found 'points', which is pos"):
        Paired({"a": Rows("x", [1] * 4, classes=solids.class_names), "b": solids}, noise={"points": 1.0})


# ---------------------------------------------------------------- pairs


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 5))
def test_pairs_leave_none_out_and_use_all_equally(counts, seed):
    rows = [[100 * k + row for row in range(count)] for k, count in enumerate(counts)]
    pairs = draw_pairs(rows, np.random.default_rng(seed))
    assert len(pairs) == max(counts)
    for own, column in zip(rows, zip(*pairs, strict=True), strict=True):
        times = [column.count(row) for row in own]
        assert min(times) >= 1 and max(times) - min(times) <= 1 and sum(times) == len(pairs)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pairs_have_one_label_and_never_mix_splits(split):
    data = two(pair_anew=False)
    batch = batch_of(data, split)
    number = ["train", "val", "test"].index(split)
    assert len(batch["labels"]) == 4 + 3
    for label, pair in zip(batch["labels"].tolist(), values(batch), strict=True):
        assert [value // 100 for value in pair] == [label, label]
        assert [value % 100 // 10 for value in pair] == [number, number]
    one, other = zip(*values(batch), strict=True)
    assert (len(set(one)), len(set(other))) == (5, 5)  # none left out
    check_batch(data.finish(batch, training=False), data.modalities)
    assert batch["name"][0].count(" + ") == 1


def test_the_seed_fixes_the_pairs():
    def pairs(**options):
        return values(batch_of(two((20, 20), (20, 20), **options), "test"))

    assert pairs() == pairs(seed=0) != pairs(seed=1)


def test_training_pairs_anew_if_asked_and_evaluation_never():
    data = two((5, 5), (9, 9))
    torch.manual_seed(0)
    first, second = (batch_of(data, "train") for _ in range(2))
    assert [one for one, _ in values(first)] == [one for one, _ in values(second)]
    assert values(first) != values(second)
    for label, pair in zip(first["labels"].tolist(), values(first), strict=True):
        assert [value // 100 for value in pair] == [label, label]
    torch.manual_seed(0)
    assert values(first) == values(batch_of(data, "train"))
    assert values(batch_of(data, "val")) == values(batch_of(data, "val"))
    fixed = two((5, 5), (9, 9), pair_anew=False)
    assert values(batch_of(fixed, "train")) == values(batch_of(fixed, "train"))


def test_counts_per_class():
    data = two()
    data.setup("fit")
    assert data.class_counts() == [4, 3]


def test_only_what_a_stage_needs_is_set_up():
    data = two()
    for stage in ("fit", "validate", "test", "test"):
        data.setup(stage)
    assert data.datamodules["one"].stages == ["fit", "test"]
    assert data.test_set is not None and data.predict_set is None


def test_by_key_the_same_name_is_one_example(caplog):
    datamodules = {"one": Rows("x", (2, 3)), "other": Rows("y", (1, 3))}
    data = Paired(datamodules, key=r"[^.]+")
    with caplog.at_level("WARNING"):
        batch = batch_of(data, "train")
    assert sorted(values(batch)) == [(0, 0), (100, 100), (101, 101), (102, 102)]
    assert batch["labels"].tolist() == [0, 1, 1, 1]
    assert "train: left out 1 examples of 'one', which have no counterpart" in caplog.messages
    assert batch_of(data, "train")["name"][0] == "0/0.x + 0/0.x"


def test_a_group_in_the_key_counts_alone():
    datamodules = {
        "one": Rows("x", (2, 2), names="photo {label}-{row}"),
        "other": Rows("y", (2, 2), names="{label}-{row}!"),
    }
    data = Paired(datamodules, key=r"(\d-\d)")
    assert sorted(values(batch_of(data, "test"))) == [(20, 20), (21, 21), (120, 120), (121, 121)]


def test_examples_to_predict_are_paired_by_key():
    datamodules = {"one": Rows("x"), "other": Rows("y")}
    for data in datamodules.values():
        data.labelled = False
    batch = batch_of(Paired(datamodules, key=".*"), "predict")
    assert "labels" not in batch and len(values(batch)) == 5
    with pytest.raises(InputError, match="key: expected a regular expression, as examples to predict have no labels"):
        Paired(datamodules).setup("predict")


def test_what_cannot_be_paired_is_said_in_words():
    def fails(message, datamodules, **options):
        with pytest.raises(InputError, match=message):
            made(Paired, datamodules, **options).setup("fit")

    one = Rows("x")
    message = r"datamodules\['b'\]: expected examples of class 'dog' in train, as another has them, found none"
    fails(message, {"a": one, "b": Rows("y", (2, 0))})
    fails(r"datamodules\['b'\]: expected examples in train, found none", {"a": one, "b": Rows("y", (0, 0))})
    for key in ("z", "(z)?", "0(z)?", "z*", "(z*)", "1/|(z)|0/"):  # no match, a group without part, an empty match
        message = f"key: expected {re.escape(key)} in the name of each example of 'a', found '0/0.x'"
        fails(message, {"a": one, "b": Rows("y")}, key=key)
    message = "key: expected pairs of class 'cat' in train, found none; its first key is '0/0' in 'a' and '00' in 'b'"
    fails(message, {"a": one, "b": Rows("y", names="{label}{row}.y 1/{row}")}, key=r"1/\d|^\d/\d|^0\d")
    message = "key: expected keys in train that all have, found none; the first of 'a' is '0/0.x'"
    fails(message, {"a": one, "b": Rows("y", names="{label}-{row}")}, key=".*")
    message = "key: expected one label for examples with one key in train, found a 0, b 1"
    fails(message, {"a": Rows("x", (2, 0)), "b": Rows("y", (0, 2), names="0/{row}.x")}, key=".*")
    unlabelled = Rows("y")
    unlabelled.labelled = False
    fails(r"datamodules\['b'\]: expected examples with labels, found none", {"a": one, "b": unlabelled})
    message = r"datamodules: expected labels in all of them or in none, found some only in \['a'\]"
    fails(message, {"a": one, "b": unlabelled}, key=".*")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_keys_are_compared_in_one_unicode_form(forms):
    one, other = (unicodedata.normalize(form, "{label}/Zoë {row}.x") for form in forms)
    key = unicodedata.normalize(forms[1], r"\d/Zoë \d")
    data = Paired({"a": Rows("x", names=one), "b": Rows("y", names=other)}, key=key)
    data.setup("fit")
    assert data.class_counts() == [2, 3]


def test_files_are_paired_by_their_names_without_reading_them(tmp_path):
    for split in ("train", "test"):
        for name, grey in (("cat", 10), ("dog", 200)):
            write_images(tmp_path / "photos" / split / name, 8, grey)
            for row in range(8):
                write_sound(tmp_path / "sounds" / split / name / f"{row}.wav", seconds=0.1)
    data = Paired(
        {
            "image": ImageFolder(str(tmp_path / "photos"), size=4, val_fraction=0.25),
            "sound": AudioFolder(
                str(tmp_path / "sounds"),
                seconds=0.1,
                sample_rate=8000,
                val_fraction=0.25,
                spectrogram=Spectrogram(mels=None),
            ),
        },
        key=r"([^/\\]+[/\\][^/\\]+)\.",
    )
    batch = data.finish(batch_of(data, "test"), training=False)
    check_batch(batch, data.modalities)
    assert len(batch["name"]) == 16
    for name in batch["name"]:
        image, sound = (Path(part).with_suffix("") for part in name.split(" + "))
        assert image == sound


# ---------------------------------------------------------------- batches


def test_each_datamodule_finishes_its_own_part():
    data = two()
    batch = batch_of(data, "train")
    for training, added in ((True, 0.5), (False, 0.25)):
        done = data.finish(batch, training)
        for name, part in done["inputs"].items():
            torch.testing.assert_close(part["content"], batch["inputs"][name]["content"] + added)
        assert done["labels"] is batch["labels"] and done["name"] is batch["name"]


def test_finishing_alone_and_together_is_the_same(tmp_path):
    write_fsdd(tmp_path)
    datamodules = {
        "image": Digits(),
        "sound": FSDD(str(tmp_path), seconds=0.1, patch=[2, 4], spectrogram=Spectrogram(mels=16, window=256, hop=80)),
    }
    data = Paired(datamodules)
    batch = batch_of(data, "test")
    done = data.finish(batch, training=False)
    check_batch(done, data.modalities)
    assert len(done["labels"]) == len({name.split(" + ")[0] for name in done["name"]})  # each scan once
    for own, modality in zip(datamodules.values(), ("image", "audio"), strict=True):
        alone = own.finish({"inputs": {modality: batch["inputs"][modality]}, "labels": batch["labels"]}, False)
        torch.testing.assert_close(done["inputs"][modality]["content"], alone["inputs"][modality]["content"])
    for name, label in zip(done["name"], done["labels"].tolist(), strict=True):
        assert name.split(" + ")[1].startswith(f"{label}_") and name.endswith("_0.wav")  # the official test split


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: {**batch, "labels": torch.ones(len(batch["labels"]), 2)},
        lambda batch: {**batch, "labels": 1 - batch["labels"]},
        lambda batch: {**batch, "example": torch.arange(len(batch["labels"]))},
    ],
)
def test_what_datamodules_cannot_share_is_refused(change):
    data = two()
    data.datamodules["other"].finish = lambda batch, training: change(batch)
    message = r"datamodules\['other'\]: expected unchanged labels and rows, .* \(no mixup, cutmix, ten_crop, eval_clips"
    with pytest.raises(InputError, match=message):
        data.finish(batch_of(data, "train"), training=True)


def big(**options) -> tuple[Paired, dict]:
    data = two((1000, 1000), (1000, 1000), **options)
    return data, batch_of(data, "train")


def test_modality_dropout_masks_its_share_and_never_all():
    data, batch = big(modality_dropout={"x": 0.3, "y": 0.2})
    torch.manual_seed(0)
    done = data.finish(batch, training=True)
    check_batch(done, data.modalities)
    there = {name: part["mask"].any(1) for name, part in done["inputs"].items()}
    assert all(torch.equal(part["mask"].any(1), part["mask"].all(1)) for part in done["inputs"].values())
    for name, share in (("x", 0.3), ("y", 0.2)):
        assert abs((~there[name]).float().mean() - share) < 4 * math.sqrt(share / 2000)
    assert (there["x"] | there["y"]).all()
    assert "mask" not in data.finish(batch, training=False)["inputs"]["x"]


def test_shares_of_1_in_all_drop_just_one():
    data, batch = big(modality_dropout={"x": 0.5, "y": 0.5})
    done = data.finish(batch, training=True)
    there = torch.stack([part["mask"].any(1) for part in done["inputs"].values()])
    assert (there.sum(0) == 1).all()


def test_dropout_keeps_the_mask_that_there_is():
    data, batch = big(modality_dropout={"x": 0.5})
    mask = torch.rand(2000, 3) < 0.5
    batch["inputs"]["x"]["mask"] = mask
    done = data.finish(batch, training=True)["inputs"]["x"]["mask"]
    kept = done.any(1)
    assert torch.equal(done[kept], mask[kept]) and 0.3 < kept.float().mean() < 0.6


def test_a_hidden_modality_is_masked_everywhere_and_the_last_one_never_dropped():
    data, batch = big(modality_dropout={"x": 0.5, "y": 0.5}, hide=["x"])
    for training in (True, False):
        inputs = data.finish(batch, training)["inputs"]
        assert not inputs["x"]["mask"].any()
        assert inputs["y"].get("mask", torch.tensor(True)).all()


def test_a_hidden_modality_changes_nothing_and_its_vector_has_a_gradient_of_zero():
    data, batch = big(hide=["x"])
    small = {"inputs": {name: {"content": part["content"][:4]} for name, part in batch["inputs"].items()}}
    model = Perceiver(
        data.modalities, 2, num_latents=4, latent_width=8, cross_attends=[1], self_attends=1, self_heads=2
    )
    inputs = data.finish(small, training=True)["inputs"]
    outputs = model(inputs)
    outputs.sum().backward()
    vectors = [parameter for name, parameter in model.named_parameters() if "modality_vectors.x" in name]
    assert len(vectors) == 1 and vectors[0].grad is not None and not vectors[0].grad.any()
    inputs["x"]["content"] = inputs["x"]["content"] + 1
    torch.testing.assert_close(model(inputs), outputs)


def test_noise_has_its_level_and_is_the_same_in_every_evaluation():
    content = (1000 * torch.randn(20000, 1)).short()
    generator = torch.Generator().manual_seed(0)
    added = noisy(content, 2.0, generator).float() - content.float()
    assert abs(added.std() / content.float().std() - 2) < 0.05 and abs(added.mean()) < 50
    assert noisy(content, 0.0, generator).equal(content) and noisy(content, 40.0, generator).max() == 32767
    assert noisy(torch.full((5, 5, 3), 7, dtype=torch.uint8), 3.0, generator).eq(7).all()  # nothing of nothing
    content = content[:2000].float()
    levels = torch.stack([(noisy(content, 2.0, None) - content).std() / content.std() for _ in range(200)])
    assert 0 < levels.min() < 0.2 and 1.8 < levels.max() < 2.1 and abs(levels.mean() - 1) < 0.2  # in training, any

    def images(split: str, **options) -> torch.Tensor:
        shapes = Shapes(sizes=(8, 8, 8))
        other = Rows("y", [2] * 4, classes=shapes.class_names)
        data = made(Paired, {"image": shapes, "other": other}, pair_anew=False, **options)
        return batch_of(data, split)["inputs"]["image"]["content"].float()

    for split in ("train", "val", "test"):
        clean, one, other = images(split), *(images(split, noise={"image": 1.0}) for _ in range(2))
        assert torch.equal(one, other) == (split != "train")
        assert 0.2 < ((one - clean).std() / clean.std()) < 1.2
        assert len({tuple(row.flatten().tolist()) for row in (one - clean)}) == len(clean)  # each its own
    assert not torch.equal(images("test", noise={"image": 1.0}), images("test", noise={"image": 1.0}, seed=1))


# ---------------------------------------------------------------- from the command line


def config(folder: Path) -> dict:
    datamodules = {
        "image": {"class_path": "Digits", "init_args": {"augment": {"random_crop": 1}}},
        "sound": {"class_path": "FSDD", "init_args": {"root": str(folder / "sounds"), "seconds": 0.1}},
    }
    datamodules["sound"]["init_args"] |= {
        "val_fraction": 0.25,
        "spectrogram": {"mels": 16, "window": 256, "hop": 80},
        "patch": [2, 4],
    }
    data = {
        "class_path": "Paired",
        "init_args": {"datamodules": datamodules, "batch_size": 16, "modality_dropout": {"audio": 0.3}},
    }
    return {**TINY, "data": data}


@pytest.mark.slow
def test_a_config_trains_is_kept_and_is_tested_from_its_checkpoint(here, capsys):
    write_fsdd(here / "sounds")
    Path("both.yaml").write_text(yaml.safe_dump(config(here)))
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "--config=both.yaml",
                "--data.init_args.datamodules.image.init_args.augment.random_crop=2",
                "--print_config",
            ]
        )
    datamodules = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["datamodules"]
    assert datamodules["image"]["init_args"]["augment"]["random_crop"] == 2
    assert datamodules["sound"]["init_args"]["spectrogram"]["mels"] == 16
    run = main(["fit", "--config=both.yaml", "--trainer.max_epochs=1"])
    assert [type(data).__name__ for data in run.datamodule.datamodules.values()] == ["Digits", "FSDD"]
    tested = main(["test", "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt", "--data.init_args.hide=[audio]"])
    assert tested.datamodule.hide == ["audio"]
    assert "test/accuracy" in tested.trainer.callback_metrics


def test_a_wrong_datamodule_is_named(here, capsys):
    Path("both.yaml").write_text(yaml.safe_dump(config(here)))
    given = "--data.init_args.datamodules.image.init_args"
    assert "random_crops" in fails(capsys, "fit", "--config=both.yaml", f"{given}.augment.random_crops=1")
    assert "random_crop" in fails(capsys, "fit", "--config=both.yaml", f"{given}.augment.random_crop=many")
    wrong = fails(capsys, "fit", "--config=both.yaml", "--data.init_args.datamodules.image.class_path=Digit")
    assert "Digit" in wrong
    found = fails(
        capsys, "fit", "--config=both.yaml", "--data.init_args.datamodules.sound.init_args.test_speakers=[eve]"
    )
    assert found == "test_speakers: expected names of george, jackson, lucas, nicolas, theo, yweweler, found eve"
