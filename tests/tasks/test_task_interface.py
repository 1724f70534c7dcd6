"""A new task is one file: here are a task and its datamodule, and every command runs with them.

The task: which share of an image's pixels is bright, the darkest and the brightest of them, all of one picture (B, 3).
"""

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from command_line import column, fails, weights
from torchmetrics import MeanAbsoluteError, MetricCollection

from datamodules import DataModule
from perceiver_lightning.cli import main
from perceiver_lightning.tasks import PerceiverTask


class LightTask(PerceiverTask):
    """Predicts numbers in [0, 1] that say how light a picture is."""

    facts = ("modalities", "light_names")
    monitor = "val/mean_absolute_error"
    headline = ("val/mean_absolute_error",)

    def __init__(self, modalities, light_names, sharpness: float = 1.0, **options):
        super().__init__(modalities, len(light_names), **options)
        self.sharpness = sharpness

    def targets(self, batch):
        return batch["light"]

    def check_targets(self, batch):
        if batch["light"].max() > 1:
            raise ValueError("light is at most 1")

    def loss(self, outputs_BK, targets):
        return F.binary_cross_entropy_with_logits(self.sharpness * outputs_BK, targets)

    def predictions(self, outputs_BK):
        return (self.sharpness * outputs_BK).sigmoid()

    def make_metrics(self):
        return MetricCollection({"mean_absolute_error": MeanAbsoluteError()})


class Pictures(DataModule):
    """Pictures of noise around a grey, with what the task needs under names of its own."""

    def __init__(self, count: int = 32, batch_size: int = 8, num_workers: int = 0):
        super().__init__(
            modalities={"image": {"channels": 1, "resolution": [4, 4]}},
            light_names=["share", "darkest", "brightest"],
            batch_size=batch_size,
            num_workers=num_workers,
        )
        self.count = count

    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)

        def picture(row: int) -> dict:
            image = (torch.rand(4, 4, 1, generator=generator) + torch.rand(1, generator=generator)) / 2
            light = torch.stack([(image > 0.5).float().mean(), image.min(), image.max()])
            return {"inputs": {"image": {"content": image}}, "light": light, "name": f"picture {row}"}

        self.train_set = [picture(row) for row in range(self.count)]
        self.val_set = self.test_set = [picture(row) for row in range(8)]
        self.predict_set = [{key: row[key] for key in ("inputs", "name")} for row in self.val_set[:2]]


CONFIG = {
    "name": "light",
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
    "model": {
        "class_path": f"{__name__}.LightTask",
        "init_args": {
            "sharpness": 2.0,
            "num_latents": 4,
            "latent_width": 8,
            "cross_attends": [1],
            "self_attends": 1,
            "self_heads": 2,
            "bands": 2,
            "learning_rate": 0.01,
        },
    },
    "data": {"class_path": f"{__name__}.Pictures"},
}


def test_every_command_runs_with_a_task_of_ones_own(here, capsys):
    Path("light.yaml").write_text(yaml.safe_dump(CONFIG))
    main(["fit", "--config=light.yaml"])
    run = Path("runs/light/version_0")
    said = capsys.readouterr().out
    assert "LightTask" in said and "val/mean_absolute_error" in said
    losses = column(run, "train/loss")
    assert len(losses) == 8 and list(losses.values())[-1] < losses[0]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["checkpoint"]["monitor"] == "val/mean_absolute_error" and config["checkpoint"]["mode"] == "min"

    best, last = (f"--ckpt_path={run}/checkpoints/{name}.ckpt" for name in ("best", "last"))
    validated = main(["validate", best]).trainer.callback_metrics
    errors = column(run, "val/mean_absolute_error")
    assert validated["val/mean_absolute_error"] == pytest.approx(min(errors.values()), rel=1e-4)
    tested = main(["test", best])
    assert tested.model.sharpness == 2
    assert tested.trainer.callback_metrics["test/mean_absolute_error"] == pytest.approx(min(errors.values()), rel=1e-4)

    main(["predict", best, "--explain=pictures"])
    with open(run / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["picture 0", "picture 1"]
    assert set(rows[0]) == {"file", "output 0", "output 1", "output 2"}
    assert all(0 <= float(rows[0][f"output {k}"]) <= 1 for k in range(3))
    assert len(list(Path("pictures").glob("*.png"))) == 2

    main(["summary", "--config=light.yaml", "--json=price.json"])
    assert json.loads(Path("price.json").read_text())["modalities"] == {"image": {"elements": 16, "channels": 11}}

    before = weights(run / "checkpoints" / "last.ckpt")
    resumed = main(["fit", last, "--trainer.max_epochs=3"])
    assert resumed.trainer.global_step == 12 and resumed.model.sharpness == 2
    after = weights(run / "checkpoints" / "last.ckpt")
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_a_fact_that_the_data_lacks_is_named(here, capsys):
    Path("light.yaml").write_text(yaml.safe_dump(CONFIG))
    said = fails(capsys, "fit", "--config=light.yaml", "--data=Digits")
    assert "light_names" in said and "LightTask" in said and "Digits" in said


def test_targets_are_checked_before_they_are_used(here, monkeypatch):
    Path("light.yaml").write_text(yaml.safe_dump(CONFIG))

    class Bright(Pictures):
        def setup(self, stage):
            super().setup(stage)
            for row in self.train_set:
                row["light"] = row["light"] + 1

    monkeypatch.setitem(globals(), "Pictures", Bright)
    with pytest.raises(ValueError, match="light is at most 1"):
        main(["fit", "--config=light.yaml"])
