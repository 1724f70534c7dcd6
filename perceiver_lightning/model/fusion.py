"""Several Perceivers as one: late fusion of modalities, and deep ensembles.

Legend of shapes: L members or modalities, B batch, K outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_lightning.model.checks import check_names
from perceiver_lightning.model.perceiver import Perceiver


class Ensemble(nn.Module):
    """Perceivers of one architecture, each with its own random weights, which read the same inputs.

    Args:
        members: L.
        modalities: as `Perceiver` has them.
        num_outputs: width of the output.
        perceiver: the other arguments of `Perceiver`, the same for each.

    Source: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles"
    (2017), who take the mean of probabilities; a task here takes that of logits, as of late fusion.
    """

    def __init__(self, members: int, modalities: Mapping[str, Mapping[str, Any]], num_outputs: int, **perceiver: Any):
        super().__init__()
        self.members = nn.ModuleList([Perceiver(modalities, num_outputs, **perceiver) for _ in range(members)])

    def perceivers(self) -> dict[str, Perceiver]:
        """The Perceiver that reads each modality, for a look at one: the first member."""
        return cast(Perceiver, self.members[0]).perceivers()

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """From `{modality: {"content", "positions"?, "mask"?}}` to the output of each member, (L, B, *, K)."""
        return torch.stack([member(inputs) for member in self.members])


class ByModality(nn.ModuleDict):
    """A Perceiver for each modality; called, it gives them as a dict.

    So `LateFusion.perceivers()` is what `Perceiver` and `Ensemble` have as a method, and checkpoints keep their names.
    """

    def forward(self) -> dict[str, Perceiver]:
        """The Perceiver that reads each modality."""
        return {name: cast(Perceiver, perceiver) for name, perceiver in self.items()}


class LateFusion(nn.Module):
    """The mean of the outputs of one Perceiver for each modality, each with its own weights; trained as one.

    A modality that is missing from an example, or masked there as a whole, does not count in its mean; an example
    without any gets zeros.

    Args:
        modalities: as `Perceiver` has them.
        num_outputs: width of the output.
        perceiver: the other arguments of `Perceiver`, the same for each.
    """

    def __init__(self, modalities: Mapping[str, Mapping[str, Any]], num_outputs: int, **perceiver: Any):
        super().__init__()
        self.perceivers = ByModality(
            {name: Perceiver({name: facts}, num_outputs, **perceiver) for name, facts in modalities.items()}
        )

    @property
    def members(self) -> Sequence[nn.Module]:
        """What is trained by its own loss, and clipped by its own norm: this model as a whole."""
        return [self]

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """From `{modality: {"content", "positions"?, "mask"?}}` to the mean of the outputs (B, *, K).

        Raises:
            ValueError: when a modality is unknown, none is there, or its shapes are not what the model was built for.
        """
        check_names(inputs, list(self.perceivers))
        outputs = torch.stack([self.perceivers[name]({name: part}) for name, part in inputs.items()])
        there_LB = torch.stack([is_there(part) for part in inputs.values()])
        share_LB = there_LB / there_LB.sum(0).clamp(min=1)
        return (share_LB.reshape(*share_LB.shape, *[1] * (outputs.ndim - 2)) * outputs).sum(0)


def is_there(part: Mapping[str, Any]) -> Tensor:
    """Whether an example has anything of a modality, bool (B,)."""
    mask = part.get("mask")
    content = part["content"]
    if mask is None:
        return torch.ones(len(content), dtype=torch.bool, device=content.device)
    return mask.flatten(1).any(1)
