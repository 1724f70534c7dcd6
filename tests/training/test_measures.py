"""Facts and speed of a training."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch
from command_line import column
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from perceiver_lightning.analysis.costs import summarise
from perceiver_lightning.checkpoint import load_run
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.training import measures
from perceiver_lightning.training.commit import commit
from perceiver_lightning.training.measures import Measures, rows


def test_facts_are_those_of_the_summary_and_of_git(trained):
    facts = json.loads((trained / "facts.json").read_text())
    run = load_run(trained)
    price = summarise(run.model, run.datamodule)
    assert facts["parameters"] == price["parameters"] and facts["flops"] == price["flops_executed"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert facts.get("commit", "").removesuffix("-dirty") == head  # none in a copy without git


def test_no_git_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None


def test_every_run_logs_its_speed_but_no_utilisation_without_a_peak(trained):
    flops = json.loads((trained / "facts.json").read_text())["flops"]
    speed, flops_per_second = (column(trained, f"train/{key}_per_second") for key in ("examples", "flops"))
    assert list(speed) == [1, 3, 5, 7]  # log_every_n_steps is 2
    assert flops_per_second == {step: pytest.approx(3 * flops * value, rel=1e-5) for step, value in speed.items()}
    assert list(column(trained, "train/gradient_norm")) == list(speed)
    assert not column(trained, "train/flops_utilisation")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_peak_gives_the_utilisation_and_is_remembered(tmp_path):
    main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=1", "--measures.peak_flops=1e9"])
    run = tmp_path / "runs/tiny/version_0"
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=2"])
    flops_per_second, share = (column(run, f"train/flops_{key}") for key in ("per_second", "utilisation"))
    assert share == {step: pytest.approx(value / 1e9, rel=1e-5) for step, value in flops_per_second.items()}
    assert list(share) == [1, 3, 5, 7]


class Two(LightningModule):
    """Two numbers, whose loss has the gradient (3, 4) times the batch's scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        scale = batch["inputs"]["a"]["content"].mean()
        return (3 * self.first + 4 * self.second).sum() * scale

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Clock(Callback):
    """Time that passes as it is told to: half a second a batch, a thousand a validation."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(measures, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.seen: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now += 0.5

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.now += 1000

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def fit(tmp_path, *callbacks, **options):
    plain = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    batches = [{"inputs": {"a": {"content": torch.full((7, 2), scale)}}} for scale in (1.0, 1.0, 2.0, 2.0)]
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=list(callbacks), log_every_n_steps=2, enable_checkpointing=False,
        **(plain | options),
    )  # fmt: skip
    trainer.fit(Two(), loader, DataLoader([batches[0]], batch_size=None))  # type: ignore[arg-type]


def test_speed_leaves_validations_out_and_the_norm_is_that_before_clipping(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    options = {"max_epochs": 2, "val_check_interval": 1, "gradient_clip_val": 0.1, "num_sanity_val_steps": 1}
    fit(tmp_path, clock, Measures(), **options)
    assert [seen["train/examples_per_second"] for seen in clock.seen] == pytest.approx([14, 14])
    assert [seen["train/gradient_norm"] for seen in clock.seen] == pytest.approx([10, 10])


def test_accumulated_batches_count_together(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    fit(tmp_path, clock, Measures(), max_epochs=1, accumulate_grad_batches=2, limit_val_batches=0)
    assert clock.seen[0]["train/examples_per_second"] == pytest.approx(14)
    assert clock.seen[0]["train/gradient_norm"] == pytest.approx(10)  # of the second step, whose batches have scale 2


def test_batches_of_another_form_have_no_rows():
    assert rows(torch.ones(3)) == rows({"x": 1}) == rows({"inputs": {}}) == 0
    assert rows({"inputs": {"a": {"content": torch.ones(3, 4)}}}) == 3


@pytest.mark.parametrize("peak", [0, -1.0, float("nan")])
def test_a_peak_that_cannot_be_is_named(peak):
    with pytest.raises(InputError, match=f"measures.peak_flops: expected a number above 0, found {peak}"):
        Measures(peak)
