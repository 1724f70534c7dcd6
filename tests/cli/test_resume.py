"""Trainings that go on, that are cut short, and what of them is kept."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import column, fails, metrics, with_callback
from pytorch_lightning import Callback

from datamodules.base import DataModule
from perceiver_lightning.cli import main
from perceiver_lightning.cli.resume import Memory
from perceiver_lightning.errors import InputError

pytestmark = pytest.mark.usefixtures("here")


def test_resume_goes_on_in_the_same_run(run):
    whole = main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=4", "--name=whole"])
    resumed = main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=4"])
    assert resumed.trainer.global_step == whole.trainer.global_step == 16
    assert resumed.trainer.current_epoch == 4
    assert Path(resumed.trainer.log_dir) == run and [path.name for path in run.parent.iterdir()] == ["version_0"]
    assert list(column(run, "val/accuracy")) == [3, 7, 11, 15]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 16
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert resumed.trainer.optimizers[0].param_groups[0]["lr"] == 1e-2


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_average_of_the_weights_is_kept_and_goes_on(here):
    averages: list[dict[str, torch.Tensor]] = []

    class ByHand(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            now = {name: value.clone() for name, value in pl_module.state_dict().items()}
            before = averages[-1] if averages else now
            averages.append({name: 0.8 * before[name] + 0.2 * value for name, value in now.items()})

    average = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.8"]
    with with_callback(ByHand()):
        main(["fit", "--config=tiny.yaml", *average])
        main(["fit", "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt", "--trainer.max_epochs=4"])
    last = torch.load("runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == len(averages) == 16
    torch.testing.assert_close(last["state_dict"], averages[-1])
    assert not torch.equal(*(last[key]["perceiver.latents"] for key in ("state_dict", "current_model_state")))
    run = Path("runs/tiny/version_0")
    validated = column(run, "val/loss")[15]
    cli = main(["validate", "--config=tiny.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert np.isclose(float(cli.trainer.callback_metrics["val/loss"]), validated, rtol=1e-5)


def test_new_patience_wins_on_resume(run):
    more = ["--early_stopping.patience=77", "--trainer.max_epochs=3"]
    cli = main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", *more])
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
    arguments = ["--trainer.max_epochs=3", "--model.init_args.learning_rate=1"]
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", *arguments])
    assert column(run, "val/accuracy")[11] < max(column(run, "val/accuracy").values())
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == best


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


@pytest.mark.slow
def test_a_sigterm_keeps_the_newest_state_too(run, capsys):
    class Terminate(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 10:
                os.kill(os.getpid(), signal.SIGTERM)

    with with_callback(Terminate()), pytest.raises(SystemExit) as stop:
        main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=3"])
    assert stop.value.code == 143
    assert capsys.readouterr().out.splitlines()[-1].startswith("resume   python -m perceiver_lightning fit ")
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 10


@pytest.mark.parametrize("epochs", [2, 1])
def test_a_run_that_has_come_to_its_end_is_left_alone(run, capsys, epochs):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    last = f"--ckpt_path={run}/checkpoints/last.ckpt"
    said = fails(capsys, "fit", last, f"--trainer.max_epochs={epochs}")
    assert "max_epochs" in said and str(epochs) in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_validation_that_was_cut_short_is_done_again_whole():
    class Count(Callback):
        def __init__(self, until):
            self.seen, self.until = [], until

        def on_fit_start(self, trainer, pl_module):
            pl_module.perceiver.register_forward_pre_hook(self.look)

        def look(self, perceiver, given):
            if not perceiver.training:
                self.seen.append(len(given[0]["image"]["content"]))
                if len(self.seen) == self.until:
                    raise KeyboardInterrupt

    config = ["--config=tiny.yaml", "--data.init_args.batch_size=40", "--trainer.limit_val_batches=1.0"]
    with with_callback(Count(3)), pytest.raises(SystemExit):
        main(["fit", *config, "--trainer.num_sanity_val_steps=0"])
    whole = Count(None)
    with with_callback(whole):
        main(["fit", "--ckpt_path=runs/tiny/version_0/checkpoints/last.ckpt"])
    assert whole.seen == [40, 40, 40, 24] * 2


@pytest.mark.slow
def test_a_training_that_validates_too_seldom_has_no_best(capsys):
    main(["fit", "--config=tiny.yaml", "--trainer.check_val_every_n_epoch=3"])
    out = capsys.readouterr().out
    assert "run      runs/tiny/version_0, no best: nothing was validated\n" in out
    test = "python -m perceiver_lightning test --ckpt_path runs/tiny/version_0/checkpoints/last.ckpt"
    assert f"test     {test}\n" in out
    assert main(test.split()[3:]).trainer.callback_metrics["test/loss"] > 0


def test_two_ctrl_c_at_once_tell_what_is_kept(run, capsys):
    class Twice(Raise):
        def on_exception(self, trainer, pl_module, exception):
            raise KeyboardInterrupt

    with with_callback(Twice(KeyboardInterrupt(), 10)), pytest.raises(SystemExit):
        main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=3"])
    assert "interrupted at step 10, the state of step 8 is kept" in capsys.readouterr().out
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8


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


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "trainer.max_epochs: expected more than 2, the epochs that {last} has trained, found 2"),
        (["--trainer.max_epochs=1"],
         "trainer.max_epochs: expected more than 2, the epochs that {last} has trained, found 1"),
        (["--trainer.max_steps=99"],
         "trainer.max_epochs: expected more than 2, the epochs that {last} has trained, found 2"),
        (["--trainer.max_epochs=-1", "--trainer.max_steps=5"],
         "trainer.max_steps: expected more than 8, the steps that {last} has trained, found 5"),
        (["--trainer.max_epochs=1", "--trainer.max_steps=5"],
         "trainer.max_steps: expected more than 8, the steps that {last} has trained, found 5"),
    ],
)  # fmt: skip
def test_a_training_that_is_done_says_how_far_it_came(run, capsys, flags, sentence):
    last = f"{run.relative_to(Path.cwd())}/checkpoints/last.ckpt"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert fails(capsys, "fit", f"--ckpt_path={last}", *flags) == sentence.format(last=last)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def progress(processed: int, completed: int, is_last_batch: bool) -> dict:
    done = {"ready": processed, "started": processed, "processed": processed, "completed": completed}
    return {"epoch_progress": {"current": done}, "epoch_loop.batch_progress": {"is_last_batch": is_last_batch}}


def test_an_epoch_that_was_cut_is_not_done():
    assert Memory(loops=progress(4, 3, is_last_batch=True)).epochs == 4  # saved when the fourth ended
    assert Memory(loops=progress(3, 2, is_last_batch=False)).epochs == 2  # cut by max_steps
    assert Memory().epochs == 0


def test_a_resume_whose_time_is_spent_says_so(here, capsys):
    limit = ["--trainer.max_time=00:00:00:01", "--trainer.max_epochs=-1"]
    main(["fit", "--config=tiny.yaml", *limit])
    last = "runs/tiny/version_0/checkpoints/last.ckpt"
    capsys.readouterr()
    said = fails(capsys, "fit", f"--ckpt_path={last}")
    assert said == f"trainer.max_time: expected more than the time that {last} has trained, found 00:00:00:01"
