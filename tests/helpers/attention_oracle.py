"""Attention by its definition."""

import math

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention by its definition, one query at a time, over the elements that it may see."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b in range(q.shape[0]):
        for n in range(q.shape[2]):
            there = torch.ones(k.shape[2], dtype=torch.bool)
            if mask is not None:
                there = mask[b] if mask.ndim == 2 else mask[b, n]
            for h in range(q.shape[1]) if there.any() else ():
                logits = k[b, h][there] @ q[b, h, n] / math.sqrt(q.shape[-1])
                weights = (logits - logits.max()).exp()
                out[b, h, n] = (weights / weights.sum()) @ v[b, h][there]
    return out
