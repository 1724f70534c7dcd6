"""Configs, flags and checkpoints of earlier versions, in today's words."""

import typing
from dataclasses import dataclass

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import LightningDataModule

import datamodules
from perceiver_lightning.cli.classes import arguments, fields, subclasses
from perceiver_lightning.cli.command import ALL_SUBCOMMANDS
from perceiver_lightning.cli.parser import look_ahead
from perceiver_lightning.cli.renamed import Translation, class_path


@dataclass(frozen=True)
class Augment:
    """How examples are changed.

    Args:
        mixup: share.
        crop: pixels.
    """

    mixup: float = 0.0
    crop: int = 0


@dataclass(frozen=True)
class Spectrogram:
    """What is made of a sound.

    Args:
        mels: bands.
        window: samples.
    """

    mels: int | None = 64
    window: int = 400


class PictureOptions(typing.TypedDict, total=False):
    """Of the pictures of a video."""

    frames: int
    augment: Augment


class Base(LightningDataModule):
    def __init__(self, batch_size: int = 8, cache: typing.Literal["memory", "disk"] | None = None) -> None:
        super().__init__()


class Sounds(Base):
    """Arguments in groups, some of them handed on."""

    def __init__(
        self,
        root: str = "",
        augment: Augment = Augment(),
        spectrogram: Spectrogram = Spectrogram(),
        video: PictureOptions | None = None,
        **options: typing.Any,
    ) -> None:
        super().__init__(**options)


class Both(LightningDataModule):
    """Several of them."""

    def __init__(self, datamodules: dict[str, LightningDataModule], hide: list[str] | None = None) -> None:
        super().__init__()


@pytest.fixture(autouse=True)
def renamed_of_both(monkeypatch):
    monkeypatch.setitem(
        __import__("perceiver_lightning.cli.renamed", fromlist=["x"]).RENAMED, "Both", {"members": "datamodules"}
    )


SOUNDS, BOTH = f"{__name__}.Sounds", f"{__name__}.Both"


def of_sounds(**given: typing.Any) -> dict:
    return {"data": {"class_path": SOUNDS, "init_args": given}}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"mixup": 0.2, "batch_size": 3}, {"augment": {"mixup": 0.2}, "batch_size": 3}),
        ({"mixup": 0.2, "augment": {"crop": 2}}, {"augment": {"mixup": 0.2, "crop": 2}}),
        ({"augment": {"crop": 2}, "mixup": 0.2}, {"augment": {"mixup": 0.2, "crop": 2}}),
        ({"mels": None, "window": 8}, {"spectrogram": {"mels": None, "window": 8}}),
        ({"video": {"frames": 4, "crop": 1}}, {"video": {"frames": 4, "augment": {"crop": 1}}}),
        ({"video": None}, {"video": None}),
        ({"cache": True}, {"cache": "memory"}),
        ({"cache": False}, {"cache": None}),
        ({"cache": "disk"}, {"cache": "disk"}),
        ({"no_such": 1}, {"no_such": 1}),
        ({"multilabel": False, "class_names": None}, {}),  # said nothing, and not every class takes them now
        ({"multilabel": True}, {"multilabel": True}),
        ({"augment": {"mixup": 0.2}}, {"augment": {"mixup": 0.2}}),
    ],
)
def test_flat_keys_of_a_config_go_into_their_groups(before, now):
    assert Translation({}).config(of_sounds(**before)) == of_sounds(**now)
    overlay = {"data": {"init_args": before}}  # another config names the class
    assert Translation({"data": SOUNDS}).config(overlay) == {"data": {"init_args": now}}


def test_datamodules_inside_a_datamodule_are_translated_too():
    sound = {"class_path": SOUNDS, "init_args": {"mels": 8}}
    given = {"data": {"class_path": BOTH, "init_args": {"members": {"a": sound, "b": SOUNDS}, "hide": ["a"]}}}
    translation = Translation({})
    (now,) = [translation.config(given)["data"]["init_args"]]
    assert now == {
        "datamodules": {"a": {"class_path": SOUNDS, "init_args": {"spectrogram": {"mels": 8}}}, "b": SOUNDS},
        "hide": ["a"],
    }
    flags = ["--data.init_args.members.a.init_args.mixup=0.3", "--data.init_args.members.a.init_args.root=X"]
    assert list(translation.flags(flags)) == [
        "--data.init_args.datamodules.a.init_args.augment.mixup=0.3",
        "--data.init_args.datamodules.a.init_args.root=X",
    ]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["--data.init_args.mixup=0.2"], ["--data.init_args.augment.mixup=0.2"]),
        (["--data.init_args.mixup", "0.2"], ["--data.init_args.augment.mixup", "0.2"]),
        (["--data.mixup", "-0.2"], ["--data.augment.mixup", "-0.2"]),
        (["--data.init_args.video.crop=1"], ["--data.init_args.video.augment.crop=1"]),
        (["--data.init_args.cache=true"], ["--data.init_args.cache=memory"]),
        (["--data.init_args.cache", "false"], ["--data.init_args.cache", "null"]),
        (["--data.init_args.augment.mixup=0.2"], ["--data.init_args.augment.mixup=0.2"]),
        (["--data.init_args.augment.mixup=null"], ["--data.init_args.augment={mixup: null}"]),
        (["--data.init_args.mixup", "null"], ["--data.init_args.augment", "{mixup: null}"]),
        (["--data.init_args.root", "null"], ["--data.init_args", "{root: 'null'}"]),
        (["--data.init_args.no_such=1"], ["--data.init_args.no_such=1"]),
        (["--data.init_args.video={crop: 1, frames: 2}"], ["--data.init_args.video={augment: {crop: 1}, frames: 2}"]),
        (["--data.init_args={mixup: 0.2}"], ["--data.init_args={augment: {mixup: 0.2}}"]),
        (["--data.init_args", '{"cache": false, "root": "x"}'], ["--data.init_args", "{cache: null, root: x}"]),
        (["--data.init_args.augment={crop: 1}"], ["--data.init_args.augment={crop: 1}"]),
        (["--data.init_args.root={broken"], ["--data.init_args.root={broken"]),
        (["--data.init_args.root=[a]"], ["--data.init_args={root: '[a]'}"]),
        (["--data.root=#1"], ["--data.init_args={root: '#1'}"]),
        (["--data.init_args.root=1e-3"], ["--data.init_args.root=1e-3"]),
        (["--trainer.callbacks+=X", "--trainer.callbacks.mixup=1"],
         ["--trainer.callbacks+=X", "--trainer.callbacks.mixup=1"]),
        (["fit", "--name", "mixup", "-c", "x.yaml", "--print_config"],
         ["fit", "--name", "mixup", "-c", "x.yaml", "--print_config"]),
        ([f"--data={BOTH}", "--data.init_args.members.a=" + SOUNDS, "--data.init_args.members.a.init_args.window=3"],
         [f"--data={BOTH}", "--data.init_args.datamodules.a=" + SOUNDS,
          "--data.init_args.datamodules.a.init_args.spectrogram.window=3"]),
        (["--data", BOTH, "--data.init_args.mixup=1"], ["--data", BOTH, "--data.init_args.mixup=1"]),
    ],
)  # fmt: skip
def test_flags_are_translated(before, now):
    assert list(Translation({"data": SOUNDS}).flags(before)) == now


@given(st.lists(st.sampled_from(["--a=b", "--data.x", "y", "--trainer.max_epochs=3", "-c", "z", "--data={1: 2}"])))
def test_what_has_no_other_name_is_unchanged(args):
    assert list(Translation({}).flags(args)) == args


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("datamodules.images.Digits", "datamodules.Digits"),
        ("datamodules.image.digits.Digits", "datamodules.Digits"),
        ("datamodules.Digits", "datamodules.Digits"),
        ("datamodules.base.DataModule", "datamodules.DataModule"),
        ("perceiver_lightning.training.wandb.Wandb", "Wandb"),
        ("perceiver_lightning.training.logging.TensorBoard", "TensorBoard"),
        ("perceiver_lightning.training.loggers.TensorBoard", "perceiver_lightning.training.loggers.TensorBoard"),
        ("perceiver_lightning.tasks.classification.ClassificationTask", "perceiver_lightning.tasks.ClassificationTask"),
        ("my_module.Digits", "my_module.Digits"),
        ("Digits", "Digits"),
        ("datamodules.my.Own", "datamodules.my.Own"),
        ("runs/datamodules.x", "runs/datamodules.x"),
    ],
)
def test_classes_that_moved_are_found(before, now):
    assert class_path(before) == now
    assert Translation({}).config({"trainer": {"logger": [{"class_path": before}]}}) == {
        "trainer": {"logger": [{"class_path": now}]}
    }


def checkpoint(config: dict) -> None:
    whole = {"state_dict": {}, "loops": {"fit_loop": {}}, "pytorch-lightning_version": "2", "global_step": 3}
    torch.save(whole | {"config": yaml.safe_dump(config), "optimizer_states": []}, "old.ckpt")


def test_a_whole_command_is_translated(here):
    """Checkpoint, config and flags; a config of old names comes as text, one of today's stays the file."""
    checkpoint({**of_sounds(mixup=0.1, root="r"), "name": "old", "ckpt_path": None})
    (here / "old.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"window": 3}}}))
    (here / "new.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"spectrogram": {"window": 4}}}}))
    given = ["fit", "--ckpt_path=old.ckpt", "--config=old.yaml", "-c", "old.yaml", "-c", "new.yaml", "--data.mels=5"]
    command = look_ahead(given, ALL_SUBCOMMANDS)
    fit, config, remembered, *rest = command.args
    assert (fit, config) == ("fit", "--config")
    assert yaml.safe_load(remembered) == {**of_sounds(augment={"mixup": 0.1}, root="r"), "name": "old"}
    now = "data:\n  init_args:\n    spectrogram:\n      window: 3\n"
    assert rest == [
        "--ckpt_path=old.ckpt", f"--config={now}", "-c", now, "-c", "new.yaml", "--data.spectrogram.mels=5",
    ]  # fmt: skip
    assert command.memory is not None and command.memory.step == 3 and command.memory.resumable


def test_another_class_takes_none_of_the_first_one_s_arguments(here):
    checkpoint(of_sounds(mixup=0.1))
    command = look_ahead(["test", "--ckpt_path=old.ckpt", f"--data={BOTH}", "--data.hide=[a]"], ALL_SUBCOMMANDS)
    assert yaml.safe_load(command.args[2]) == {}


@pytest.mark.parametrize("name", datamodules.__all__)
def test_no_two_groups_of_a_class_have_a_field_of_one_name(name):
    """Or an old key could not be told."""
    known = fields(getattr(datamodules, name))
    inner = [key.split(".")[1] for key in known if "." in key]
    assert len(inner) == len(set(inner)) and not set(inner) & set(known)
    for kind in known.values():
        for typed in filter(typing.is_typeddict, (kind, *typing.get_args(kind))):
            inner = [key.split(".")[1] for key in fields(typed) if "." in key]
            assert len(inner) == len(set(inner)) and not set(inner) & set(fields(typed))


def test_arguments_are_those_that_are_handed_on_too():
    assert set(arguments(Sounds)) == {
        "root", "video", "batch_size", "cache", "augment", "augment.mixup", "augment.crop", "spectrogram",
        "spectrogram.mels", "spectrogram.window",
    }  # fmt: skip
    assert Sounds in subclasses(LightningDataModule)
