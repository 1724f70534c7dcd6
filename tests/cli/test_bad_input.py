"""Bad input ends with one sentence on stderr, status 2, and nothing half-written."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import fails, metrics
from image_files import write_images
from torch.utils.data import DataLoader

from datamodules.base import DataModule
from perceiver_lightning.cli import CLI, main
from perceiver_lightning.cli.messages import one_sentence, without_hints
from perceiver_lightning.errors import InputError

pytestmark = pytest.mark.usefixtures("here")


NO_SUCH = "ClassificationTask has no such argument"
LOGGED = "val/accuracy, val/calibration_error, val/f1, val/loss, val/top5"


DECIDED_WHILE_PARSING = [
    ("--model.init_args.learning_rte=1", f"model.init_args.learning_rte: {NO_SUCH}; did you mean learning_rate?"),
    ("--model.init_args.num_latent=1", f"model.init_args.num_latent: {NO_SUCH}; did you mean num_latents?"),
    ("--data.init_args.batchsize=1", "data.init_args.batchsize: Digits has no such argument; did you mean batch_"),
    ("--trainer.max_epoch=1", "trainer.max_epoch: there is no such key; did you mean trainer.max_epochs?"),
    ("--trainer.max_epochs=three", "trainer.max_epochs: expected int or null, found three"),
    ("--data.init_args.batch_size=x", "data.init_args.batch_size: expected int, found x"),
    ("--data=Digit", "data: expected the name of a class, found Digit; did you mean Digits?"),
    ("--model=no_such_file.Model", "model: expected the name of a class, found no_such_file.Model"),
    ("--config=wrong_key.yaml", "trainr.max_epochs: there is no such key; did you mean trainer.max_epochs?"),
    ("--config=wrong_nested.yaml", f"model.init_args.bandz: {NO_SUCH}; did you mean bands?"),
    ("--config=wrong_logger.yaml", "trainer.logger: expected the name of a class, found WandbLoger; did you mean"),
    ("--config=broken.yaml", "broken.yaml, line 2: expected YAML, found expected ',' or ']', but got '<stream en"),
    ("--config=folder", "--config: expected a file, found the folder folder; did you mean folder/config.yaml?"),
    ("--config=.", "--config: expected a file, found the folder ."),
    ("--config=latin.yaml", "latin.yaml: expected YAML in UTF-8, found other bytes (invalid continuation byte)"),
    ("--config=binary.yaml", "binary.yaml: expected YAML, found unacceptable character #x0000"),
    ("--config=other.ckpt", "other.ckpt: expected YAML"),
    (
        "--ckpt_path=folder",
        "--ckpt_path: expected a checkpoint, found the folder folder; did you mean folder/checkpoint",
    ),
    (
        "--ckpt_path=folder/checkpoints",
        "--ckpt_path: expected a checkpoint, found the folder folder/checkpoints; did yo",
    ),
    ("--trainer.callbacks=EMAWeightAveragin", "trainer.callbacks: expected the name of a class, found EMAWeightAverag"),
    ("--config=none.yaml", "--config: expected a file, found none that can be read at none.yaml"),
    ("--ckpt_path=none.ckpt", "--ckpt_path: expected a checkpoint, found no file none.ckpt"),
    ("--ckpt_path=tiny.yaml", "--ckpt_path: expected a checkpoint, found another or a broken file in tiny.yaml"),
    ("--ckpt_path=other.ckpt", "--ckpt_path: expected a checkpoint of Lightning's, found other contents in other"),
    ("--config=empty.yaml", "empty.yaml: expected keys and values, found nothing"),
    ("--config=list.yaml", "list.yaml: expected keys and values, found [1]"),
    ("--trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch: expected more than 0, found 0"),
    ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches: expected more than 0, found 0"),
    ("--trainer.limit_train_batches=0", "trainer.limit_train_batches: expected more than 0, found 0"),
    ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val: expected 0 or more, found -1"),
    ("--early_stopping.patience=-1", "early_stopping.patience: expected 0 or more validations, found -1"),
    ("--seed_everything=-1", "seed_everything: -1 is not in bounds, numpy accepts from 0 to 4294967295"),
    ("--name=../x", "name: expected the name of a folder in runs_dir, found '../x'"),
    ("--name=s3://x", "name: expected the name of a folder, without :: and ://, found 's3://x'"),
    ("--name=a::b", "name: expected the name of a folder, without :: and ://, found 'a::b'"),
    ("--name=.", "name: expected the name of a folder in runs_dir, found '.'"),
    ("--config=no_name.yaml", "name: expected the name of a folder, without :: and ://, found null"),
    ("--config=list_as_name.yaml", "name: expected str, found ['a']"),
    ("--model.init_args.num_latents=null", "model.init_args.num_latents: expected int, found null"),
    ("--data.init_args.random_crop=null", "data.init_args.augment.random_crop: expected int, found null"),
    ("--model.init_args.learning_rate=nan", "model.init_args.learning_rate: expected float, found nan"),
    ("--data=broken_import.Waves", "data: expected to import broken_import, found No module named 'no_such_thing'"),
]
DECIDED_LATER = [
    ("--checkpoint.mode=up", "`mode` can be min, max but got up"),
    ("--model.init_args.self_heads=3", "model: "),
    ("--checkpoint.monitor=val/acc", f"checkpoint.monitor: expected one of {LOGGED}, found val/acc"),
    ("--trainer.accelerator=abacus", "You selected an invalid accelerator name: `accelerator='abacus'`"),
    ("--trainer.strategy=abacus", "You selected an invalid strategy name: `strategy='abacus'`"),
    ("--trainer.devices=none", "`devices` selected with `CPUAccelerator` should be an int > 0"),
    ("--trainer.val_check_interval=500", "`val_check_interval` (500) must be less than or equal to the number"),
    ("--trainer.max_epochs=0", "trainer.max_epochs: expected more than 0, found 0"),
    ("--runs_dir=tiny.yaml", "runs_dir: expected a folder to write tiny.yaml/tiny/version_0 in, found "),
    (f"--name={'x' * 300}", "runs_dir: expected a folder to write runs/xxx"),
    ("--model.init_args.cross_qk_width=-4", "model: cross_qk_width: expected 1 or more, found -4"),
    ("--model.init_args.highest_frequency=0", "model: highest_frequency: expected more than 0, found 0.0"),
    (
        "--model.init_args.query_resolution=[]",
        "model: query_resolution: expected one number, 1 or more, for each axis",
    ),
    ("--model.init_args.learning_rate=-1", "learning_rate: expected a finite number, 0 or more, found -1.0"),
    ("--model.init_args.weight_decay=-1", "weight_decay: expected a finite number, 0 or more, found -1.0"),
    ("--model.init_args.milestones=[0.5,0.3]", "milestones: expected rising fractions of the"),
    (
        "--early_stopping.patience=3 --early_stopping.monitor=val/acc",
        f"early_stopping.monitor: expected one of {LOGGED}",
    ),
]


class Parsed(CLI):
    """A command up to the point where classes would be made."""

    def instantiate_classes(self) -> None:
        raise AssertionError("this was to be found while parsing")


@pytest.fixture
def files(here, monkeypatch):
    """Wrong ones of several kinds."""
    Path("wrong_key.yaml").write_text("trainr: {max_epochs: 3}\n")
    Path("wrong_nested.yaml").write_text("model: {init_args: {bandz: 3}}\n")
    Path("wrong_logger.yaml").write_text("trainer: {logger: {class_path: WandbLoger}}\n")
    Path("broken.yaml").write_text("trainer: {max_epochs: [3\n")
    Path("empty.yaml").write_text("# nothing yet\n")
    Path("no_name.yaml").write_text("name: null\n")
    Path("list_as_name.yaml").write_text("name: [a]\n")
    Path("latin.yaml").write_bytes("name: caf\xe9!\n".encode("latin-1"))
    Path("binary.yaml").write_bytes(b"\0\1\2")
    Path("folder/checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/best.ckpt"):
        Path("folder", name).touch()
    Path("list.yaml").write_text("[1]\n")
    Path("broken_import.py").write_text("import no_such_thing\n")
    monkeypatch.syspath_prepend(".")
    torch.save({"weight": torch.ones(1)}, "other.ckpt")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("args", "sentence"), DECIDED_WHILE_PARSING)
def test_bad_input_is_one_sentence_while_parsing(args, sentence):
    with without_hints(), pytest.raises(InputError) as error:
        Parsed(["fit", "--config=tiny.yaml", args])
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)
    assert not Path("runs").exists()


@pytest.mark.parametrize(("args", "sentence"), [*DECIDED_LATER, *DECIDED_WHILE_PARSING[:1]])
def test_bad_input_is_one_sentence_and_leaves_nothing(args, sentence, capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", *args.split())
    assert said.startswith(sentence)
    assert not Path("runs").exists()


def test_a_command_without_what_it_needs(capsys):
    assert fails(capsys, "fit").startswith("expected model and data, found none: give --config FILE")
    assert fails(capsys, "test", "--config=tiny.yaml") == (
        "test: expected --ckpt_path FILE, the checkpoint of a run, found none"
    )
    assert "invalid choice: 'fitt' (choose from 'fit', " in fails(capsys, "fitt")
    assert "expected one argument" in fails(capsys, "fit", "--config")
    assert fails(capsys, "--config", "tiny.yaml", "fit") == "--config: expected it after the command fit, found before"


def test_what_is_not_recognised_is_passed_on_in_one_line():
    assert one_sentence("something\n  quite\n\n  new") == "something quite new"


def test_debug_shows_all():
    with pytest.raises(InputError, match="learning_rte"):
        main(["fit", "--debug", "--config=tiny.yaml", "--model.init_args.learning_rte=1"])


def test_a_checkpoint_of_another_shape_leaves_the_run_alone(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for command in ("fit", "test"):
        said = fails(capsys, command, f"--ckpt_path={run}/checkpoints/last.ckpt", "--model.init_args.latent_width=16")
        assert "last.ckpt is of another model: perceiver." in said and "expected (4, 16), found (4, 8)" in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_data_that_contradict_the_checkpoint(run, here, capsys):
    for name in ("cat", "dog"):
        write_images(here / "pets" / name, 10, size=(8, 8))
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    assert "best.ckpt: expected modalities" in fails(capsys, "test", best, "--data.init_args.size=9")
    pets = ["--data=ImageFolder", "--data.init_args.root=pets", "--data.init_args.size=8"]
    assert "best.ckpt: expected num_classes 2" in fails(capsys, "test", best, *pets, "--data.init_args.channels=1")
    assert "test/accuracy" not in metrics(run)[0]


def test_weights_alone_cannot_be_resumed(capsys):
    main(["fit", "--config=tiny.yaml", "--checkpoint.save_weights_only=true", "--trainer.max_epochs=1"])
    last = "runs/tiny/version_0/checkpoints/last.ckpt"
    assert fails(capsys, "fit", f"--ckpt_path={last}") == (
        f"--ckpt_path: expected the optimiser's state to go on with, found only weights in {last}"
    )


@pytest.mark.parametrize("output", ["folder", "file/x.csv"])
def test_an_output_that_cannot_be_written_is_found_before_the_work(run, photos, capsys, output):
    Path("folder").mkdir()
    Path("file").touch()
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    assert fails(capsys, "predict", best, f"--data.init_args.predict_dir={photos}", f"--output={output}").startswith(
        "--output: expected a "
    )


def test_one_class_alone(here, capsys):
    write_images(here / "above" / "photos" / "cat", 10, size=(8, 8))
    command = ["--config=tiny.yaml", "--data=ImageFolder", "--data.init_args.root=above", "--data.init_args.size=8"]
    sentence = (
        "above: expected one folder of images per class, found photos alone, with the folders cat: is it the root?"
    )
    assert fails(capsys, "fit", *command) == sentence


def test_a_missing_folder_in_predict(run, capsys):
    args = [f"--ckpt_path={run}/checkpoints/best.ckpt", "--data.init_args.predict_dir=nowhere"]
    assert "nowhere" in fails(capsys, "predict", *args)
    assert not (run / "predictions.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "data, ending, options",
    [
        ("AudioFolder", "wav", {"sample_rate": 8000}),
        ("PointFolder", "off", {"num_points": 8}),
        ("VideoFolder", "mp4", {"frames": 2, "size": 8}),
        ("AudioVisualFolder", "mkv", {"seconds": 1}),
    ],
)
def test_broken_files_of_any_kind(here, capsys, data, ending, options, workers):
    for split, name in itertools.product(["train", "test"], ["cat", "dog"]):
        folder = here / "files" / split / name
        folder.mkdir(parents=True)
        for i in range(4):
            (folder / f"{i}.{ending}").write_text("not what it says")
    given = {"root": "files", "val_fraction": 0.25, "cache": "null", "num_workers": workers, **options}
    said = fails(
        capsys, "fit", "--config=tiny.yaml", f"--data={data}", *(f"--data.init_args.{k}={v}" for k, v in given.items())
    )
    assert re.match(rf"files/train/(cat|dog)/\d\.{ending}: expected ", said)
    assert not Path("runs").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image(here, capsys, workers):
    for name in ("cat", "dog"):
        write_images(here / "pets" / name, 10, size=(8, 8))
    for path in (here / "pets").rglob("*.png"):
        path.write_text("no image")
    pets = ["--data=ImageFolder", "--data.init_args.root=pets", "--data.init_args.size=8"]
    said = fails(capsys, "fit", "--config=tiny.yaml", *pets, f"--data.init_args.num_workers={workers}")
    assert said.startswith("pets/") and ".png" in said
    assert not Path("runs").exists()


def test_a_missing_folder(capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", "--data=ImageFolder", "--data.init_args.root=nowhere")
    assert "nowhere" in said
    assert not Path("runs").exists()


class NoLabels(DataModule):
    """Has no labels, or loses them at the third batch of training."""

    def __init__(self, from_batch: int = 0) -> None:
        super().__init__({"wave": {"channels": 1, "resolution": [4]}}, num_classes=2)
        self.from_batch = from_batch

    def train_dataloader(self) -> DataLoader:
        batches = [{"inputs": {"wave": {"content": torch.ones(3, 4, 1)}}, "labels": torch.ones(3).long()}] * 5
        batches = [{k: v for k, v in b.items() if k != "labels" or i < self.from_batch} for i, b in enumerate(batches)]
        return DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader([{**self.train_dataloader().dataset[0], "labels": torch.ones(3).long()}], batch_size=None)


def test_a_datamodule_without_labels(capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", f"--data={__name__}.NoLabels")
    assert "labels" in said and "found only inputs" in said
    assert not Path("runs").exists()


def test_bad_input_in_the_middle_of_training_keeps_the_steps_before_it(capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", f"--data={__name__}.NoLabels", "--data.init_args.from_batch=2")
    assert "labels" in said
    last = torch.load("runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    fails(capsys, "fit", "--config=tiny.yaml", f"--data={__name__}.NoLabels", "--data.init_args.from_batch=2")


def test_a_loss_that_is_no_number_ends_the_training(run, capsys):
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    said = fails(
        capsys,
        "fit",
        f"--ckpt_path={run}/checkpoints/last.ckpt",
        "--trainer.max_epochs=9",
        "--model.init_args.learning_rate=1e30",
    )
    assert said.startswith("train/loss: expected a number, found nan at step 12; a lower learning_rate")
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_folder_that_was_there_before_a_failed_start_stays(here, capsys):
    (here / "own").mkdir()
    for where in ("own", "new"):
        fails(
            capsys,
            "fit",
            "--config=tiny.yaml",
            f"--runs_dir={where}",
            f"--data={__name__}.Odd",
            "--data.init_args.what=tuple",
        )
    assert (here / "own").is_dir() and not list((here / "own").iterdir()) and not (here / "new").exists()


class Odd(DataModule):
    """Examples as other people have them."""

    def __init__(self, what: str) -> None:
        super().__init__({"wave": {"channels": 1, "resolution": [4]}}, num_classes=2)
        content = {"numpy": np.ones((4, 1)), "list": [1.0]}.get(what, torch.ones(4, 1))
        example = {"inputs": {"wave": {"content": content}}, "labels": None if what == "no label" else 1}
        examples = {"tuple": (content, 1), "bare": {"wave": content, "labels": 1}}
        self.train_set = self.val_set = [examples.get(what, example)] * 8


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("list", "inputs['wave']['content']: expected a tensor, found list"),
        ("no label", "labels: expected numbers, or tensors of one shape, found ['NoneType']"),
        ("tuple", "example: expected a dict with inputs, {modality: {content, ...}}, found tuple"),
        ("bare", "example: expected a dict with inputs, {modality: {content, ...}}, found ['labels', 'wave']"),
    ],
)
def test_a_datamodule_of_ones_own_that_breaks_the_contract(what, sentence, capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", f"--data={__name__}.Odd", f"--data.init_args.what={what}")
    assert said.startswith(sentence)


def test_arrays_of_float64_are_taken():
    main(["fit", "--config=tiny.yaml", f"--data={__name__}.Odd", "--data.init_args.what=numpy"])


@pytest.mark.parametrize(
    "given, found",
    [
        (["--checkpoint.mode=min"], "checkpoint.mode: expected max, as higher is better for val/accuracy, found min"),
        (["--checkpoint.monitor=val/loss"],
         "checkpoint.mode: expected min, as lower is better for val/loss, found max"),
        (["--checkpoint.monitor=val/calibration_error"],
         "checkpoint.mode: expected min, as lower is better for val/calibration_error, found max"),
        (["--early_stopping.monitor=train/loss"],
         "early_stopping.mode: expected min, as lower is better for train/loss, found max"),
    ],
)  # fmt: skip
def test_the_worst_is_never_taken_for_the_best(here, capsys, given, found):
    assert fails(capsys, "fit", "--config=tiny.yaml", *given) == found
    assert not (here / "runs").exists()


def test_one_batch_is_one_batch(here):
    one = main(["fit", "--config=tiny.yaml", "--trainer.limit_train_batches=1", "--trainer.max_epochs=1"])
    assert one.trainer.global_step == 1
