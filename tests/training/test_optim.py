import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Perceiver
from perceiver_lightning.training.optim import (
    check_schedule,
    learning_rate_factor,
    make_optimizer,
    make_scheduler,
    parameter_groups,
)


def rates(scheduler: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def sgd(learning_rate: float = 0.3) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=learning_rate)


# Which parameters decay


def test_only_weights_of_linear_layers_decay() -> None:
    modalities = {"image": {"channels": 3, "resolution": [4, 4]}, "sound": {"channels": 1, "resolution": [8]}}
    small = {"num_latents": 4, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2}
    model = Perceiver(modalities, 5, **small, positions="learned", position_width=6, decoder="query")
    decayed, others = parameter_groups(model, 0.1)
    name_of = {id(p): name for name, p in model.named_parameters()}
    names, other_names = ([name_of[id(p)] for p in group["params"]] for group in (decayed, others))

    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert sorted(names + other_names) == sorted(name_of.values())  # every parameter, each once
    layers = ("query", "key", "value", "output", "mlp.0", "mlp.2")
    assert all(name.endswith(tuple(f"{layer}.weight" for layer in layers)) for name in names)
    for part in ("latents", "queries", "table", "modality_vectors", "norm", "bias"):
        assert any(part in name for name in other_names), part
    assert not any("norm" in name for name in names)


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad = False
    decayed, others = parameter_groups(layer, 0.1)
    assert decayed["params"] == [layer.weight] and others["params"] == []


# Optimisers


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_is_the_published_one(weight_decay: float) -> None:
    """By hand: Adam's direction, plus decay, scaled by |parameter| / |direction| for every parameter; no clipping."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    optimizer = make_optimizer(layer, "lamb", learning_rate=0.01, weight_decay=weight_decay)
    expected = {name: p.detach().clone() for name, p in layer.named_parameters()}
    first = {name: torch.zeros_like(p) for name, p in expected.items()}
    second = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in range(1, 5):
        for name, p in layer.named_parameters():
            p.grad = torch.randn_like(p) * 10.0**step  # clipping to a norm would level these
            first[name] = 0.9 * first[name] + 0.1 * p.grad
            second[name] = 0.999 * second[name] + 0.001 * p.grad**2
            direction = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-6)
            if name == "weight":
                direction = direction + weight_decay * expected[name]
            expected[name] = expected[name] - 0.01 * direction * expected[name].norm() / direction.norm()
        optimizer.step()
        for name, p in layer.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name], rtol=1e-9, atol=1e-12)


def test_adamw_decays_the_weight_and_not_the_bias() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    make_optimizer(layer, "adamw", learning_rate=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(layer.weight.detach(), weight * (1 - 0.5 * 0.1))
    torch.testing.assert_close(layer.bias.detach(), bias, rtol=0, atol=0)


def test_adamw_is_fused_on_the_cpu_but_where_it_could_not_be_clipped() -> None:
    fused = [make_optimizer(nn.Linear(3, 2), "adamw", 1e-3, 0.1, mixed).defaults["fused"] for mixed in (False, True)]
    assert fused == [True, None]


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(InputError, match="optimizer: expected adamw or lamb, found 'sgd'"):
        make_optimizer(nn.Linear(1, 1), "sgd", 0.1, 0.0)  # type: ignore[arg-type]


# Schedules


@given(total=st.integers(1, 60))
def test_cosine_is_torchs(total: int) -> None:
    expected = rates(CosineAnnealingLR(sgd(), T_max=total), total + 1)
    assert rates(make_scheduler(sgd(), total, "cosine"), total + 1) == pytest.approx(expected, abs=1e-12)


@given(warm=st.integers(1, 30), rest=st.integers(1, 30))
def test_warm_up_then_cosine_are_torchs(warm: int, rest: int) -> None:
    total = warm + rest
    rising = rates(LinearLR(sgd(), start_factor=1 / (warm + 1), total_iters=warm), warm)
    falling = rates(CosineAnnealingLR(sgd(), T_max=rest), rest + 1)
    found = rates(make_scheduler(sgd(), total, "cosine", warmup=warm / total), total + 1)
    assert found == pytest.approx(rising + falling, abs=1e-12)


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 1251])
def test_step_falls_at_the_perceivers_epochs(steps_per_epoch: int) -> None:
    """Perceiver, ImageNet: 0.004, divided by 10 at epochs 84, 102 and 114 of 120."""
    total = 120 * steps_per_epoch
    for epoch in range(120):
        for step in (epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch - 1):
            rate = 0.004 * learning_rate_factor(step, total, "step")
            divisions = sum(epoch >= milestone for milestone in (84, 102, 114))
            assert rate == pytest.approx(0.004 / 10**divisions, rel=1e-12)


def test_step_is_torchs() -> None:
    expected = rates(MultiStepLR(sgd(), [84, 102, 114]), 120)
    assert rates(make_scheduler(sgd(), 120, "step"), 120) == pytest.approx(expected, rel=1e-9)


def test_flat_cosine_is_perceiver_ios() -> None:
    """Perceiver IO, ImageNet: 0.002 for 55 epochs, then a cosine to 0 over 55."""
    total, per_epoch = 1100, 10
    epochs = {0: 0.002, 54: 0.002, 55: 0.002, 82.5: 0.001, 110: 0.0}
    for epoch, rate in epochs.items():
        found = 0.002 * learning_rate_factor(int(epoch * per_epoch), total, "flat_cosine")
        assert found == pytest.approx(rate, abs=1e-12), epoch
    falling = rates(CosineAnnealingLR(sgd(0.002), T_max=550), 551)
    assert rates(make_scheduler(sgd(0.002), total, "flat_cosine"), 1101)[550:] == pytest.approx(falling, abs=1e-12)


@given(
    total=st.integers(1, 300),
    schedule=st.sampled_from(["cosine", "step", "flat_cosine", "constant"]),
    warmup=st.floats(0, 0.99),
    flat=st.floats(0, 0.99),
)
def test_every_schedule_rises_to_its_peak_once_and_never_again(
    total: int, schedule: str, warmup: float, flat: float
) -> None:
    factors = [learning_rate_factor(step, total, schedule, warmup, flat) for step in range(total + 3)]  # type: ignore[arg-type]
    warm = min(round(warmup * total), total - 1)
    assert all(0 < factor < 1 for factor in factors[:warm])
    assert all(a < b for a, b in pairwise(factors[:warm]))
    assert all(a >= b for a, b in pairwise(factors[warm:]))
    assert factors[-1] == factors[-2] == factors[-3]  # beyond the end nothing changes any more
    if schedule in ("cosine", "flat_cosine") and warm < total:
        assert factors[total] == pytest.approx(0, abs=1e-12)


def test_a_training_without_end_has_a_constant_learning_rate_only() -> None:
    assert rates(make_scheduler(sgd(), math.inf, "constant"), 3) == [0.3, 0.3, 0.3]
    for total in (math.inf, -1):
        with pytest.raises(
            InputError, match=r"schedule: .* for 'cosine'.*trainer.max_epochs, trainer.max_steps .* or trainer.max_time"
        ):
            make_scheduler(sgd(), total, "cosine")
        with pytest.raises(InputError, match=r"schedule: .* for 'constant' with warmup 0.1"):
            make_scheduler(sgd(), total, "constant", warmup=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "linear"}, "schedule: expected cosine, step, flat_cosine or constant, found 'linear'"),
        ({"warmup": 500}, "warmup: expected fractions .*, found 500"),
        ({"flat": -0.1}, "flat: expected fractions .*, found -0.1"),
        ({"milestones": [0.5, 84]}, r"milestones: expected fractions .*, found \[0.5, 84\]"),
    ],
)
def test_a_wrong_schedule_is_named(wrong: dict, message: str) -> None:
    right = {"schedule": "cosine", "warmup": 0.1, "flat": 0.5, "milestones": [0.7]}
    check_schedule(**right)
    with pytest.raises(InputError, match=message):
        check_schedule(**(right | wrong))


def test_a_new_learning_rate_wins_over_a_restored_one() -> None:
    """What a resume with another learning rate does: write it into the groups and the scheduler's base rates."""
    scheduler = make_scheduler(sgd(0.3), 10, "cosine")
    rates(scheduler, 4)
    resumed = make_scheduler(sgd(0.7), 10, "cosine")
    resumed.optimizer.load_state_dict(scheduler.optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.optimizer.param_groups[0]["lr"] == 0.3 * learning_rate_factor(4, 10, "cosine")
    for group in resumed.optimizer.param_groups:
        group["initial_lr"] = 0.7
        group["lr"] = 0.7 * learning_rate_factor(resumed.last_epoch, 10, "cosine")
    resumed.base_lrs = [0.7]
    expected = [0.7 * learning_rate_factor(step, 10, "cosine") for step in range(4, 10)]
    assert rates(resumed, 6) == pytest.approx(expected, rel=1e-12)
