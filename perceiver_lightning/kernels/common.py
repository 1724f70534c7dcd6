"""What the kernels share: devices, autocast, and functions that have first-order gradients only."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def first_order(function: Callable[..., Any], *given: Any) -> Any:
    """Call a hand-written backward function; differentiating through it raises a clear error.

    Under torch.compile torch refuses by itself, and cannot trace one Function within another.
    """
    return function(*given) if torch.compiler.is_compiling() else FirstOrder.apply(function, *given)


class FirstOrder(torch.autograd.Function):
    """See `first_order`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., Any], *given: Any) -> Any:
        """What the function returns."""
        return function(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Always an error."""
        raise NotImplementedError("attention has no second-order gradients: expected a first-order backward pass")


def kind_of_device(x: Tensor) -> str:
    """Such as "cpu" or "cuda"; what has no values (the meta device) is meant for this machine's best device."""
    if x.device.type != "meta":
        return x.device.type
    best = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if best is None else best.type


def without_autocast(device: str) -> AbstractContextManager:
    """No autocast, on devices that know it (the meta device does not)."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
