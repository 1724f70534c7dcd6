"""Examples of several datasets put together: which belong together, and what they are as one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.common.file_set import FileSet
from datamodules.common.noise import noisy


class PairSet(Dataset):
    """Examples of several datasets, one of each, as one example.

    Args:
        sets: the datasets.
        pairs: of each example, a row of each set.
        labels: of each example; None to predict.
        others: of each example, the rows of each set that may stand in its place. If given, each example keeps its row
            of the first set, and draws those of the other sets again each time.
        noise: modality -> standard deviation of added white noise, in those of the example's own values.
        seed: of the noise, which is then the same each time; None for other noise each time, of any level up to that.
    """

    def __init__(
        self,
        sets: Sequence[Any],
        pairs: Sequence[Sequence[int]],
        labels: Sequence[Any] | None,
        others: Sequence[Sequence[Sequence[int]]] | None = None,
        noise: dict[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        self.sets = sets
        self.pairs = pairs
        self.labels = labels
        self.others = others
        self.noise = noise or {}
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One example of all modalities, with the first one's label."""
        first, *rest = self.pairs[row]
        if self.others is not None:
            rest = [rows[int(torch.randint(len(rows), ()))] for rows in self.others[row][1:]]
        examples = [dataset[own] for dataset, own in zip(self.sets, (first, *rest), strict=True)]
        inputs = {name: part for example in examples for name, part in example["inputs"].items()}
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed + row)
        for name, level in self.noise.items():
            if name in inputs:
                inputs[name] = {**inputs[name], "content": noisy(inputs[name]["content"], level, generator)}
        together = {key: value for example in reversed(examples) for key, value in example.items()}
        names = [example["name"] for example in examples if "name" in example]
        return {**together, "inputs": inputs, **({"name": " + ".join(names)} if names else {})}


def draw_pairs(rows: Sequence[Sequence[int]], rng: np.random.Generator) -> list[list[int]]:
    """Rows of several sets put together by chance: as many as the largest has; those of the others come up again."""
    shuffled = [rng.permutation(own) for own in rows]
    return np.stack([np.resize(own, max(map(len, rows))) for own in shuffled], 1).tolist()


def labels_and_names(dataset: Any) -> tuple[list[Any] | None, Sequence[str] | None]:
    """The labels and the names of a dataset's examples: of files without reading them, else from the examples."""
    columns: list[Sequence[Any] | None]
    if isinstance(dataset, FileSet):
        columns = [dataset.split.labels, dataset.split.names]
    else:
        examples = [dataset[row] for row in range(len(dataset))]
        columns = [
            [example[key] for example in examples] if all(key in example for example in examples) else None
            for key in ("labels", "name")
        ]
    labels, names = columns
    return None if labels is None else [as_ints(label) for label in labels], names


def as_ints(label: Any) -> Any:
    """A label as an int; several, also as a row of zeros and ones, as a tuple of ints."""
    if isinstance(label, Tensor) and label.ndim:
        return tuple(label.nonzero().flatten().tolist())
    return tuple(sorted(label)) if isinstance(label, Sequence) else int(label)
