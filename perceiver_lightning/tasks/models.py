"""The model of a task: one Perceiver, one for each modality, or an ensemble."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perceiver_lightning.errors import InputError, require
from perceiver_lightning.model import Ensemble, LateFusion, Model, Perceiver

Fusion = Literal["early", "late"]


def make_model(
    modalities: Mapping[str, Mapping[str, Any]],
    num_outputs: int,
    fusion: Fusion,
    members: int,
    **perceiver: Any,
) -> Model:
    """The model that `PerceiverTask` trains; its docstring says what the arguments mean.

    Raises:
        InputError: an argument is out of its range; the sentence names it.
    """
    require(fusion in ("early", "late"), "fusion", "early or late", repr(fusion))
    require(members >= 1, "members", "1 or more", members)
    require(members == 1 or fusion == "early", "members", "1, as fusion is late", members)
    try:
        if fusion == "late":
            return LateFusion(modalities, num_outputs, **perceiver)
        if members > 1:
            return Ensemble(members, modalities, num_outputs, **perceiver)
        return Perceiver(modalities, num_outputs, **perceiver)
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def untouched(module: nn.Module) -> Tensor:
    """A zero that depends on every trained parameter, whose gradient is 0 and not None then.

    So each takes part in each step, whatever modalities a batch has: training on several devices waits for all
    gradients, and on one the optimiser treats a modality that was left out as one that was masked.
    """
    zeros = [0.0 * parameter.sum() for parameter in module.parameters() if parameter.requires_grad]
    return torch.stack(zeros).sum()
