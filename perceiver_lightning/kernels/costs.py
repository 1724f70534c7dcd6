"""Which attention costs less: the work of each, and what a unit of it takes."""

import torch

from perceiver_lightning.kernels.common import kind_of_device
from perceiver_lightning.kernels.cpu import is_compiled
from perceiver_lightning.model.inputs import InputArray, Part

DENSE_BYTES = 4 * 2**30  # keys and values beyond this are not laid out on any device, if that can be avoided

# Nanoseconds on one core, forward and backward, of each unit of work below, by kind of device: what
# `python -m benchmarks.attention_costs` found. On other kinds nothing was measured.
PRICES = {
    "cpu": {
        "dense": {"array": 4.0761, "projections": 0.0735, "products": 0.0967, "logits": 4.8953},
        "dense, bfloat16": {"array": 1.6327, "projections": 0.0356, "products": 0.0565, "logits": 5.9191},
        "separable": {
            "absorbing": 0.0993, "elements": 5.0097,
            "logits": 0.7277, "logits x channels": 0.1768, "axes": 0.2081,
        },
        "separable, no compiler": {
            "absorbing": 0.0796, "elements": 0.0,
            "logits": 6.1619, "logits x channels": 0.1848, "axes": 0.2458,
        },
    }
}  # fmt: skip


def is_cheaper(inputs: InputArray, latents: int, heads: int, qk_width: int, v_width: int) -> bool:
    """Whether separable attention costs less than dense, for cross-attends of this form, in the dtype that autocast
    gives the dense one.

    `PRICES` tell which is cheaper, not how long it takes: what either does for each latent is not in them. On a kind of
    device that was not measured, dense is taken unless its keys and values would take more than DENSE_BYTES.
    """
    content, width = inputs.parts[0].content, qk_width + v_width
    batch, device = content.shape[0], kind_of_device(content)
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    itemsize = (torch.get_autocast_dtype(device) if autocast else content.dtype).itemsize
    if batch * sum(part.content.shape[1:-1].numel() for part in inputs.parts) * width * itemsize > DENSE_BYTES:
        return True
    if device not in PRICES:
        return False
    dense = separable = 0.0
    for part in inputs.parts:
        prices = PRICES[device]["dense, bfloat16" if itemsize == 2 else "dense"]
        work = dense_work(part, latents, heads, width)
        dense += sum(prices[name] * amount for name, amount in work.items())
        logits = batch * latents * heads * part.content.shape[1:-1].numel()
        compiled = is_compiled(channels_of(part), logits, device)
        prices = PRICES[device]["separable" if compiled else "separable, no compiler"]
        work = separable_work(part, latents, heads, width)
        separable += sum(prices[name] * amount for name, amount in work.items())
    return separable < dense


def dense_work(part: Part, latents: int, heads: int, width: int) -> dict[str, float]:
    """Of one example: entries of the input array, products for keys and values, products with those, logits."""
    elements = part.content.shape[1:-1].numel()
    return {
        "array": elements * part.width,
        "projections": elements * part.width * width,
        "products": elements * latents * width,
        "logits": elements * latents * heads,
    }


def separable_work(part: Part, latents: int, heads: int, width: int) -> dict[str, float]:
    """Of one example: products that absorb the keys' weights (once for all parts, in truth), elements, logits, products
    for them, products with the axes' tables."""
    elements, queries = part.content.shape[1:-1].numel(), latents * heads
    return {
        "absorbing": latents * part.width * width,
        "elements": elements,
        "logits": elements * queries,
        "logits x channels": elements * queries * channels_of(part),
        "axes": queries * sum(table.shape[-2:].numel() for table in part.tables),
    }


def channels_of(part: Part) -> int:
    """How many channels `grid_attention` gets: content, what is free of a grid, the mean, the mask."""
    features = 0 if part.features is None else part.features.shape[-1]
    return part.content.shape[-1] + features + 1 + (part.mask is not None)
