"""What is done to a whole batch of pictures on its device.

Legend: B batch, T pictures, H height, W width, C channels.
"""

import torch
from torch import Tensor


def changes(content: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pictures (B, T, H, W, C) less the one before each, over the root mean square of all that; the first is zero."""
    changed = torch.cat([torch.zeros_like(content[:, :1]), content.diff(dim=1)], 1)
    there = torch.ones_like(content[..., 0]) if mask is None else mask.to(content.dtype)
    changed = changed * there[..., None]
    values_B = there.flatten(1).sum(1).clamp(min=1) * content.shape[-1]
    size_B = (changed.flatten(1).square().sum(1) / values_B).sqrt().clamp(min=1e-6)  # of a still clip it is zero
    return changed / size_B[:, None, None, None, None]
