"""Ensembles: Perceivers side by side, each trained as if alone, whose mean is evaluated; the one switch in a task."""

import pytest
import torch
from pytorch_lightning import Trainer
from torch.optim import SGD
from torch.utils.data import DataLoader

from datamodules import Moving, Shapes
from perceiver_lightning.analysis.attention.maps import record
from perceiver_lightning.analysis.costs import summarise
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Ensemble, Perceiver
from perceiver_lightning.tasks.classification import ClassificationTask
from perceiver_lightning.training.explain import figures

FACTS = {"image": {"channels": 3, "resolution": [4, 5]}}
TINY = {"num_latents": 4, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2, "bands": 2}


def tasks(**options) -> tuple[ClassificationTask, list[ClassificationTask]]:
    """An ensemble of three, and tasks of each member alone, with the same weights."""
    torch.manual_seed(0)
    together, *alone = (ClassificationTask(FACTS, 5, members=members, **TINY, **options) for members in (3, 1, 1, 1))
    for task, member in zip(alone, together.perceiver.members, strict=True):
        task.perceiver.load_state_dict(member.state_dict())
    return together, alone


def batch_of(labels: torch.Tensor) -> dict:
    return {"inputs": {"image": {"content": torch.randn(len(labels), 4, 5, 3)}}, "labels": labels}


HARD = torch.tensor([0, 3, 1, 4, 2, 0])
SOFT = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.mark.parametrize(
    "labels, options, clip",
    [
        (HARD, {"label_smoothing": 0.1}, {}),
        (SOFT, {}, {"gradient_clip_val": 0.1}),
        ((SOFT > 0.2).float(), {"multilabel": True}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
        (HARD, {"class_weights": True}, {"gradient_clip_val": 0.1}),
    ],
)
def test_each_member_learns_as_it_would_alone(labels, options, clip):
    together, alone = tasks(**options)
    assert not torch.equal(*(member.latents for member in list(together.perceiver.members)[:2]))
    torch.manual_seed(1)
    batches = [batch_of(labels.roll(step, 0)) for step in range(3)]
    loader = DataLoader(batches, batch_size=None)
    for task in (together, *alone):
        task.setup = lambda stage: None  # there is no datamodule to ask for frequencies
        task.class_weight = torch.arange(1.0, 6.0) if options.get("class_weights") else None
        # Not AdamW, which hardly sees how large gradients are.
        task.configure_optimizers = lambda task=task: SGD(task.parameters(), lr=0.3)
        Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, **clip,
        ).fit(task, loader, loader)  # fmt: skip
    for task, member in zip(alone, together.perceiver.members, strict=True):
        for name, parameter in member.named_parameters():
            torch.testing.assert_close(parameter, task.perceiver.get_parameter(name), rtol=1e-4, atol=1e-5)


def test_the_mean_of_their_logits_is_evaluated():
    together, alone = tasks()
    inputs = batch_of(torch.zeros(6))["inputs"]
    expected = sum(task(inputs) for task in alone) / 3
    torch.testing.assert_close(together(inputs), expected)
    assert together.predict_step({"inputs": inputs}, 0)["predictions"].allclose(expected.softmax(-1))


def test_the_logged_loss_is_the_mean_of_theirs():
    together, alone = tasks()
    logged = {}
    for task in alone:
        task.log = lambda *_, **__: None  # there is no trainer
    together.log = lambda name, value, **_: logged.update({name: value.detach().item()})
    batch = batch_of(HARD)
    together.training_step(batch, 0)
    losses = [task.training_step(batch, 0).item() for task in alone]
    assert logged["train/loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.slow
def test_one_switch_of_the_task():
    data = Moving(sizes=(8, 4, 4), batch_size=4)
    one, three = (ClassificationTask(data.modalities, 4, members=members, **TINY) for members in (1, 3))
    assert isinstance(one.perceiver, Perceiver) and isinstance(three.perceiver, Ensemble)
    of_one, of_three = summarise(one, data), summarise(three, data)
    for fact in ("parameters", "flops", "flops_executed"):
        assert of_three[fact] == 3 * of_one[fact] > 0
    assert (of_three["modalities"], of_three["latents"]) == (of_one["modalities"], of_one["latents"])
    assert of_three["memory_bytes"] > 2 * of_one["memory_bytes"]


@pytest.mark.slow
def test_a_run_remembers_it(tmp_path):
    config = ["--config=configs/synthetic/shapes.yaml", "--data.init_args.sizes=[16, 8, 8]"]
    small = [f"--model.init_args.{name}={value}" for name, value in TINY.items()]
    run = main(
        ["fit", *config, *small, "--model.init_args.members=2", "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]
    )
    test = main(["test", f"--ckpt_path={run.run}/checkpoints/best.ckpt"])
    assert isinstance(test.model.perceiver, Ensemble) and len(test.model.perceiver.members) == 2
    assert test.trainer.callback_metrics["test/loss"] > 0


def test_the_first_is_drawn():
    data = Shapes(sizes=(8, 4, 4), batch_size=4)
    task = ClassificationTask(data.modalities, 4, members=2, **TINY)
    data.setup("test")
    batch = data.finish(next(iter(data.test_dataloader())), training=False)
    called = []
    for place, member in enumerate(task.perceiver.members):
        member.cross_attends[0].register_forward_hook(lambda *_, place=place: called.append(place))
    assert sorted(*figures(task.perceiver, batch, [0], data, latents=1)) == ["image"]
    assert set(called) == {0}
    with pytest.raises(ValueError, match=r"perceiver: expected a Perceiver, such as `perceivers\(\).*, found Ensemble"):
        record(task.perceiver, batch["inputs"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"members": 0}, "members: expected 1 or more, found 0"),
        ({"members": 2, "fusion": "late"}, "members: expected 1, as fusion is late, found 2"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ClassificationTask(FACTS, 3, **options, **TINY)
