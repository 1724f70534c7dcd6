"""Arrays of point clouds with numbers to predict."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.common.say import say_once
from datamodules.common.splits import Split, cut
from datamodules.points.arrays import ARRAYS, ArrayFiles, array_split, load_clouds
from datamodules.points.base import Points
from datamodules.points.columns import load_arrays
from perceiver_lightning.errors import require

log = logging.getLogger(__name__)

LARGEST = 1e15  # of numbers to predict; well below where the squares of errors overflow in float32
COARSE = 1e-4  # share of their standard deviation by which float32 may move them


class PointTargets(Points):
    """One npz a split, or one in all, which is then split by seed; as `PointArrays`, but with numbers for labels.

        points    (N, M, 3), or (N, M, 3 + C) with the features behind
        features  (N, M, C), optional, if they are apart
        ids       (N,) strings, optional: the names of the clouds
        the arrays that `targets` names, (N,) numbers each

    A batch has them as `targets` (B, T), in their own units: float32, or float64 where float32 would move them by more
    than a ten thousandth of their standard deviation (dates as seconds). The facts have their mean and their standard
    deviation in train, without what is cut off for validation; 0 and 1 where the files are absent.

    Args:
        root: an npz, or a folder with `train.npz`, `test.npz` and perhaps `val.npz`; from here or below the folder of
            all data.
        targets: the names of the arrays of numbers.
        test_fraction: share that is cut off for test where there is one npz in all.
        val_fraction: as all files have it, and so the next.
        split_seed: see there.
        options: as all point clouds have them.
    """

    def __init__(
        self,
        root: str,
        targets: list[str],
        test_fraction: float = 0.1,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        **options: Any,
    ) -> None:
        require(len(targets) > 0 and len(set(targets)) == len(targets), "targets", "names that differ", targets)
        self.targets = targets
        mean, std = [0.0] * len(targets), [1.0] * len(targets)
        # The numbers alone: clouds are read in `setup`, and cut in the same places.
        numbers = ArrayFiles(root, self._load_numbers)
        if numbers.train.is_file():
            val = None
            if (whole := numbers.find_all()) is None:
                train, val = numbers.find_train()
            else:
                train, _ = cut(whole, test_fraction, split_seed, "test_fraction")
            if val is None:
                train, _ = cut(train, val_fraction, split_seed, "val_fraction")
            values_NT = torch.stack(list(train.labels or [])).double()
            mean = values_NT.mean(0).tolist()
            std = values_NT.std(0, correction=0).tolist()
            for column, name in enumerate(targets):
                if bool((values_NT[:, column] == values_NT[0, column]).all()):
                    std[column] = 1.0
                    line = f"{train.where}, {name}: all {len(values_NT)} numbers of train are {values_NT[0, column]:g}"
                    say_once(log, ("alike", train.where, name), line)
                least = f"numbers that differ by more than {1 / LARGEST:g}"
                require(std[column] > 1 / LARGEST, f"{train.where}, {name}", least, f"a spread of {std[column]:g}")
        facts = {"num_targets": len(targets), "target_names": targets, "target_mean": mean, "target_std": std}
        super().__init__(facts, val_fraction=val_fraction, split_seed=split_seed, **options)
        self.test_fraction = test_fraction
        self.arrays = ArrayFiles(root, self._load)

    def find_all(self) -> Split | None:
        """All clouds, where they have one npz."""
        return self.arrays.find_all()

    def find_train(self) -> tuple[Split, Split | None]:
        """The clouds of train, and those of validation if they have an npz."""
        return self.arrays.find_train()

    def find_test(self) -> Split:
        """The clouds of test."""
        return self.arrays.find_test()

    def _load(self, path: Path) -> Split:
        points, arrays = load_clouds(path, self.features, self.targets)
        numbers = self._numbers(path, arrays)
        require(len(numbers) == len(points), f"{path}, {self.targets[0]}", f"{len(points)} numbers", len(numbers))
        names = [str(name) for name in arrays.get("ids", [])]
        return array_split(points, numbers, names, path, **self._columns(numbers))

    def _load_numbers(self, path: Path) -> Split:
        numbers = self._numbers(path, load_arrays(path, self.targets))
        rows = range(len(numbers))
        return Split(rows, [str(row) for row in rows], numbers, str(path), ARRAYS, **self._columns(numbers))

    def _columns(self, numbers: list[Tensor]) -> dict[str, Any]:
        """What splits of numbers have beside those of classes: their key in a batch, and no shares for cuts to keep."""
        return {"target": "targets", "strata": [0] * len(numbers)}

    def _numbers(self, path: Path, arrays: dict[str, np.ndarray]) -> list[Tensor]:
        """The targets of each cloud, (T,): float32, or float64 if that would be too coarse."""
        first = arrays[self.targets[0]]
        for name in self.targets:
            values, where = arrays[name], f"{path}, {name}"
            are_numbers = values.ndim == 1 and values.dtype.kind in "fiu" and bool(np.isfinite(values).all())
            require(are_numbers, where, "finite numbers (N,)", f"{values.dtype} {values.shape}")
            require(len(values) == len(first), where, f"{len(first)}, as {self.targets[0]}", len(values))
            largest = float(np.abs(values.astype(np.float64)).max(initial=0))
            require(largest < LARGEST, where, f"numbers below {LARGEST:g}", f"{largest:g}")
        exact = np.stack([arrays[name].astype(np.float64) for name in self.targets], 1)
        single = exact.astype(np.float32)
        is_coarse = len(exact) and (np.abs(single - exact) > COARSE * exact.std(0)).any()
        return list(torch.from_numpy(exact if is_coarse else single))
