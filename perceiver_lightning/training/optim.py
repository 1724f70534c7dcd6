"""Optimisers, which parameters decay, and learning rates over the steps of a training."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from perceiver_lightning.errors import InputError, require

OptimizerName = Literal["adamw", "lamb"]
ScheduleName = Literal["cosine", "step", "flat_cosine", "constant"]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of the trainable parameters: the weights of linear layers decay, everything else does not.

    Everything else is biases, LayerNorms, and the arrays that are learned as such: latents, queries, positions,
    modality vectors. (DeepMind's code lets those arrays decay too.)
    """
    linear = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear)}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in linear], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in linear], "weight_decay": 0.0},
    ]


def make_optimizer(
    module: nn.Module, name: OptimizerName, learning_rate: float, weight_decay: float, mixed_precision: bool = False
) -> torch.optim.Optimizer:
    """AdamW, or LAMB as the papers train with it; the Trainer clips gradients, neither of these does.

    `mixed_precision` says that the Trainer's is Lightning's: then AdamW is not fused, as it could not be clipped.

    LAMB scales the step of every parameter by its trust ratio, also of those that do not decay, as DeepMind's code
    does (`optax.scale_by_trust_ratio`); timm alone would leave them out, and with no weight decay be plain Adam.
    """
    groups = parameter_groups(module, weight_decay)
    if name == "adamw":
        # On the CPU one pass over memory instead of ten; on GPUs torch's choice.
        on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True if on_cpu and not mixed_precision else None)
    if name == "lamb":
        from timm.optim import Lamb  # here, because timm takes seconds to import

        return Lamb(groups, lr=learning_rate, max_grad_norm=None, always_adapt=True)
    raise InputError(f"optimizer: expected adamw or lamb, found {name!r}")


def check_optimizer(learning_rate: float, weight_decay: float) -> None:
    """Raise InputError, naming the argument, unless both are finite and not negative."""
    for name, value in {"learning_rate": learning_rate, "weight_decay": weight_decay}.items():
        require(0 <= value < math.inf, name, "a finite number, 0 or more", value)


def check_schedule(schedule: str, warmup: float, flat: float, milestones: Sequence[float]) -> None:
    """Raise InputError, naming the argument, unless `learning_rate_factor` can work with these."""
    schedules = ("cosine", "step", "flat_cosine", "constant")
    require(schedule in schedules, "schedule", "cosine, step, flat_cosine or constant", repr(schedule))
    for name, fractions in {"warmup": [warmup], "flat": [flat], "milestones": list(milestones)}.items():
        found = fractions if name == "milestones" else fractions[0]
        in_range = all(0 <= fraction < 1 for fraction in fractions)
        require(in_range, name, "fractions of the training's steps, from 0 to below 1", found)
    rises = list(milestones) == sorted(milestones)
    require(rises, "milestones", "rising fractions of the training's steps", list(milestones))


def learning_rate_factor(
    step: float,
    total: float,
    schedule: ScheduleName,
    warmup: float = 0.0,
    flat: float = 0.5,
    milestones: Sequence[float] = (0.7, 0.85, 0.95),
) -> float:
    """What the learning rate is multiplied with at an optimiser step (0-based) of `total`.

    Linear from nearly 0 to 1 over the first `warmup * total` steps, whatever the schedule; then
        cosine        a half cosine from 1, where the warm-up ends, to 0 at the end;
        flat_cosine   1 up to `flat * total`, then a half cosine to 0 (Perceiver IO, ImageNet: 55 of 110 epochs);
        step          1, a tenth of it after each of `milestones * total` (Perceiver, ImageNet: 84, 102, 114 of 120);
        constant      1 (Perceiver, ModelNet40).
    Steps beyond `total` take the last value.
    """
    # The last step is never warm-up; `total` may be infinite where nothing depends on it.
    warm = min(round(warmup * total), total - 1) if warmup else 0
    if step < warm:
        return (step + 1) / (warm + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 0.1 ** sum(step >= round(fraction * total) for fraction in milestones)
    start = warm if schedule == "cosine" else max(warm, min(round(flat * total), total - 1))
    gone = min(max(step - start, 0) / max(total - start, 1), 1.0)
    return (1 + math.cos(math.pi * gone)) / 2


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    total: float,
    schedule: ScheduleName,
    warmup: float = 0.0,
    flat: float = 0.5,
    milestones: Sequence[float] = (0.7, 0.85, 0.95),
    time_spent: Callable[[], float] | None = None,
) -> LambdaLR:
    """`learning_rate_factor` as a scheduler, stepped after each optimiser step.

    Args:
        total: the training's number of optimiser steps, Lightning's `trainer.estimated_stepping_batches`.
        time_spent: of a training that ends by time, the share of it that has passed. Then the schedule is at the share
            of the steps or of the time, whichever is larger; of the time alone where `total` is not known.

    Raises:
        InputError: when neither `total` (-1 or infinite) nor the time is known and the schedule needs it.
    """
    if time_spent is not None:
        known = 0 <= total < math.inf
        end = total if known else 1e6

        def factor(step: float) -> float:
            place = max(step if known else 0, time_spent() * end)
            return learning_rate_factor(place, end, schedule, warmup, flat, milestones)

        return LambdaLR(optimizer, factor)
    if not 0 <= total < math.inf and (schedule != "constant" or warmup):
        raise InputError(
            f"schedule: expected a training of known length for {schedule!r} with warmup {warmup}, found none; set "
            "trainer.max_epochs, trainer.max_steps (where the data has no length) or trainer.max_time"
        )
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, schedule, warmup, flat, milestones))
