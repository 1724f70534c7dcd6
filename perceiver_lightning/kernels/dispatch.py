"""Which backend walks over a grid: the one place that chooses, and the one place to override the choice.

A backend has the three functions of `Backend`. There are two, with the same results up to rounding: torch operations
for every device (`torch_blocks.py`), and C++ for CPUs (`cpu.py`). Another one, for a GPU, is a file with these
functions, its name in `BackendName`, and a line each in `choose` and `backend_for`; its prices go to `costs.PRICES`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from perceiver_lightning.kernels import cpu, torch_blocks

BackendName = Literal["torch", "cpu"]

_forced: BackendName | None = None


class Backend(Protocol):
    """The walk over a grid, forward and backward: the shapes are those of `grid_attention.grid_attention`."""

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From queries, rows, columns, content and scale: sums, row_sums, column_sums, log_sums."""

    def backward(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From the same, log_sums, mean (B, R), d_sums, d_row_sums and d_column_sums: the gradients of queries, rows
        and columns, and the sums (B, R) of those of the logits."""

    def backward_content(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """From the same as `backward`: the gradients of content and scale."""


@contextmanager
def use_backend(name: BackendName | None) -> Iterator[None]:
    """Within it, grids are walked over by this backend alone, whatever it costs; None: by what `choose` finds best.

    It holds for all threads: backward passes have threads of their own on some devices.

    Raises:
        ValueError: there is no such backend.
    """
    global _forced
    if name is not None and name not in get_args(BackendName):
        raise ValueError(f"backend: expected {', '.join(get_args(BackendName))} or None, found {name!r}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def choose(channels: int, logits: int, device: str, dtype: torch.dtype = torch.float32) -> BackendName:
    """The backend for a batch of so many logits, of queries with so many channels."""
    if _forced is not None:
        return _forced
    return "cpu" if cpu.pays(channels, logits, device, dtype) else "torch"


def backend_for(queries: Tensor, rows: Tensor, columns: Tensor) -> Backend:
    """The backend for these. Where C++ is chosen, but no compiler works, torch operations: `cpu.compiled` says so once.

    Raises:
        RuntimeError: no compiler works, and `use_backend("cpu")` asks for C++.
    """
    channels, logits = queries.shape[-1], rows.numel() * columns.shape[-1]
    if choose(channels, logits, queries.device.type, queries.dtype) == "cpu":
        compiled = cpu.compiled(queries.dtype, channels)
        if compiled is not None:
            return compiled
        if _forced is not None:
            raise RuntimeError(f"backend: expected a compiler that works for {_forced!r}, found none")
    return torch_blocks
