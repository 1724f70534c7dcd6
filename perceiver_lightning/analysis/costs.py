"""What a model costs, told before a launch and without its data: parameters, FLOPs, memory of a training step.

Everything is counted on meta tensors, which have shapes and no values: a model of any size takes seconds and next to no
memory. Legend: M elements and C channels of the input array, N latents, D their width.
"""

import copy
import json
import math
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Model, Perceiver
from perceiver_lightning.model.perceiver import AttentionKind
from perceiver_lightning.private import storage_key

Modalities = Mapping[str, Mapping[str, Any]]

STATES = 2  # arrays of its own shape that AdamW and LAMB keep for each parameter


class HasPerceiver(Protocol):
    """A task: what trains a Perceiver."""

    perceiver: Model


class HasFacts(Protocol):
    """A datamodule, of which only the facts are asked."""

    modalities: dict[str, dict[str, Any]]
    batch_size: int
    elements: dict[str, int]


def summarise(task: HasPerceiver, datamodule: HasFacts) -> dict[str, Any]:
    """The price of training this task on this datamodule, which is not asked for any data.

    Returns:
        parameters      number of trained and fixed parameters
        flops           of the forward pass of one example by dense attention; a multiply-add is two
        flops_executed  the same by the attention that the model takes in its parameters' dtype, without autocast
        modalities      {name: {"elements": M, "channels": C of the input array}}
        latents         [N, D], with late fusion those of each modality, of an ensemble those of each member
        memory_bytes    `training_memory` at the datamodule's batch size
    """
    perceiver, modalities, elements = task.perceiver, datamodule.modalities, datamodule.elements
    readers = perceiver.perceivers()
    return {
        "parameters": sum(parameter.numel() for parameter in perceiver.parameters()),
        "flops": forward_flops(perceiver, modalities, elements, attention="dense"),
        "flops_executed": forward_flops(perceiver, modalities, elements, batch_size=datamodule.batch_size),
        "modalities": {
            name: {
                "elements": elements.get(name, math.prod(facts["resolution"])),
                "channels": readers[name].inputs.width,
            }
            for name, facts in modalities.items()
        },
        "latents": list(next(iter(readers.values())).latents.shape),
        "memory_bytes": training_memory(perceiver, modalities, datamodule.batch_size, elements),
    }


def forward_flops(
    perceiver: Model,
    modalities: Modalities,
    elements: Mapping[str, int] | None = None,
    attention: AttentionKind | None = None,
    batch_size: int = 1,
) -> int:
    """FLOPs of the forward pass of one example; a multiply-add is two.

    Args:
        elements: as `DataModule` has them.
        attention: in the place of the model's own.
        batch_size: of the batch that the example is one of, by which `auto` chooses.
    """
    model = without_values(perceiver)
    for module in model.modules():
        if isinstance(module, Perceiver):
            module.attention = attention or module.attention
    with FlopCounterMode(display=False) as counter:
        model(inputs_without_values(modalities, batch_size, elements=elements))
    return counter.get_total_flops() // batch_size


def training_memory(
    perceiver: Model,
    modalities: Modalities,
    batch_size: int,
    elements: Mapping[str, int] | None = None,
) -> int:
    """The most bytes that tensors hold at any time of a training step, from the second step on.

    That is parameters, gradients, the optimiser's two arrays for each parameter, a batch in the parameters' dtype, and
    whatever of the forward and backward pass is alive at the same time.

    A process takes more: what the imported libraries need, some 0.5 GB; the examples that a datamodule keeps; and on
    a CPU the gaps that tensors below 32 MB leave in glibc's heap as they come and go: with them the peak was seen to
    be 1.1 to 2.2 times this. MALLOC_MMAP_THRESHOLD_=65536 in the environment leaves no gaps; steps of a small model
    then took a fifth longer.
    """
    model = without_values(perceiver)
    parameters = list(model.parameters())
    states = [torch.empty_like(parameter) for parameter in parameters for _ in range(STATES)]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    with LiveBytes() as memory, FusedAttention():
        memory.add([*parameters, *states, *(p.grad for p in parameters if p.grad is not None)])
        inputs = inputs_without_values(modalities, batch_size, parameters[0].dtype, elements)
        # Lightning's order: the gradients of the step before live until the forward pass is done.
        loss = model(inputs).sum()
        model.zero_grad()
        loss.backward()
    return memory.most


def without_values(perceiver: Model) -> Model:
    """A copy on the meta device; the model itself is not copied, and stays unchanged."""
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in perceiver.parameters()
    }
    return copy.deepcopy(perceiver, empty).train()


def inputs_without_values(
    modalities: Modalities,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    elements: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """A batch's `inputs` on the meta device: a modality with `elements` as coordinates, others as their full grid."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(batch_size, *shape, dtype=dtype, device="meta")

    inputs = {}
    for name, facts in modalities.items():
        resolution, count = facts["resolution"], (elements or {}).get(name)
        places = resolution if count is None else [count]
        if "vocabulary" in facts:
            inputs[name] = {"content": empty(*places, dtype=torch.int64)}
        else:
            inputs[name] = {"content": empty(*places, facts["channels"])}
        if count is not None:
            inputs[name]["positions"] = empty(count, len(resolution))
    return inputs


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made under it, from the operation that makes one until nothing holds it.

    Views share their storage and count once. `now` is the sum at this moment, `most` the highest that it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.add([leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)])
        return out

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are not counted yet."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            key = storage_key(storage)
            if key not in self.known:
                size = storage.nbytes()
                self.known.add(key)
                self.now += size
                weakref.finalize(storage, self._gone, key, size)
        self.most = max(self.most, self.now)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Attention by the fused kernel, as real devices have it: on meta tensors torch takes the plain one.

    The difference is the N x M weights, which the plain one keeps for the backward pass.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return fused_attention(*args, **kwargs)
        return func(*args, **kwargs)


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """What `scaled_dot_product_attention` runs on a CPU."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=attn_mask, scale=scale
    )[0]


def show(summary: Mapping[str, Any], batch_size: int, console: Console | None = None) -> None:
    """Print what `summarise` found as a table for a person."""
    rows = {"parameters": f"{summary['parameters']:,}"}
    if summary["flops_executed"] == summary["flops"]:
        rows["FLOPs, forward, one example"] = f"{summary['flops'] / 1e9:,.3f} G"
    else:
        rows["FLOPs, forward, one example, dense"] = f"{summary['flops'] / 1e9:,.3f} G"
        rows["FLOPs, the attention in use"] = f"{summary['flops_executed'] / 1e9:,.3f} G"
    for name, facts in summary["modalities"].items():
        rows[f"input array, {name} (M x C)"] = f"{facts['elements']:,} x {facts['channels']:,}"
    rows["latent array (N x D)"] = " x ".join(f"{size:,}" for size in summary["latents"])
    rows[f"tensors of a training step, batch {batch_size:,}"] = f"{summary['memory_bytes'] / 1e6:,.0f} MB"
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    (console or Console()).print(table)


def write_json(summary: Mapping[str, Any], file: str | Path) -> None:
    """Write what `summarise` found.

    Raises:
        InputError: when the file cannot be written.
    """
    try:
        Path(file).write_text(json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"--json {file}: expected a file that can be written, found {error.strerror}") from error
