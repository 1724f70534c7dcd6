"""Examples into a batch: stacked where sizes agree, else padded, masked, and each with the positions it has alone.

Legend: B batch, A axes, I_a size of axis a, M elements, C channels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceiver_lightning.errors import InputError

LATER = "later"


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make one batch of the contract in `datamodules.base` from examples: batches without the B.

        inputs   {modality: {"content": (*grid, C) or (M, C), a tensor or an array; float64 becomes float32;
                                        of tokens (M,)
                             "positions": absent, a list of (I_a,) per axis, (M, A), or LATER,
                             "mask": absent, or bool (*grid) or (M,)}}
        name     a string, optional
        ...      any other key (labels, targets, example): a number, or a tensor of one shape for all

    Examples of different sizes are padded with zeros at the end of each axis and get a mask, and positions per axis
    (B, I_a) that hold, for each example, exactly what it has alone (torch.linspace(-1, 1, its own size) if they are
    absent). So a model that respects mask and positions gives a padded example the very output that it gives alone.
    Where all sizes agree there is neither mask nor positions, unless the examples bring them. An example without a
    modality that another one has gets a mask row of False.

    Positions that are the same for all examples are cheaper added to the batch than to each example. Where the
    datamodule's `finish` makes them of the whole batch, examples bring `LATER` in their place: then none are made here.

    Raises:
        InputError: the examples disagree on their keys, axes, channels, or form of positions.
    """
    for example in examples:
        if not isinstance(example, dict) or not isinstance(example.get("inputs"), dict):
            found = sorted(example) if isinstance(example, dict) else type(example).__name__
            raise InputError(f"example: expected a dict with inputs, {{modality: {{content, ...}}}}, found {found}")
    keys = dict.fromkeys(key for example in examples for key in example)
    for key in keys:
        if not all(key in example for example in examples):
            raise InputError(f"{key}: expected in every example of a batch, found only in some")
    names = dict.fromkeys(name for example in examples for name in example["inputs"])
    batch: dict[str, Any] = {
        "inputs": {name: _collate_parts(name, [example["inputs"].get(name) for example in examples]) for name in names}
    }
    for key in [key for key in keys if key != "inputs"]:
        values = [example[key] for example in examples]
        if isinstance(values[0], str):
            batch[key] = values
            continue
        try:
            batch[key] = torch.stack(values) if isinstance(values[0], Tensor) else torch.tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            found = sorted({type(value).__name__ for value in values})
            raise InputError(f"{key}: expected numbers, or tensors of one shape, found {found} ({error})") from error
    return batch


def rows_of_clips(batch: dict[str, Any], axes: dict[str, int]) -> dict[str, Any]:
    """A batch with a row for each clip of each example, content (B * clips, T, *), where content is (B, clips, T, *).

    Masks and coordinates have the same axis of clips, if they are there. Names and targets are repeated.

    Args:
        batch: as the loaders give it.
        axes: name of each modality -> the number of axes of its content where there is one clip.
    """
    inputs, rest = batch["inputs"], {key: batch[key] for key in batch if key != "inputs"}
    examples, clips = next(iter(inputs.values()))["content"].shape[:2]
    if all(part["content"].ndim == axes[name] for name, part in inputs.items()):
        return batch
    rows = {  # places along axes are no tensors, and dropped
        name: {key: x.flatten(0, 1) for key, x in part.items() if isinstance(x, Tensor)}
        for name, part in inputs.items()
    }
    for key, values in rest.items():
        is_tensor = isinstance(values, Tensor)
        rest[key] = values.repeat_interleave(clips, 0) if is_tensor else [one for one in values for _ in range(clips)]
    rest["example"] = torch.arange(examples).repeat_interleave(clips).to(next(iter(rows.values()))["content"].device)
    return {"inputs": rows, **rest}


def own_places(length: Tensor, size: int) -> Tensor:
    """The mask (B, size) of an axis of which each example has its own length (B,)."""
    return torch.arange(size, device=length.device) < length[:, None]


def _collate_parts(name: str, parts: list[dict[str, Any] | None]) -> dict[str, Any]:
    """The parts of one modality, None where an example lacks it."""
    parts = [None if part is None else {**part, "content": _content(name, part)} for part in parts]
    first = next(part for part in parts if part is not None)
    axes = max(1, first["content"].ndim - 1)  # tokens have one and no channels
    nothing: dict[str, Any] = {"content": first["content"].new_zeros(*[0] * axes, *first["content"].shape[axes:])}
    if isinstance(first.get("positions"), Tensor):
        nothing["positions"] = first["positions"].new_zeros(0, first["positions"].shape[-1])
    parts_B = [nothing if part is None else part for part in parts]

    contents = [part["content"] for part in parts_B]
    positions: list[Any] = [part.get("positions") for part in parts_B]
    later = [isinstance(part.get("positions"), str) for part in parts if part is not None]
    if any(later) and not all(later):
        raise InputError(f"inputs[{name!r}]['positions']: expected LATER for every example or for none, found both")
    masks = [part.get("mask") for part in parts_B]
    if len({(content.ndim, content.shape[axes:]) for content in contents}) > 1:
        shapes = sorted({tuple(content.shape) for content in contents})
        raise InputError(f"inputs[{name!r}]: expected content with the same axes and channels, found {shapes}")
    if len({isinstance(p, Tensor) for p in positions}) > 1:
        raise InputError(f"inputs[{name!r}]: expected coordinates (M, A) for every example or for none, found both")

    sizes = [tuple(content.shape[:axes]) for content in contents]
    agree = len(set(sizes)) == 1
    batch: dict[str, Any] = {"content": torch.stack(contents) if agree else _pad(contents, axes)}
    if isinstance(positions[0], Tensor):
        batch["positions"] = torch.stack(positions) if agree else _pad(positions, 1)
    elif not any(later) and (not agree or any(p is not None for p in positions)):
        tables = [_even_grid(size) if p is None else p for p, size in zip(positions, sizes, strict=True)]
        batch["positions"] = [_pad(table_per_example, 1) for table_per_example in zip(*tables, strict=True)]
    if not agree or any(mask is not None for mask in masks):
        batch["mask"] = _own_grids(sizes)
        for there, size, mask in zip(batch["mask"], sizes, masks, strict=True):
            if mask is None:
                continue
            if mask.dtype != torch.bool or tuple(mask.shape) != size:
                found = f"{mask.dtype} {tuple(mask.shape)}"
                raise InputError(f"inputs[{name!r}]['mask']: expected a bool tensor of shape {size}, found {found}")
            there[tuple(map(slice, size))] = mask
    return batch


def _content(name: str, part: dict[str, Any]) -> Tensor:
    """The content of a part as a tensor that a model can take."""
    content = part.get("content")
    if not isinstance(content, Tensor | np.ndarray):
        raise InputError(f"inputs[{name!r}]['content']: expected a tensor, found {type(content).__name__}")
    content = torch.as_tensor(content)
    return content.float() if content.dtype == torch.float64 else content


def _even_grid(sizes: tuple[int, ...]) -> list[Tensor]:
    return [torch.linspace(-1, 1, size) for size in sizes]


def _own_grids(sizes: Sequence[tuple[int, ...]]) -> Tensor:
    """The mask (B, *grid) of what examples of these sizes have of the largest size along each axis."""
    axes = range(len(sizes[0]))
    mask = torch.ones(len(sizes), *[1] * len(axes), dtype=torch.bool)
    for axis, own in enumerate(zip(*sizes, strict=True)):
        there = own_places(torch.tensor(own), max(own))
        mask = mask & there.view(-1, *[there.shape[1] if other == axis else 1 for other in axes])
    return mask


def _pad(tensors: Sequence[Tensor], axes: int) -> Tensor:
    """Stack tensors whose first `axes` axes differ in size, with zeros at the end of each."""
    largest = [max(tensor.shape[axis] for tensor in tensors) for axis in range(axes)]
    padded = tensors[0].new_zeros(len(tensors), *largest, *tensors[0].shape[axes:])
    for row, tensor in enumerate(tensors):
        own_place: tuple[int | slice, ...] = (row, *(slice(size) for size in tensor.shape[:axes]))
        padded[own_place] = tensor
    return padded
