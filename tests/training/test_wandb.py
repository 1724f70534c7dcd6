"""Runs in Weights & Biases, offline: what is in them, how they go on, and what is said where they cannot begin."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
import wandb
from command_line import fails
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchmetrics.functional import confusion_matrix as torchmetrics_confusion_matrix
from wandb.util import get_core_path

from datamodules.base import DataModule
from perceiver_lightning.analysis.runs import read_run
from perceiver_lightning.cli import main
from perceiver_lightning.compare import compare
from perceiver_lightning.tasks import ClassificationTask
from perceiver_lightning.tasks.classification import confusion_matrix
from perceiver_lightning.training.wandb_logger import Wandb
from perceiver_lightning.training.wandb_report import picture, with_picture

pytestmark = pytest.mark.usefixtures("here")
WANDB = "--trainer.logger+=Wandb"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """W&B as it is in a new process, without an account."""
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setenv("NETRC", "/nowhere/netrc")
    yield
    wandb.teardown()


def records(folder: Path) -> list[dict]:
    """What W&B's own reader says of a file, `wandb leet inspect`."""
    (file,) = folder.glob("run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", file, folder.parent]
    return [json.loads(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.splitlines()]


def parts(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/offline-run-*"))


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_an_offline_run_has_all_that_the_folder_has_and_goes_on_when_it_is_resumed(capsys):
    run = Path("runs/tiny/version_0")
    main(["fit", "--config=tiny.yaml", WANDB])
    first = read_run(parts(run)[0])
    here = read_run(run)
    assert first.checkpoint.samefile(here.checkpoint)
    assert first.name == "tiny/version_0" and first.metrics == here.metrics and first.facts == here.facts
    rows = compare([run, parts(run)[0]], curves="curves.png")
    with Image.open("curves.png") as drawn:
        assert drawn.width > 300
    assert set(rows) == {"best val/accuracy", "at step", "last train/loss", "epochs"}  # no difference
    assert all(one == other for one, other in rows.values())

    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=3"])
    assert wandb.run is None  # it ended with the command
    kept = (run / "wandb_id").read_text().strip()
    assert len(parts(run)) == 2 and all(part.name.endswith(f"-{kept}") for part in parts(run))
    both = read_run(parts(run)[0])
    assert both.metrics == read_run(run).metrics and list(dict(both.metrics["val/loss"])) == [3, 7, 11]
    assert both.config["trainer.max_epochs"] == 3

    main(["fit", "--config=tiny.yaml", WANDB])
    assert (run.with_name("version_1") / "wandb_id").read_text().strip() != kept
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=4", "--name=branch"])
    assert Path("runs/branch/version_0/wandb_id").read_text().strip() != kept
    assert read_run(parts(Path("runs/branch/version_0"))[0]).name == "branch/version_0"


@pytest.mark.slow
def test_pictures_mistakes_and_checkpoints_are_in_the_run():
    main(["fit", "--config=tiny.yaml", WANDB, "--trainer.logger.init_args.log_model=true"])
    (folder,) = parts(Path("runs/tiny/version_0"))
    found = records(folder)
    history = [record["history"]["item"] for record in found if record["type"] == "history"]
    for key, kind in (("val/confusion_matrix", "image-file"), ("val/worst_mistakes", "table-file")):
        items = [item for item in history if item.get(f"{key}._type") == kind]
        assert [item["trainer/global_step"] for item in items] == [3, 7]
        assert all((folder / "files" / item[f"{key}.path"]).stat().st_size > 100 for item in items)
    looks = [item for item in history if item.get("val/attention/image._type") == "images/separated"]
    assert [(item["trainer/global_step"], item["val/attention/image.count"]) for item in looks] == [(3, 2), (7, 2)]
    for item in looks:
        for file in item["val/attention/image.filenames"]:
            with Image.open(folder / "files" / file) as drawn:
                assert drawn.width > 300
    artifacts = [record["artifact"] for record in found if record["type"] == "artifact"]
    models = [artifact for artifact in artifacts if artifact["type"] == "model"]
    assert models and {file["path"] for model in models for file in model["manifest"]["contents"]} == {"model.ckpt"}
    tables = [artifact for artifact in artifacts if artifact["type"] != "model"]
    assert any(file["path"].endswith(".png") for table in tables for file in table["manifest"]["contents"])
    (run,) = (record["run"] for record in found if record["type"] == "run")
    assert (run["project"], run["display_name"]) == ("perceiver", "tiny/version_0")


class Fourfold(DataModule):
    """A grid of four axes, which nothing draws, and means that are no list."""

    mean = std = 0.5

    def __init__(self) -> None:
        super().__init__({"field": {"channels": 1, "resolution": [2, 2, 2, 2]}}, num_classes=2)
        self.train_set = self.val_set = [
            {"inputs": {"field": {"content": torch.full((2, 2, 2, 2, 1), float(k % 2))}}, "labels": k % 2}
            for k in range(8)
        ]


def test_what_cannot_be_drawn_does_not_end_a_training(caplog):
    main(["fit", "--config=tiny.yaml", WANDB, f"--data={__name__}.Fourfold"])
    history = [
        found["history"]["item"] for found in records(parts(Path("runs/tiny/version_0"))[0]) if "history" in found
    ]
    assert not any(key.startswith("val/attention") for item in history for key in item)
    assert caplog.text.count("Attention is not logged to W&B: field has a grid of 4 axes") == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"WANDB_MODE": "online"}, "trainer.logger Wandb: expected W&B to begin a run, found: No API key configured"),
        ({"WANDB_MODE": "online", "WANDB_API_KEY": "abc"}, "found: WANDB_API_KEY invalid: API key must have 40+"),
        ({"WANDB_MODE": "ofline"}, "WANDB_MODE: expected 'online', 'offline', "),
        ({"WANDB_PROJECT": "a/b"}, "trainer.logger Wandb: expected W&B to begin a run, found: Invalid project name"),
    ],
)
def test_where_wandb_cannot_begin_one_sentence_says_what_helps(settings, sentence, monkeypatch, capsys):
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    said = fails(capsys, "fit", "--config=tiny.yaml", WANDB)
    assert sentence in said
    assert said.endswith("run `wandb login` once, or set WANDB_MODE=offline, which needs no account")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_the_config_can_say_offline_too_and_keep_checkpoints(monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    arguments = [WANDB, "--trainer.logger.init_args.offline=true", "--trainer.logger.init_args.log_model=all"]
    main(["fit", "--config=tiny.yaml", "--trainer.max_epochs=1", *arguments])
    (folder,) = parts(Path("runs/tiny/version_0"))
    assert any(record["artifact"]["type"] == "model" for record in records(folder) if record["type"] == "artifact")


@pytest.mark.slow
def test_a_trial_leaves_nothing_and_disabled_keeps_no_id(monkeypatch):
    main(["fit", "--config=tiny.yaml", WANDB, "--trainer.fast_dev_run=1"])
    assert not Path("runs").exists() and not Path("wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    wandb.teardown()
    main(["fit", "--config=tiny.yaml", WANDB, "--trainer.max_epochs=1"])
    assert not Path("runs/tiny/version_0/wandb_id").exists() and Path("runs/tiny/version_0/metrics.csv").is_file()


def test_what_the_config_says_of_project_name_id_and_folder_stays(tmp_path):
    logger = Wandb(project="p", name="n", id="i", save_dir=str(tmp_path / "elsewhere"))
    logger.keep_in(tmp_path / "runs" / "x" / "version_0")
    found = {key: logger.setting(key) for key in ("project", "name", "id", "dir")}
    assert found == {"project": "p", "name": "n", "id": "i", "dir": str(tmp_path / "elsewhere")}


@st.composite
def evaluated(draw, multilabel: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(draw(st.integers(0, 99)))
    E, K = draw(st.integers(1, 8)), draw(st.integers(2, 4))
    probabilities = torch.rand(E, K) if multilabel else torch.rand(E, K).softmax(-1)
    return probabilities, torch.randint(0, 2, (E, K)) if multilabel else torch.randint(0, K, (E,))


@given(evaluated(False))
def test_the_confusion_matrix_is_that_of_torchmetrics(given):
    probabilities, labels = given
    expected = torchmetrics_confusion_matrix(
        probabilities, labels, task="multiclass", num_classes=probabilities.shape[1]
    )
    assert torch.equal(confusion_matrix(probabilities, labels), expected)


@given(evaluated(False) | evaluated(True), st.integers(1, 5), st.booleans())
def test_the_worst_mistakes(given, most, named):
    probabilities, labels = given
    E = len(probabilities)
    rows = torch.arange(E) * 2  # two crops of each example: its first row stands for it
    content = torch.arange(2 * E * 12.0).reshape(2 * E, 2, 2, 3)
    batch = {"inputs": {"image": {"content": content}}, "name": [f"n{row}" for row in range(2 * E)] if named else None}
    facts = {"x": {"channels": 1, "resolution": [2]}}, probabilities.shape[1], None, labels.ndim == 2
    task = ClassificationTask(*facts, num_latents=2, latent_width=8, cross_attends=[1], self_attends=0, bands=1)
    outputs = {"predictions": probabilities, "targets": labels, "row": rows}
    found = [with_picture(row, batch) for row in task.worst(outputs, batch, 7, most)]

    wrong = {}
    for e in range(E):
        if labels.ndim == 1:
            is_wrong, loss = int(probabilities[e].argmax()) != int(labels[e]), -probabilities[e, labels[e]].log()
        else:
            is_wrong = bool(((probabilities[e] > 0.5).long() != labels[e]).any())
            loss = torch.stack(
                [-(p if y else 1 - p).log() for p, y in zip(probabilities[e], labels[e], strict=True)]
            ).mean()
        if is_wrong:
            wrong[f"n{2 * e}" if named else f"batch 7 row {2 * e}"] = float(loss)
    expected = sorted(wrong.values(), reverse=True)[:most]
    assert [row["loss"] for row in found] == pytest.approx(expected, rel=1e-4)
    for row in found:
        assert row["loss"] == pytest.approx(wrong[row["name"]], rel=1e-4)
        assert row["true"] != row["predicted"] and row["picture"].shape == (2, 2, 3)
        assert row["picture"].min() == 0 and row["picture"].max() in (254, 255)


def test_only_a_picture_is_a_picture():
    assert picture({"sound": {"content": torch.ones(2, 5, 1)}, "points": {"content": torch.ones(2, 4, 3)}}, 0) is None
    grey = picture({"sound": {"content": torch.ones(2, 5, 1)}, "image": {"content": torch.ones(2, 4, 4, 1)}}, 1)
    assert grey.shape == (4, 4, 1) and not grey.any()
