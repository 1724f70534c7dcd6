"""What all processes of a training know, brought together."""

from typing import Any

import torch
from torch import Tensor


def gather(value: Any) -> list[Any]:
    """What each process has, by rank; all must ask. Of one process alone, its own."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def gather_states(state: Tensor, group: Any = None) -> list[Tensor]:
    """The state of a metric in each process that has seen examples: torchmetrics' `dist_sync_fn`.

    torchmetrics' own waits for ever where a process has seen none: it hands over an empty state of other axes.
    """
    found = [one.to(state.device) for one in gather(state.cpu())]
    return [one for one in found if one.numel()] or found[:1]
