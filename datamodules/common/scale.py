"""The mean and the standard deviation that are taken out of content: given numbers, or those of the train split.

Legend: B examples, I_a sizes of axes, C channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import Literal

import numpy as np
from torch import Tensor

from perceiver_lightning.errors import InputError, require

Numbers = float | list[float] | Literal["train"]

_seen = local()  # of this thread: scale -> the sums of what came to it, while they are recorded


class Scale:
    """What is taken off each channel, and what it is then divided by.

    Args:
        mean: one number, or one per channel; "train" for those of the train split, which `Files` measures.
        std: likewise.
        channels: how many there are; 1 for one number of all, whatever there are.
        keys: what the two options are called, for messages.
        per: what there is one number of, for messages.

    Raises:
        InputError: there are other counts of numbers, a deviation is not above 0, or only one is "train".
    """

    def __init__(
        self, mean: Numbers, std: Numbers, channels: int, keys: tuple[str, str] = ("mean", "std"), per: str = "channels"
    ) -> None:
        self.keys, self.channels = keys, channels
        self.of_train = mean == "train"
        require(self.of_train == (std == "train"), keys[1], f"train, as {keys[0]} is, or numbers for both", std)
        self.mean, self.std = ([] if isinstance(given, str) else self._each(given) for given in (mean, std))
        several = f"{channels} ({per})"
        fits = self.of_train or len(self.mean) == channels
        require(fits, keys[0], f"one number, or {several}", self.mean)
        fits = self.of_train or (len(self.std) == channels and min(self.std, default=1) > 0)
        require(fits, keys[1], f"one number above 0, or {several}", self.std)

    def _each(self, given: float | list[float]) -> list[float]:
        return given if isinstance(given, list) else [given] * self.channels

    def __call__(self, content: Tensor, there: Tensor | None = None) -> Tensor:
        """Float content (B, *I, C) with both taken out, and 0 where `there` (B, *I) is False.

        Raises:
            InputError: they are the train split's, and are not known.
        """
        if self.of_train and (sums := getattr(_seen, "sums", None)) is not None:
            sums[self] = sums_of(content, there, self.channels)
            return content
        if self.of_train and not self.mean:
            raise InputError(
                f"{self.keys[0]}: expected a training, or its checkpoint, to know the train split's, found neither"
            )
        mean_C, std_C = (content.new_tensor(values) for values in (self.mean, self.std))
        content = (content - mean_C) / std_C
        return content if there is None else content * there[..., None]

    def settle(self, sums: np.ndarray) -> None:
        """Take those of the train split from the sums of its examples: as `sums_of` gives them, added up."""
        count, firsts, squares = sums[0], sums[1 : 1 + self.channels], sums[1 + self.channels :]
        mean = firsts / max(count, 1)
        std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        # Six digits: what is left does not depend on the order of sums. A channel that never varies becomes 0.
        self.mean = [float(f"{value:.6g}") for value in mean]
        self.std = [float(f"{value:.6g}") if value > 1e-6 else 1.0 for value in std]


def sums_of(content: Tensor, there: Tensor | None, channels: int) -> np.ndarray:
    """How many elements there are, and the sum and the sum of squares of each channel, of content (B, *I, C)."""
    rows = content.double().flatten(0, -2) if there is None else content.double()[there]
    rows = rows.reshape(-1, channels)
    return np.concatenate([[len(rows)], rows.sum(0).numpy(), rows.square().sum(0).numpy()])


@contextmanager
def recorded() -> Iterator[dict[Scale, np.ndarray]]:
    """Let the scales of the train split leave content as it is, and record its sums; in this thread."""
    _seen.sums = {}
    try:
        yield _seen.sums
    finally:
        del _seen.sums


def measure(scales: Sequence[Scale], sums: Sequence[dict[Scale, np.ndarray]]) -> None:
    """Settle scales by what was recorded of some examples."""
    for scale in scales:
        found = [one[scale] for one in sums if scale in one]
        scale.settle(np.sum(found, 0) if found else np.zeros(1 + 2 * scale.channels))
