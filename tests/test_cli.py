"""The command line, run through `main` as a person would type it, on the digits with a tiny model."""

import contextlib
import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml
from image_files import write_images
from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from datamodules.base import DataModule
from perceiver_lightning.cli import CLI, main
from perceiver_lightning.errors import InputError
from perceiver_lightning.parser import one_sentence
from perceiver_lightning.training.logging import Wandb

TINY = {
    "name": "tiny",
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "limit_train_batches": 4,
        "limit_val_batches": 2,
        "log_every_n_steps": 2,
    },
    "model": {
        "class_path": "ClassificationTask",
        "init_args": {
            "num_latents": 4,
            "latent_width": 8,
            "cross_attends": [1],
            "self_attends": 1,
            "self_heads": 2,
            "bands": 2,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "schedule": "constant",
            "warmup": 0,
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 32}},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder with the config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UV", raising=False)
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of two epochs, made once: its folder. Tests that write take a copy."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with contextlib.chdir(folder):
        main(["fit", "--config=tiny.yaml"])
    return folder / "runs" / "tiny" / "version_0"


@pytest.fixture
def run(trained, here) -> Path:
    """A copy of that run, moved to `runs/tiny/version_0` of the working folder."""
    return Path(shutil.copytree(trained, here / "runs" / "tiny" / "version_0"))


def fails(capsys, *args: str, status: int = 2) -> str:
    """Run a command that must end with one sentence on stderr; return that sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code == status
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said.removeprefix("error: ").strip()


def metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> dict[int, float]:
    """Step -> value of a metric."""
    return {int(row["step"]): float(row[name]) for row in metrics(run) if row.get(name)}


def weights(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


# ---- from fit to predict


def test_a_run_is_one_folder(trained):
    assert sorted(path.name for path in trained.iterdir()) == ["checkpoints", "config.yaml", "metrics.csv"]
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(metrics(trained)[0])
    assert list(column(trained, "val/accuracy")) == [3, 7]
    assert not any(key.startswith("test/") for key in metrics(trained)[0])  # fit leaves the test split alone
    last = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 8 and last["optimizer_states"][0]["state"]


def test_best_is_the_best_of_the_validations(trained):
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    accuracies = column(trained, "val/accuracy")
    assert best["global_step"] == max(accuracies, key=lambda step: accuracies[step]) + 1


def test_the_last_lines_are_commands_that_work(capsys):
    main(["fit", "--config", "tiny.yaml"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-4:])
    assert lines["run"].startswith("runs/tiny/version_0, best val/accuracy 0.")
    assert lines["plot"] == "python -m perceiver_lightning.analysis.runs runs/tiny/version_0"
    assert lines["compare"] == "python -m perceiver_lightning.analysis.runs runs/tiny/version_*"
    python, m, program, *args = lines["test"].split()
    assert (python, m, program) == ("python", "-m", "perceiver_lightning")
    assert main(args).trainer.callback_metrics["test/accuracy"] > 0


def test_a_checkpoint_needs_nothing_beside_it(run, here):
    in_place = main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt"])
    shutil.move(run / "checkpoints" / "best.ckpt", here / "elsewhere.ckpt")
    shutil.rmtree(here / "runs")
    Path("tiny.yaml").unlink()
    moved = main(["test", "--ckpt_path=elsewhere.ckpt"])
    assert moved.trainer.callback_metrics["test/loss"] == in_place.trainer.callback_metrics["test/loss"]
    assert (here / "runs" / "tiny" / "version_0" / "metrics.csv").is_file()


def test_test_and_validate_write_into_the_run_at_the_checkpoints_step(run):
    before = metrics(run)
    cli = main(["test", f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert column(run, "test/accuracy") == {7: pytest.approx(float(cli.trainer.callback_metrics["test/accuracy"]))}
    main(["validate", f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert len(metrics(run)) == len(before) + 2
    assert [{k: v for k, v in row.items() if k in before[0]} for row in metrics(run)[: len(before)]] == before
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 2  # fit's own, untouched
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


def test_flags_win_over_the_checkpoint_in_test(run):
    cli = main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--data.init_args.batch_size=50"])
    assert cli.datamodule.batch_size == 50
    assert cli.config.test.model.init_args.latent_width == 8


def test_a_config_wins_over_the_checkpoint_too(run):
    Path("more.yaml").write_text(yaml.safe_dump({"data": {"class_path": "Digits", "init_args": {"batch_size": 60}}}))
    cli = main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--config=more.yaml"])
    assert cli.datamodule.batch_size == 60


@pytest.fixture
def photos(here):
    for i in range(5):
        write_images(here / "photos" / str(i), 1, 50 * i, size=(8, 8))
    return here / "photos"


def test_predict_writes_file_class_probability(run, photos, capsys):
    cli = main(["predict", f"--ckpt_path={run}/checkpoints/best.ckpt", f"--data.init_args.predict_dir={photos}"])
    assert capsys.readouterr().out.splitlines()[-1] == "results  runs/tiny/version_0/predictions.csv"
    with open(run / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "class", "probability"] and len(rows) == 5
    batch = next(iter(cli.datamodule.predict_dataloader()))
    batch = cli.datamodule.on_after_batch_transfer(batch, 0)
    with torch.no_grad():
        best, classes = cli.model.eval()(batch["inputs"]).softmax(-1).max(-1)
    assert [row["file"] for row in rows] == batch["name"]
    assert [row["class"] for row in rows] == [str(k) for k in classes.tolist()]
    assert np.allclose([float(row["probability"]) for row in rows], best, atol=1e-5)


def test_predict_writes_where_it_is_told(run, photos):
    arguments = [f"--ckpt_path={run}/checkpoints/best.ckpt", f"--data.init_args.predict_dir={photos}"]
    main(["predict", *arguments, "--output=new/answers.csv"])
    assert [path.name for path in Path("new").iterdir()] == ["answers.csv"]
    assert not (run / "predictions.csv").exists()


# ---- configs


def printed(capsys, *args: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main([*args, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_configs_and_flags_compose_and_the_later_wins(capsys):
    Path("wide.yaml").write_text("model: {init_args: {latent_width: 16, num_latents: 6}}\ntrainer: {max_epochs: 5}\n")
    whole = printed(
        capsys, "fit", "--config=tiny.yaml", "--config=wide.yaml", "--model.init_args.num_latents=7", "--name=other"
    )
    arguments = whole["model"]["init_args"]
    assert (arguments["latent_width"], arguments["num_latents"], arguments["self_heads"]) == (16, 7, 2)
    assert (whole["trainer"]["max_epochs"], whole["trainer"]["accelerator"]) == (5, "cpu")
    assert whole["name"] == "other"
    assert "modalities" not in arguments and "num_classes" not in arguments  # the data's to say
    assert not Path("runs").exists()


def test_printed_and_kept_configs_train_the_same(run, capsys):
    Path("printed.yaml").write_text(yaml.safe_dump(printed(capsys, "fit", "--config=tiny.yaml")))
    for config in ("printed.yaml", f"{run}/config.yaml"):
        again = main(["fit", f"--config={config}", "--runs_dir=again"])
        kept = weights(run / "checkpoints" / "last.ckpt")
        assert all(torch.equal(value, kept[name]) for name, value in again.model.state_dict().items())


def test_the_best_is_chosen_by_what_the_config_names():
    main(["fit", "--config=tiny.yaml", "--checkpoint.monitor=val/loss", "--checkpoint.mode=min"])
    losses = column(Path("runs/tiny/version_0"), "val/loss")
    best = torch.load("runs/tiny/version_0/checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == min(losses, key=lambda step: losses[step]) + 1


def test_training_stops_early(capsys):
    args = ["--early_stopping.patience=2", "--trainer.max_epochs=9", "--model.init_args.learning_rate=0"]
    cli = main(["fit", "--config=tiny.yaml", *args])
    assert cli.trainer.current_epoch == 3
    assert "stopped early: no better val/accuracy in 2 validations" in capsys.readouterr().out


def test_a_second_logger_joins_the_run(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cli = main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=1", "--trainer.logger+=Wandb"])
    wandb.finish()
    assert isinstance(cli.trainer.loggers[1], Wandb)
    assert Path(cli.trainer.log_dir) == Path("runs/tiny/version_0")
    assert column(Path(cli.trainer.log_dir), "val/accuracy")
    resumed = main(["fit", "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt", "--trainer.logger+=Wandb"])
    wandb.finish()
    assert len(resumed.trainer.loggers) == 2


# ---- resume


def test_resume_goes_on_as_if_it_had_not_stopped(run):
    whole = main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=4", "--name=whole"])
    resumed = main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=4"])
    assert resumed.trainer.global_step == whole.trainer.global_step == 16
    assert resumed.trainer.current_epoch == 4
    assert Path(resumed.trainer.log_dir) == run and [path.name for path in run.parent.iterdir()] == ["version_0"]
    assert list(column(run, "val/accuracy")) == [3, 7, 11, 15]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 16
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert resumed.trainer.optimizers[0].param_groups[0]["lr"] == 1e-2


def test_resume_takes_back_the_steps_that_it_takes_again(run):
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=4"])
    early = run / "checkpoints" / "early.ckpt"
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 16
    shutil.copy(run / "checkpoints" / "last.ckpt", early)
    main(["fit", f"--ckpt_path={early}", "--trainer.max_epochs=5"])
    shutil.copy(early, run / "checkpoints" / "last.ckpt")
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=5"])
    steps = [int(row["step"]) for row in metrics(run) if row["val/accuracy"]]
    assert steps == [3, 7, 11, 15, 19]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_new_learning_rate_reaches_the_restored_optimiser(run, schedule):
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append([dict(group, params=None) for group in trainer.optimizers[0].param_groups])

    flags = {"learning_rate": 7e-4, "weight_decay": 0.03, "schedule": schedule}
    arguments = [f"--model.init_args.{key}={value}" for key, value in flags.items()]
    with with_callback(Look()):
        cli = main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=4", *arguments])
    factors = np.ones(8) if schedule == "constant" else (1 + np.cos(np.pi * np.arange(8, 16) / 16)) / 2
    assert np.allclose([[group["lr"] for group in groups] for groups in seen], 7e-4 * factors[:, None])
    assert [group["weight_decay"] for group in seen[0]] == [0.03, 0]
    assert next(iter(cli.trainer.optimizers[0].state.values()))["step"] == 16  # the momenta are the old ones
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert yaml.safe_load(checkpoint["config"])["model"]["init_args"]["learning_rate"] == 7e-4
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["learning_rate"] == 7e-4


class with_callback:
    """Adds a callback to every trainer that the command line makes meanwhile."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        make = CLI._instantiate_trainer
        self.patch.setattr(
            CLI, "_instantiate_trainer", lambda cli, config, given: make(cli, config, [self.callback, *given])
        )

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def test_new_patience_wins_on_resume(run):
    cli = main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--early_stopping.patience=77"])
    assert cli.trainer.early_stopping_callback.patience == 77


def test_a_new_name_begins_a_new_run_and_leaves_the_old_one(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    last = f"{run}/checkpoints/last.ckpt"
    cli = main(["fit", f"--ckpt_path={last}", "--name=branch", "--trainer.max_epochs=3"])
    new = Path("runs/branch/version_0")
    assert Path(cli.trainer.log_dir) == new and cli.trainer.global_step == 12
    assert list(column(new, "val/accuracy")) == [11]
    assert (new / "checkpoints" / "best.ckpt").is_file()  # its own best, not the old run's
    assert yaml.safe_load((new / "config.yaml").read_text())["ckpt_path"] == last
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_worse_epoch_after_resume_leaves_the_best_alone(run):
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    arguments = ["--trainer.max_epochs=3", "--model.init_args.learning_rate=100"]
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", *arguments])
    assert column(run, "val/accuracy")[11] < max(column(run, "val/accuracy").values())
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == best


# ---- interrupted


class Raise(Callback):
    def __init__(self, error: BaseException, step: int) -> None:
        self.error = error
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise self.error


def test_ctrl_c_keeps_the_newest_state_and_says_how_to_go_on(run, capsys):
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    with with_callback(Raise(KeyboardInterrupt(), 10)), pytest.raises(SystemExit) as stop:
        main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=3"])
    assert stop.value.code == 130
    out, err = capsys.readouterr()
    first, second = out.splitlines()[-2:]
    assert first == "interrupted at step 10, the newest state is kept" and "Traceback" not in err
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 10
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == best
    assert second == "resume   python -m perceiver_lightning fit --ckpt_path runs/tiny/version_0/checkpoints/last.ckpt"
    assert main(second.split()[4:]).trainer.global_step == 12


def test_ctrl_c_in_a_validation_can_be_resumed(here):
    class InValidation(Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            if trainer.global_step == 4:
                raise KeyboardInterrupt

    with with_callback(InValidation()), pytest.raises(SystemExit):
        main(["fit", "--config=tiny.yaml"])
    resumed = main(["fit", "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt"])
    assert resumed.trainer.global_step == 8
    assert 7 in column(here / "runs" / "tiny" / "version_0", "val/accuracy")


def test_ctrl_c_before_the_first_step_leaves_nothing():
    class Now(Callback):
        def on_sanity_check_start(self, trainer, pl_module):
            raise KeyboardInterrupt

    with with_callback(Now()), pytest.raises(SystemExit) as stop:
        main(["fit", "--config=tiny.yaml"])
    assert stop.value.code == 130
    assert not Path("runs").exists()


def test_a_bug_keeps_its_traceback_and_the_newest_state():
    with with_callback(Raise(ZeroDivisionError("a bug"), 6)), pytest.raises(ZeroDivisionError):
        main(["fit", "--config=tiny.yaml"])
    last = torch.load("runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 6


def test_a_bug_in_a_constructor_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug") as raised:
        main(["fit", "--config=tiny.yaml", f"--data={__name__}.Buggy"])
    assert not isinstance(raised.value, InputError)


class Buggy(DataModule):
    def __init__(self) -> None:
        raise ValueError("a bug")


# ---- bad input

NO_SUCH = "ClassificationTask has no such argument"
LOGGED = "val/accuracy, val/calibration_error, val/f1, val/loss, val/top5"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
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
        ("--config=none.yaml", "--config: expected a file, found none that can be read at none.yaml"),
        ("--ckpt_path=none.ckpt", "--ckpt_path: expected a checkpoint, found no file none.ckpt"),
        ("--ckpt_path=tiny.yaml", "--ckpt_path: expected a checkpoint, found another or a broken file in tiny.yaml"),
        ("--ckpt_path=other.ckpt", "--ckpt_path: expected a checkpoint of Lightning's, found other contents in other"),
        ("--checkpoint.mode=up", "`mode` can be min, max but got up"),
        ("--model.init_args.self_heads=3", "model: "),
        ("--checkpoint.monitor=val/acc", f"checkpoint.monitor: expected one of {LOGGED}, found val/acc"),
        ("--early_stopping.monitor=val/acc", f"early_stopping.monitor: expected one of {LOGGED}, found val/acc"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(args, sentence, capsys):
    Path("wrong_key.yaml").write_text("trainr: {max_epochs: 3}\n")
    Path("wrong_nested.yaml").write_text("model: {init_args: {bandz: 3}}\n")
    Path("wrong_logger.yaml").write_text("trainer: {logger: {class_path: WandbLoger}}\n")
    Path("broken.yaml").write_text("trainer: {max_epochs: [3\n")
    torch.save({"weight": torch.ones(1)}, "other.ckpt")
    said = fails(capsys, "fit", "--config=tiny.yaml", args)
    assert said.startswith(sentence)
    assert not Path("runs").exists()


def test_a_command_without_what_it_needs(capsys):
    assert fails(capsys, "fit").startswith("expected model and data, found none: give --config FILE")
    assert fails(capsys, "test", "--config=tiny.yaml") == (
        "test: expected --ckpt_path FILE, the checkpoint of a run, found none"
    )
    assert "invalid choice: 'fitt' (choose from 'fit', " in fails(capsys, "fitt")
    assert "expected one argument" in fails(capsys, "fit", "--config")


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


def test_a_missing_folder_in_predict(run, capsys):
    args = [f"--ckpt_path={run}/checkpoints/best.ckpt", "--data.init_args.predict_dir=nowhere"]
    assert "nowhere" in fails(capsys, "predict", *args)
    assert not (run / "predictions.csv").exists()


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
        super().__init__({"wave": {"channels": 1, "resolution": [4]}}, 2)
        self.from_batch = from_batch

    def train_dataloader(self) -> DataLoader:
        batches = [{"inputs": {"wave": {"content": torch.ones(3, 4, 1)}}, "labels": torch.ones(3).long()}] * 5
        batches = [{k: v for k, v in b.items() if k != "labels" or i < self.from_batch} for i, b in enumerate(batches)]
        return DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader([{**self.train_dataloader().dataset[0], "labels": torch.ones(3).long()}], batch_size=None)


def test_a_datamodule_without_labels(capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", f"--data={__name__}.NoLabels")
    assert "labels" in said and "found none" in said
    assert not Path("runs").exists()


def test_bad_input_in_the_middle_of_training_keeps_the_steps_before_it(capsys):
    said = fails(capsys, "fit", "--config=tiny.yaml", f"--data={__name__}.NoLabels", "--data.init_args.from_batch=2")
    assert "labels" in said
    last = torch.load("runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 2


# ---- processes of their own


def test_the_program_says_one_sentence_and_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-m", "perceiver_lightning", "fit", "--config=none.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: --config: expected a file, found none that can be read at none.yaml\n"


@pytest.mark.slow
def test_two_processes_train_test_and_predict_together(here, photos):
    def program(*args: str) -> subprocess.CompletedProcess:
        ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "perceiver_lightning", *args, *ddp], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done

    said = program("fit", "--config=tiny.yaml").stdout
    run = here / "runs" / "tiny" / "version_0"
    assert said.count("run      runs/tiny/version_0") == said.count("epoch 2/2") == 1  # the first process speaks
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    program("predict", best, f"--data.init_args.predict_dir={photos}")
    together = (run / "predictions.csv").read_text()
    main(["predict", best, f"--data.init_args.predict_dir={photos}"])
    assert (run / "predictions.csv").read_text() == together and together.count("\n") == 6
