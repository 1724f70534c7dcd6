"""Late fusion: each modality by a Perceiver of its own, the mean of what they say, and the one switch in a task."""

import pytest
import torch
from randomly import randomise

from datamodules import Moving
from perceiver_lightning.analysis.attention.maps import record
from perceiver_lightning.analysis.costs import summarise
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import LateFusion, Perceiver
from perceiver_lightning.tasks.classification import ClassificationTask
from perceiver_lightning.training.explain import figures

FACTS = {"image": {"channels": 3, "resolution": [4, 5]}, "audio": {"channels": 2, "resolution": [6]}}
TINY = {"num_latents": 4, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2, "bands": 2}


def fused() -> LateFusion:
    return randomise(LateFusion(FACTS, 3, **TINY).double())


def inputs(masks: dict[str, list[bool]]) -> dict:
    """Four examples of both, with a mask of whole examples for the modalities that are named."""
    torch.manual_seed(0)
    made = {"image": {"content": torch.randn(4, 4, 5, 3).double()}, "audio": {"content": torch.randn(4, 6, 2).double()}}
    for name, there in masks.items():
        content = made[name]["content"]
        elements = [1] * (content.ndim - 2)
        made[name]["mask"] = torch.tensor(there).reshape(-1, *elements).expand(content.shape[:-1])
    return made


def test_each_example_gets_the_mean_of_the_modalities_that_it_has():
    model = fused()
    given = inputs({"image": [True, True, False, False], "audio": [True, False, True, False]})
    # The oracle: the two Perceivers, each with nothing but its own modality, called one by one.
    image, audio = (model.perceivers[name]({name: {"content": given[name]["content"]}}) for name in FACTS)
    expected = torch.stack([(image[0] + audio[0]) / 2, image[1], audio[2], torch.zeros(3)])
    torch.testing.assert_close(model(given), expected)


def test_a_modality_that_no_example_has_may_be_absent():
    model, given = fused(), inputs({})
    torch.testing.assert_close(model({"audio": given["audio"]}), model.perceivers["audio"]({"audio": given["audio"]}))


def test_a_hidden_modality_gets_no_gradient_and_changes_nothing():
    model = fused()
    given = inputs({"audio": [False] * 4})
    model(given).square().sum().backward()
    assert all(parameter.grad.abs().max() == 0 for parameter in model.perceivers["audio"].parameters())
    assert model.perceivers["image"].latents.grad.abs().max() > 0
    other = {**given, "audio": {**given["audio"], "content": given["audio"]["content"] + 1}}
    torch.testing.assert_close(model(other), model(given), rtol=0, atol=0)


@pytest.mark.parametrize("given", [{}, {"video": {"content": torch.zeros(1, 2, 3)}}])
def test_modalities_that_it_was_not_built_for_are_refused(given):
    with pytest.raises(ValueError, match=r"inputs: expected some of the modalities \['image', 'audio'\], found \["):
        fused()(given)


# ---------------------------------------------------------------- the switch


def test_one_switch_of_the_task():
    data = Moving(sizes=(8, 4, 4), batch_size=4)
    early, late = (ClassificationTask(data.modalities, 4, fusion=fusion, **TINY) for fusion in ("early", "late"))
    assert isinstance(early.perceiver, Perceiver) and isinstance(late.perceiver, LateFusion)
    alone = [Perceiver({name: facts}, 4, **TINY) for name, facts in data.modalities.items()]
    found = summarise(late, data)
    assert found["parameters"] == sum(parameter.numel() for one in alone for parameter in one.parameters())
    assert {name: facts["channels"] for name, facts in found["modalities"].items()} == {
        name: one.inputs.width for name, one in zip(data.modalities, alone, strict=True)
    }
    assert found["latents"] == [4, 8]


@pytest.mark.slow
def test_a_run_remembers_it(tmp_path):
    config = ["--config=configs/synthetic/moving.yaml", "--data.init_args.sizes=[16, 8, 8]"]
    small = [f"--model.init_args.{name}={value}" for name, value in TINY.items()]
    run = main(
        ["fit", *config, *small, "--model.init_args.fusion=late", "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]
    )
    test = main(["test", f"--ckpt_path={run.run}/checkpoints/best.ckpt"])
    assert isinstance(test.model.perceiver, LateFusion)
    assert test.trainer.callback_metrics["test/loss"] > 0


@pytest.mark.slow
def test_the_flops_are_those_of_each_alone():
    data = Moving(sizes=(8, 4, 4))
    late = ClassificationTask(data.modalities, 4, fusion="late", **TINY)
    alone = [
        summarise(ClassificationTask({name: facts}, 4, **TINY), Only(data, name))
        for name, facts in data.modalities.items()
    ]
    found = summarise(late, data)
    assert found["flops"] == sum(one["flops"] for one in alone) > 0


class Only:
    """The facts of one modality of a datamodule."""

    def __init__(self, data: Moving, name: str) -> None:
        self.modalities, self.batch_size, self.elements = {name: data.modalities[name]}, data.batch_size, data.elements


def test_each_modality_is_drawn_by_its_own_perceiver():
    data = Moving(sizes=(8, 4, 4), batch_size=4)
    late = ClassificationTask(data.modalities, 4, fusion="late", **TINY)
    data.setup("test")
    batch = data.finish(next(iter(data.test_dataloader())), training=False)
    assert [sorted(drawn) for drawn in figures(late.perceiver, batch, [0, 2], data, latents=1)] == [
        ["audio", "video"]
    ] * 2


def test_maps_are_of_one_perceiver():
    with pytest.raises(
        ValueError, match=r"perceiver: expected a Perceiver, such as `perceivers\(\).*, found LateFusion"
    ):
        record(fused(), inputs({}))


def test_another_fusion_is_refused():
    with pytest.raises(InputError, match="fusion: expected early or late, found 'middle'"):
        ClassificationTask(FACTS, 3, fusion="middle", **TINY)
