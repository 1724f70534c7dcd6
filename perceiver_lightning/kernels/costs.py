"""Which attention costs less: the work of each, and what a unit of it takes. On plain numbers: nothing is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perceiver_lightning.kernels import cpu, dispatch

DENSE_BYTES = 4 * 2**30  # keys and values beyond this are not materialised on any device, if that can be avoided

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


@dataclass(frozen=True)
class PartSize:
    """What the price of attending to one part of an input array depends on.

    Attributes:
        elements: places of its grid.
        width: channels of the input array, positions included.
        channels: channels that `grid_attention` gets.
        tables: numbers in the tables of all its axes.
    """

    elements: int
    width: int
    channels: int
    tables: int


@dataclass(frozen=True)
class CrossAttendSize:
    """What the price of a cross-attend depends on, beside the input array.

    Attributes:
        batch: examples.
        latents: N.
        heads: number of heads.
        width: of keys and values together, over all heads.
    """

    batch: int
    latents: int
    heads: int
    width: int


def separable_is_cheaper(parts: Sequence[PartSize], cross: CrossAttendSize, device: str, itemsize: int) -> bool:
    """Whether separable attention costs less than dense.

    `PRICES` tell which is cheaper, not how long it takes: what either does for each latent is not in them. On a kind of
    device that was not measured, dense is taken unless its keys and values would take more than DENSE_BYTES.

    Args:
        parts: of the input array.
        cross: the cross-attend.
        device: kind of device, such as "cpu".
        itemsize: bytes of one number in the dtype of the dense attention.
    """
    if cross.batch * sum(part.elements for part in parts) * cross.width * itemsize > DENSE_BYTES:
        return True
    if device not in PRICES:
        return False
    prices = PRICES[device]
    dense = separable = 0.0
    for part in parts:
        dense += price(dense_work(part, cross), prices["dense, bfloat16" if itemsize == 2 else "dense"])
        kind = "separable" if is_compiled(part, cross, device) else "separable, no compiler"
        separable += price(separable_work(part, cross), prices[kind])
    return separable < dense


def price(work: Mapping[str, float], prices: Mapping[str, float]) -> float:
    """Nanoseconds of some work."""
    return sum(prices[name] * amount for name, amount in work.items())


def is_compiled(part: PartSize, cross: CrossAttendSize, device: str) -> bool:
    """Whether C++ attends to this part, as far as can be said without compiling."""
    logits = cross.batch * cross.latents * cross.heads * part.elements
    return dispatch.choose(part.channels, logits, device) == "cpu" and cpu.COMPILER is not None


def dense_work(part: PartSize, cross: CrossAttendSize) -> dict[str, float]:
    """Of one example: entries of the input array, products for keys and values, products with those, logits."""
    return {
        "array": part.elements * part.width,
        "projections": part.elements * part.width * cross.width,
        "products": part.elements * cross.latents * cross.width,
        "logits": part.elements * cross.latents * cross.heads,
    }


def separable_work(part: PartSize, cross: CrossAttendSize) -> dict[str, float]:
    """Of one example: products that absorb the keys' weights (once for all parts, in truth), elements, logits, products
    for them, products with the axes' tables."""
    queries = cross.latents * cross.heads
    return {
        "absorbing": cross.latents * part.width * cross.width,
        "elements": part.elements,
        "logits": part.elements * queries,
        "logits x channels": part.elements * queries * part.channels,
        "axes": queries * part.tables,
    }
