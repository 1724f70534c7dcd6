"""Trainings that go on after something has changed: the share of the training decides the learning rate."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, Timer
from torch.utils.data import DataLoader

from perceiver_lightning.cli.messages import without_hints
from perceiver_lightning.clock import time_limit, time_spent
from perceiver_lightning.training.checkpoints import BestAndLast, ConfigWins
from perceiver_lightning.training.optim import learning_rate_factor, make_scheduler
from perceiver_lightning.training.progress import EpochLines
from perceiver_lightning.training.steps import steps_left

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}


class Toy(LightningModule):
    """Learns one number, and keeps the learning rate of each step."""

    def __init__(self, warmup: float = 0.0, schedule: str = "cosine") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        return (self.weight - batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", (self.weight - batch).square().mean(), batch_size=1)

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        total = self.trainer.estimated_stepping_batches
        spent = partial(time_spent, self.trainer) if time_limit(self.trainer) else None
        scheduler = make_scheduler(optimizer, total, self.hparams.schedule, self.hparams.warmup, time_spent=spent)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(folder, batches=6, resume=None, validates=True, callbacks=(), model=None, max_epochs=4, **options):
    """The trainer after a training, and the learning rate of each of its steps."""
    model = Toy() if model is None else model
    loader = DataLoader(torch.ones(batches, 1), batch_size=1)
    options |= {} if validates else {"limit_val_batches": 0}
    last = BestAndLast(folder, filename="best", save_last=True, enable_version_counter=False)
    callbacks = [*callbacks, last, ConfigWins()]
    trainer = Trainer(max_epochs=max_epochs, callbacks=callbacks, num_sanity_val_steps=0, **QUIET, **options)
    with without_hints():
        trainer.fit(model, loader, loader, ckpt_path=resume)
    return trainer, model.rates


class StopAt(Callback):
    """Ends a training as early stopping and a limit of time do."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step == self.step


class StopAfter(Callback):
    """Ends a training with one of its epochs, so that its schedule is that of the whole."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.is_last_batch and trainer.current_epoch == self.epochs - 1


def shares(start: float, steps: int, schedule="cosine", warmup=0.0) -> list[float]:
    """The factors of a training's steps from a share of it on."""
    return [learning_rate_factor(step, steps, schedule, warmup) for step in range(round(start * steps), steps)]


@pytest.mark.parametrize(
    "then, now, validates",
    [
        ((6, 1), (3, 1), True),
        ((6, 1), (6, 2), False),
        *(
            pytest.param(then, now, validates, marks=pytest.mark.slow)
            for then, now in (((6, 2), (6, 1)), ((6, 1), (4, 1)), ((3, 1), (7, 2)))
            for validates in (True, False)
        ),
    ],
)
def test_the_rate_goes_on_at_the_same_share_of_the_epochs(tmp_path, then, now, validates, capsys):
    fit(tmp_path, then[0], accumulate_grad_batches=then[1], validates=validates, callbacks=[StopAfter(2)])
    trainer, rates = fit(tmp_path, now[0], tmp_path / "last.ckpt", validates, accumulate_grad_batches=now[1])
    each = [-(-batches // accumulated) for batches, accumulated in (then, now)]
    assert rates == shares(0.5, 4 * each[1]) and trainer.global_step == 2 * sum(each)
    said = capsys.readouterr().out
    assert f"an epoch has {each[1]} steps, where it had {each[0]}: the learning rate goes on at the same share" in said


@pytest.mark.slow
@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("batches", [6, 3, 4])
def test_a_limit_of_steps_that_is_far_changes_nothing(tmp_path, batches, validates):
    fit(tmp_path, 6, validates=validates, max_steps=12)
    trainer, rates = fit(tmp_path, batches, tmp_path / "last.ckpt", validates, max_steps=100)
    assert trainer.global_step == 12 + 2 * batches and trainer.current_epoch == 4
    assert rates == shares(0.5, 4 * batches)


def test_an_average_of_weights_is_said_to_count_steps(tmp_path, capsys):
    fit(tmp_path, 6, callbacks=[StopAfter(2), EMAWeightAveraging()])
    fit(tmp_path, 3, tmp_path / "last.ckpt", callbacks=[EMAWeightAveraging()])
    assert "share of the training; the average of the weights counts steps as before\n" in capsys.readouterr().out


class Write(Callback):
    def __init__(self, path) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module):
        self.path.write_text(json.dumps([trainer.global_step, pl_module.rates]))


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_go_on_with_what_one_began(tmp_path):
    fit(tmp_path, 6, callbacks=[StopAfter(2)])
    written = tmp_path / "rates.json"
    options = {"devices": 2, "strategy": "ddp_fork", "callbacks": [Write(written)]}
    fit(tmp_path, 6, tmp_path / "last.ckpt", **options)
    assert json.loads(written.read_text()) == [18, shares(0.5, 12)]


def test_a_warm_up_goes_on_too(tmp_path):
    fit(tmp_path, 6, callbacks=[StopAfter(1)], model=Toy(warmup=0.5))
    _, rates = fit(tmp_path, 12, tmp_path / "last.ckpt", model=Toy(warmup=0.5))
    assert rates == shares(0.25, 48, warmup=0.5) and rates[0] < rates[11] < rates[12] == 1


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("step", [9, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 6, 11, 12))])
@pytest.mark.parametrize("by", ["max_steps", "should_stop"])
def test_an_epoch_that_was_cut_is_finished(tmp_path, step, validates, by):
    cut = {"max_steps": step} if by == "max_steps" else {"callbacks": [StopAt(step)]}
    _, before = fit(tmp_path, 6, validates=validates, **cut)
    assert len(before) == step
    trainer, rates = fit(tmp_path, 6, tmp_path / "last.ckpt", validates)
    assert trainer.global_step == 24 and trainer.current_epoch == 4
    assert rates == shares(step / 24, 24)
    if by == "should_stop":
        assert before == shares(0, 24)[:step]


@pytest.mark.parametrize(
    "then, now, done",
    [(6, 3, 2), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((6, 12, 6), (6, 1, 0), (5, 10, 6)))],
)
def test_a_cut_epoch_of_another_length_goes_on_at_its_share(tmp_path, then, now, done):
    fit(tmp_path, then, callbacks=[StopAt(then + 3)])
    trainer, rates = fit(tmp_path, now, tmp_path / "last.ckpt")
    assert rates == shares((now + done) / (4 * now), 4 * now)
    assert trainer.current_epoch == 4


def test_where_steps_end_the_training_the_schedule_ends_with_it(tmp_path):
    fit(tmp_path, 6, callbacks=[StopAfter(2)])
    trainer, rates = fit(tmp_path, 3, tmp_path / "last.ckpt", max_steps=16)  # before the 18 of four epochs
    assert trainer.global_step == 16
    assert rates == shares(8 / 12, 12)


def test_a_training_of_steps_alone_counts_steps(tmp_path):
    fit(tmp_path, 6, max_steps=9, max_epochs=-1)
    trainer, rates = fit(tmp_path, 3, tmp_path / "last.ckpt", max_steps=20, max_epochs=-1)
    assert trainer.global_step == 20 and rates == shares(9 / 20, 20)


def test_steps_are_left_to_the_first_of_two_limits():
    def left(max_epochs, max_steps, batches=6, accumulated=1, epochs=0, inside=0, done=0):
        progress = SimpleNamespace(ready=epochs + bool(inside), processed=epochs)
        batch_progress = SimpleNamespace(is_last_batch=False, current=SimpleNamespace(processed=inside))
        loop = SimpleNamespace(
            epoch_progress=SimpleNamespace(current=progress), epoch_loop=SimpleNamespace(batch_progress=batch_progress)
        )
        return steps_left(
            SimpleNamespace(
                fit_loop=loop,
                max_epochs=max_epochs,
                max_steps=max_steps,
                num_training_batches=batches,
                accumulate_grad_batches=accumulated,
                global_step=done,
            )
        )

    assert left(4, -1) == 24 and left(4, 9) == 9 and left(-1, 9) == 9 and left(-1, -1) == float("inf")
    assert left(4, -1, epochs=1, inside=3, done=9) == 15
    assert left(4, -1, 5, 2, epochs=1, inside=3, done=4) == 8  # of 3, 3, 3, 3
    assert left(4, 30, float("inf"), done=10) == 20 and left(4, -1, float("inf")) == float("inf")


@pytest.fixture
def seconds(monkeypatch):
    """A clock of its own for limits of time, which each step of `Slow` moves on by a second."""
    clock = [100.0]
    monkeypatch.setattr("pytorch_lightning.callbacks.timer.time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(Toy):
        def training_step(self, batch, batch_idx):
            clock[0] += 1
            return super().training_step(batch, batch_idx)

    return Slow


@pytest.mark.parametrize("max_epochs", [4, -1])
@pytest.mark.parametrize("schedule, warmup", [("cosine", 0.0), ("flat_cosine", 0.25), ("step", 0.0)])
def test_a_schedule_by_time_comes_to_its_end_with_the_time(tmp_path, seconds, max_epochs, schedule, warmup, capsys):
    model = seconds(warmup, schedule)
    trainer, rates = fit(tmp_path, callbacks=[Timer({"seconds": 12}), EpochLines()], model=model, max_epochs=max_epochs)
    assert trainer.global_step == 12
    steps = 24 if max_epochs == 4 else 10**6
    assert rates == pytest.approx(
        [learning_rate_factor(second / 12 * steps, steps, schedule, warmup) for second in range(12)]
    )
    limit = f"after 0:00:12{' or 24 steps, whichever is first' if max_epochs == 4 else ''}"
    assert f"max_time: the learning rate comes to the end of {schedule!r} {limit}\n" in capsys.readouterr().out


def test_steps_decide_where_they_end_before_the_time(tmp_path, seconds):
    _, rates = fit(tmp_path, callbacks=[Timer({"seconds": 100})], model=seconds())
    assert rates == pytest.approx(shares(0, 24))


@pytest.mark.parametrize("max_epochs", [4, -1])
def test_a_resume_has_the_time_that_is_left(tmp_path, seconds, max_epochs):
    fit(tmp_path, callbacks=[Timer({"seconds": 12}), StopAt(5)], model=seconds(), max_epochs=max_epochs)
    resume = tmp_path / "last.ckpt"
    trainer, rates = fit(
        tmp_path, resume=resume, callbacks=[Timer({"seconds": 12})], model=seconds(), max_epochs=max_epochs
    )
    assert trainer.global_step == 12 and rates == pytest.approx(shares(5 / 12, 12))


def test_a_constant_rate_says_nothing_of_a_limit_of_time(tmp_path, capsys):
    for schedule, limit in (("constant", "00:00:01:00"), ("cosine", None)):
        fit(tmp_path, 6, callbacks=[EpochLines(), Timer(limit)], model=Toy(schedule=schedule))
        assert "max_time" not in capsys.readouterr().out
