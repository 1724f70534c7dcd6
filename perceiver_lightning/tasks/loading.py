"""What is said of a checkpoint that does not fit a task: other facts of the data, other shapes of the weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perceiver_lightning.errors import InputError


def fact_difference(fact: str, expected: Any, found: Any) -> str:
    """A phrase for a fact that the data and a checkpoint state differently; of lists, for the first such entry."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        place = next(i for i, values in enumerate(zip(found, expected, strict=True)) if values[0] != values[1])
        fact, found, expected = f"{fact}[{place}]", found[place], expected[place]
    return f"expected {fact} {expected!r} as the data has it, found {found!r}"


def check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Raise an InputError with the first few names whose shapes differ, or that only one state dict has."""
    phrases = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        shapes = [tuple(state[name].shape) if name in state else "nothing" for state in (expected, found)]
        if shapes[0] != shapes[1]:
            phrases.append(f"{name}: expected {shapes[0]}, found {shapes[1]}")
    if phrases:
        more = f", and {len(phrases) - 3} more" if len(phrases) > 3 else ""
        raise InputError(f"{where} is of another model: {'; '.join(phrases[:3])}{more}")
