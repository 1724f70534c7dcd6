"""From fit to predict through `main`, how configs compose, and the program in processes of its own."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml
from command_line import column, metrics, weights
from image_files import write_images

from perceiver_lightning.analysis.runs import load_metrics
from perceiver_lightning.cli import main
from perceiver_lightning.training.loggers import RunLogger
from perceiver_lightning.training.wandb_logger import Wandb

pytestmark = pytest.mark.usefixtures("here")


# ---- from fit to predict


def test_a_run_is_one_folder(trained):
    names = ["checkpoints", "config.yaml", "facts.json", "metrics.csv"]
    assert sorted(path.name for path in trained.iterdir()) == names
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
    assert lines["plot"] == "python -m perceiver_lightning.compare runs/tiny/version_0"
    assert lines["compare"] == "python -m perceiver_lightning.compare runs/tiny/version_*"
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


def test_a_null_in_the_place_of_a_default_is_remembered(here):
    for name in ("cat", "dog"):
        write_images(here / "pets" / name, 20, size=(8, 8))
    pets = ["--data=ImageFolder", "--data.init_args.root=pets", "--data.init_args.size=8"]
    main(["fit", "--config=tiny.yaml", *pets, "--data.init_args.centre_crop=null", "--trainer.max_epochs=1"])
    cli = main(["test", "--ckpt_path=runs/tiny/version_0/checkpoints/best.ckpt"])
    assert cli.config.test.data.init_args.centre_crop is None
    assert (
        yaml.safe_load(Path("runs/tiny/version_0/config.yaml").read_text())["data"]["init_args"]["centre_crop"] is None
    )


def test_a_config_wins_over_the_checkpoint_too(run):
    Path("more.yaml").write_text(yaml.safe_dump({"data": {"class_path": "Digits", "init_args": {"batch_size": 60}}}))
    cli = main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--config=more.yaml"])
    assert cli.datamodule.batch_size == 60


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


@pytest.mark.parametrize("change", [shutil.rmtree, lambda folder: (folder / "new").mkdir()])
def test_predict_knows_its_classes_whatever_became_of_the_folder_of_the_training(here, photos, change):
    for name in ("cat", "dog"):
        write_images(here / "pets" / name, 20, size=(8, 8))
    pets = ["--data=ImageFolder", "--data.init_args.root=pets", "--data.init_args.size=8"]
    main(["fit", "--config=tiny.yaml", *pets, "--trainer.max_epochs=1"])
    change(here / "pets")
    best = "--ckpt_path=runs/tiny/version_0/checkpoints/best.ckpt"
    main(["predict", best, f"--data.init_args.predict_dir={photos}"])
    with open("runs/tiny/version_0/predictions.csv") as file:
        assert {row["class"] for row in csv.DictReader(file)} <= {"cat", "dog"}


def test_two_starts_at_once_get_folders_of_their_own(here):
    loggers = [RunLogger("runs", "tiny") for _ in range(2)]
    assert len({logger.log_dir for logger in loggers}) == 1  # both have seen the same number as free
    assert [str(logger.reserve()) for logger in loggers] == ["runs/tiny/version_0", "runs/tiny/version_1"]
    assert loggers[1].log_dir == "runs/tiny/version_1"


def test_other_data_in_a_test_take_no_argument_of_the_first(run, here):
    for name in "0123456789":
        write_images(here / "scans" / name, 12, size=(8, 8))
    other = {"data": {"class_path": "ImageFolder", "init_args": {"root": "scans", "size": 8, "channels": 1}}}
    Path("scans.yaml").write_text(yaml.safe_dump(other))
    cli = main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--config=scans.yaml"])
    assert len(cli.datamodule.test_set) == 12 and cli.datamodule.batch_size == 64


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_second_logger_joins_the_run(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cli = main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=1", "--trainer.logger+=Wandb"])
    wandb.finish()
    assert isinstance(cli.trainer.loggers[1], Wandb)
    assert Path(cli.trainer.log_dir) == Path("runs/tiny/version_0")
    assert column(Path(cli.trainer.log_dir), "val/accuracy")
    more = ["--trainer.logger+=Wandb", "--trainer.max_epochs=2"]
    resumed = main(["fit", "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt", *more])
    wandb.finish()
    assert len(resumed.trainer.loggers) == 2


# ---- processes of their own


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_the_program_says_one_sentence_and_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-m", "perceiver_lightning", "fit", "--config=none.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: --config: expected a file, found none that can be read at none.yaml\n"


def results(run: Path) -> dict[str, float]:
    return {name: points[-1][1] for name, points in load_metrics(run).items() if name.startswith("test/")}


@pytest.mark.xdist_group("processes")
@pytest.mark.slow
def test_two_processes_train_test_and_predict_together(here, photos):
    def program(*args: str) -> subprocess.CompletedProcess:
        ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "perceiver_lightning", *args, *ddp],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    compiled = ["--model.init_args.attention=separable", "--model.init_args.num_latents=32"]  # logits enough for C++
    said = program("fit", "--config=tiny.yaml", *compiled).stdout
    run = here / "runs" / "tiny" / "version_0"
    assert said.count("run      runs/tiny/version_0") == said.count("epoch 2/2") == 1  # the first process speaks
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    program("test", best)  # 360 digits: as many for each
    together = results(run)
    main(["test", best])
    assert results(run) == pytest.approx(together, rel=1e-5) and len(together) == 5
    program("predict", best, f"--data.init_args.predict_dir={photos}")
    together = (run / "predictions.csv").read_text()
    main(["predict", best, f"--data.init_args.predict_dir={photos}"])
    assert (run / "predictions.csv").read_text() == together and together.count("\n") == 6
