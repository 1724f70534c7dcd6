"""Evaluation in two processes finds what it finds in one, however the examples divide."""

import csv

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from datamodules.base import DataModule
from perceiver_lightning.cli.messages import without_hints
from perceiver_lightning.tasks import ClassificationTask, RegressionTask
from perceiver_lightning.training.predictions import PredictionWriter

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

SMALL = {"num_latents": 4, "latent_width": 8, "cross_attends": [1], "self_attends": 1, "self_heads": 2, "bands": 2}
FACTS = {
    "classes": {"num_classes": 3},
    "several": {"num_classes": 3, "multilabel": True},
    "numbers": {"num_targets": 2, "target_mean": [1.0, 2.0], "target_std": [1.0, 3.0]},
}


class Points(DataModule):
    """Examples, each in two rows beside each other."""

    def __init__(self, kind: str, examples: int, batch_size: int = 4) -> None:
        super().__init__({"points": {"channels": 1, "resolution": [3]}}, batch_size, **FACTS[kind])
        random = torch.Generator().manual_seed(examples)

        def row(i: int) -> dict:
            content = {"points": {"content": torch.randn(3, 1, generator=random)}}
            labels = {
                "classes": {"labels": i // 2 % 3},
                "several": {"labels": (torch.arange(3) % 2 == i // 2 % 2).float()},
                "numbers": {"targets": torch.tensor([i // 2 % 5, 1.0])},
            }
            return {"inputs": content, "example": i // 2, "name": f"{(7 * i) % 10}", **labels[kind]}

        self.train_set = [row(i) for i in range(16)]
        self.val_set = self.test_set = self.predict_set = [row(i) for i in range(2 * examples)]


def trainer_of(devices: int, folder, **options) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    strategy = "auto" if devices == 1 else "ddp_fork"
    options = {"logger": False, "enable_checkpointing": False} | options
    return Trainer(default_root_dir=folder, devices=devices, strategy=strategy, **quiet, **options)


def task_of(kind: str, data: DataModule):
    torch.manual_seed(0)
    task = RegressionTask if kind == "numbers" else ClassificationTask
    return task(data.modalities, **data.facts, **SMALL)


@pytest.mark.parametrize("kind, examples", [("several", 7), ("several", 2), ("numbers", 2), ("classes", 5)])
def test_a_test_counts_each_example_once(tmp_path, kind, examples):
    data = Points(kind, examples)
    task = task_of(kind, data)
    found = []
    for devices in (1, 2):
        with without_hints():
            trainer = trainer_of(devices, tmp_path)
            trainer.test(task, data, verbose=False)
        found.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5, nan_ok=True) and "test/loss" in found[0]


def test_a_training_validates_each_example_once(tmp_path):
    """Buffers (the targets' mean) are there: DistributedDataParallel would hand them round in each step."""
    data = Points("numbers", 5)
    task = task_of("numbers", data)
    with without_hints():
        trainer = trainer_of(2, tmp_path, max_epochs=2, logger=CSVLogger(tmp_path, "", ""), enable_checkpointing=True)
        trainer.fit(task, data)
        (checkpoint,) = tmp_path.rglob("*.ckpt")
        alone = trainer_of(1, tmp_path)
        alone.validate(task, data, ckpt_path=checkpoint, verbose=False)
    with open(tmp_path / "metrics.csv") as file:
        *_, last = (row for row in csv.DictReader(file) if row["val/loss"])
    found = {name: float(last[name]) for name in alone.callback_metrics}
    assert found == pytest.approx({name: float(value) for name, value in alone.callback_metrics.items()}, rel=1e-5)


def test_predictions_come_once_and_in_order(tmp_path):
    for examples in (5, 1):
        data = Points("classes", examples)
        task = task_of("classes", data)
        for devices in (1, 2):
            output = tmp_path / f"{devices}.csv"
            with without_hints():
                trainer = trainer_of(devices, tmp_path, callbacks=[PredictionWriter(output)])
                trainer.predict(task, data, return_predictions=False)
        assert (tmp_path / "1.csv").read_text() == (tmp_path / "2.csv").read_text()
        assert (tmp_path / "2.csv").read_text().count("\n") == 1 + examples


class OneSided(DataModule):
    """Every other example has no sound, so that one of two ranks has a batch without any."""

    def __init__(self) -> None:
        parts = {name: {"channels": 1, "resolution": [3]} for name in ("picture", "sound")}
        super().__init__(parts, batch_size=1, num_classes=2)

        def example(i: int) -> dict:
            names = ["picture", "sound"][: 1 + i % 2]
            return {"inputs": {name: {"content": torch.ones(3, 1)} for name in names}, "labels": i % 2}

        self.train_set = self.val_set = [example(i) for i in range(7)]


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_a_rank_whose_batch_lacks_a_modality_trains(tmp_path, fusion):
    data = OneSided()
    task = ClassificationTask(data.modalities, **data.facts, **SMALL, fusion=fusion)
    with without_hints():
        trainer = trainer_of(2, tmp_path, max_epochs=2)
        trainer.fit(task, data)
    assert trainer.callback_metrics["val/loss"] > 0
