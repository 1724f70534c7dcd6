"""What is kept of a training, shown and written, where the command line's own tests do not look."""

import csv
import itertools
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Timer
from torch.utils.data import DataLoader

from perceiver_lightning.tasks import ClassificationTask
from perceiver_lightning.training import progress
from perceiver_lightning.training.checkpoints import BestAndLast
from perceiver_lightning.training.loggers import RunLogger
from perceiver_lightning.training.predictions import PredictionWriter
from perceiver_lightning.training.progress import Bar, EpochLines, counted

CLASSES = ["a", "b", "c"]


class Line(LightningModule):
    """Learns one number; its validation says what it is told to."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scores = list(scores)

    def training_step(self, batch, batch_idx):
        loss = (self.weight - batch).square().mean()
        self.log("train/loss", loss, batch_size=1)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/score", self.scores.pop(0), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def make_trainer(tmp_path, *callbacks, **options):
    plain = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **(plain | options))


def loader(count: int) -> DataLoader:
    return DataLoader([torch.ones(1)] * count, batch_size=None)  # type: ignore[arg-type]


def best_and_last(tmp_path, **options) -> BestAndLast:
    given = {"monitor": "val/score", "mode": "max", "filename": "best", "enable_version_counter": False}
    return BestAndLast(tmp_path / "checkpoints", save_last=True, save_on_exception=True, **(given | options))


def steps(tmp_path) -> dict[str, int]:
    """The step in each checkpoint."""
    files = (tmp_path / "checkpoints").iterdir()
    return {path.stem: torch.load(path, weights_only=True)["global_step"] for path in files}


@pytest.mark.parametrize(
    ("options", "scores", "expected"),
    [
        ({"max_epochs": 4}, [0, 1, 3, 2, 1], {"best": 8, "last": 16}),
        ({"max_epochs": 3, "val_check_interval": 2}, [0, 1, 3, 2, 1, 1, 1], {"best": 4, "last": 12}),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [0, 1, 0], {"best": 8, "last": 16}),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [0, 1], {"best": 8, "last": 12}),
    ],
)
def test_best_is_the_best_and_last_the_newest_whenever_it_validates(tmp_path, options, scores, expected):
    trainer = make_trainer(tmp_path, best_and_last(tmp_path), num_sanity_val_steps=1, **options)
    trainer.fit(Line(scores), loader(4), loader(1))
    assert steps(tmp_path) == expected


def test_last_is_the_newest_where_nothing_validates(tmp_path, capsys):
    trainer = make_trainer(tmp_path, best_and_last(tmp_path), EpochLines(), max_epochs=2, limit_val_batches=0)
    trainer.fit(Line([]), loader(3), loader(1))
    assert steps(tmp_path) == {"last": 6}
    assert [line.split()[:4] for line in capsys.readouterr().out.splitlines()] == [
        ["epoch", "1/2", "step", "3"],
        ["epoch", "2/2", "step", "6"],
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, ["1/3 4", "2/3 8 validated", "3/3 12"]),
        ({"max_epochs": 1, "val_check_interval": 2}, ["1/1 2 validated", "1/1 4 validated"]),
        ({"max_epochs": 2, "val_check_interval": 3}, ["1/2 3 validated", "2/2 7 validated"]),
    ],
)
def test_a_line_per_validation_and_per_epoch_without_any(tmp_path, capsys, options, expected):
    trainer = make_trainer(tmp_path, best_and_last(tmp_path), EpochLines(), num_sanity_val_steps=1, **options)
    trainer.fit(Line([0, 1, 2]), loader(4), loader(1))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [f"{line[1]} {line[3]}{' validated' * ('val/score' in line)}" for line in lines] == expected


def test_a_training_that_goes_on_prints_no_line_of_what_was_done_before(tmp_path, capsys):
    options = {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    trainer = make_trainer(tmp_path, best_and_last(tmp_path), EpochLines(), max_epochs=2, **options)
    trainer.fit(Line([0]), loader(4), loader(1))
    best = shutil.copy(tmp_path / "checkpoints" / "best.ckpt", tmp_path)
    assert torch.load(best, weights_only=True)["epoch"] == 1
    capsys.readouterr()
    trainer = make_trainer(tmp_path, best_and_last(tmp_path / "again"), EpochLines(), max_epochs=3, **options)
    trainer.fit(Line([0]), loader(4), loader(1), ckpt_path=best)
    assert [line.split()[1:4] for line in capsys.readouterr().out.splitlines()] == [["3/3", "step", "12"]]


@pytest.mark.parametrize(
    ("current", "most", "text"), [(0, 30, " 1/30"), (9, 30, "10/30"), (0, None, "1"), (4, -1, "5")]
)
def test_epochs_are_counted_from_one(current, most, text):
    trainer = Trainer(logger=False, max_epochs=most, max_steps=5, accelerator="cpu", enable_checkpointing=False)
    trainer.fit_loop.epoch_progress.current.completed = current
    assert counted(trainer) == text


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4), st.booleans())
def test_rows_of_predictions(tmp_path_factory, values, multilabel):
    probabilities = torch.tensor(values)
    names = [f"file, {i}" for i in range(len(values))]
    output = tmp_path_factory.mktemp("out") / "new" / "predictions.csv"
    writer = PredictionWriter(output)
    facts = {"x": {"channels": 1, "resolution": [2]}}, 3, CLASSES, multilabel
    task = ClassificationTask(*facts, num_latents=2, latent_width=8, cross_attends=[1], self_attends=0, bands=1)
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    writer.write_on_epoch_end(trainer, task, [{"name": names, "predictions": probabilities}], [])
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["file"], row["class"]): float(row["probability"]) for row in rows}
    assert len(found) == len(rows) == len(values) * (3 if multilabel else 1)
    for i, name in enumerate(names):
        if multilabel:
            assert [found[name, c] for c in CLASSES] == pytest.approx(values[i], abs=1e-6)
        else:
            (best,) = (row for row in rows if row["file"] == name)
            assert float(best["probability"]) == pytest.approx(max(values[i]), abs=1e-6)
            assert values[i][CLASSES.index(best["class"])] == pytest.approx(max(values[i]), abs=1e-6)
    assert [path.name for path in output.parent.iterdir()] == ["predictions.csv"]


@given(st.lists(st.integers(0, 9), max_size=6).map(sorted), st.integers(0, 9))
def test_metrics_go_on_and_steps_taken_again_are_dropped(tmp_path_factory, old, last_step):
    folder = tmp_path_factory.mktemp("runs")
    first = RunLogger(str(folder), "x")
    run = Path(first.log_dir)
    for step in old:
        first.log_metrics({"train/loss": 1.0}, step)
        first.save()
    again = RunLogger(str(folder), "x", run, last_step)
    assert Path(again.log_dir) == run
    before = (run / "metrics.csv").read_text() if old else None
    again.save()
    assert ((run / "metrics.csv").read_text() if old else None) == before  # nothing new, nothing changed
    for step in (last_step, last_step + 1):
        again.log_metrics({"val/loss": 2.0}, step)
        again.save()
    with open(run / "metrics.csv") as file:
        rows = [(int(row["step"]), row.get("train/loss", ""), row["val/loss"]) for row in csv.DictReader(file)]
    kept = [(step, "1.0", "") for step in old if step < last_step]
    assert rows == [*kept, (last_step, "", "2.0"), (last_step + 1, "", "2.0")]


def test_a_new_run_takes_the_next_version(tmp_path):
    for version in range(3):
        logger = RunLogger(str(tmp_path), "some/name")
        assert logger.log_dir == str(tmp_path / "some" / "name" / f"version_{version}")
        logger.log_metrics({"a": 1.0}, 0)
        logger.save()
    assert sorted(path.name for path in (tmp_path / "some" / "name").iterdir()) == [f"version_{k}" for k in range(3)]


class Judged(Line):
    """Tells how often it was right: 0 of 1, then 1 of 1, ..."""

    def training_step(self, batch, batch_idx):
        right = torch.tensor(float(batch_idx % 2))
        self.log("train/accuracy", right, on_step=False, on_epoch=True, batch_size=1)
        self.log("train/examples_per_second", 1234.0, batch_size=1)
        return super().training_step(batch, batch_idx)


def test_the_bar_tells_loss_accuracy_speed_and_the_time_left(tmp_path, monkeypatch):
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            bar.looked = -math.inf  # it looks a few times a second
            seen.append(bar.get_metrics(trainer, pl_module))

    now = itertools.count(0, 10)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    bar = Bar()
    trainer = make_trainer(tmp_path, bar, Look(), max_epochs=2, limit_val_batches=0, enable_progress_bar=True)
    trainer.fit(Judged([]), loader(4), loader(1))
    assert [metrics["accuracy"] for metrics in seen[:4]] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert seen[1]["loss"] == pytest.approx(0.64) and seen[0]["examples/s"] == "1,234"
    assert [metrics["left"] for metrics in seen][-1] == "0:00:00"  # of both epochs
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 60.0))
    bar.start, bar.first_step = 0.0, 4
    bar.last_step = 10

    def left(step: int, *timers: Timer) -> float | None:
        return bar.seconds_left(SimpleNamespace(global_step=step, callbacks=timers))

    assert left(6) == 120 and left(4) is None  # 30 s a step since it began at step 4
    assert left(6, Timer({"seconds": 70})) == 70 and left(6, Timer({"seconds": 200})) == 120
    bar.last_step = math.inf
    assert left(6) is None and left(6, Timer({"seconds": 70})) == 70
