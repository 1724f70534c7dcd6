"""A deep ensemble: Perceivers that differ in nothing but their weights, trained side by side.

Legend of shapes: L members, B batch, K outputs.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from .perceiver import Perceiver


class Ensemble(nn.Module):
    """Perceivers of one architecture, each drawn anew, which read the same inputs.

    Args:
        members: L.
        modalities: as `Perceiver` has them.
        num_outputs: width of the output.
        perceiver: the other arguments of `Perceiver`, the same for each.

    Source: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles"
    (2017), who judge by the mean of probabilities; a task here takes that of logits, as of late fusion.
    """

    def __init__(self, members: int, modalities: Mapping[str, Mapping[str, Any]], num_outputs: int, **perceiver: Any):
        super().__init__()
        self.members = nn.ModuleList([Perceiver(modalities, num_outputs, **perceiver) for _ in range(members)])

    @property
    def first(self) -> Perceiver:
        """One of them, to look at."""
        return cast(Perceiver, self.members[0])

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """From `{modality: {"content", "positions"?, "mask"?}}` to what each member says, (L, B, *, K)."""
        return torch.stack([member(inputs) for member in self.members])
