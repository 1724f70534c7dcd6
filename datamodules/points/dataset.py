"""The dataset that reads and normalises point clouds."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import FARTHEST_POSITION, require
from datamodules.common.cache import Arrays, cached
from datamodules.common.files import FileSet
from datamodules.common.splits import Kind, Split
from datamodules.points.geometry import nearest, shape_context, surface_shape
from datamodules.points.reading import POINT_EXTENSIONS, Into, choose, frame, read_points

FARTHEST_READ = 1e15  # well below where squares overflow in float32, 1e19

POINTS = Kind("point clouds", POINT_EXTENSIONS, read_points)


class PointSet(FileSet):
    """Reads the clouds of a split as examples.

    Args:
        split: the clouds; its kind opens them with what else `read_points` takes.
        reading: that: features, samples and seed.
        into: what they are normalised into.
        derived: what is worked out of the positions, as features behind those that are read: `log_size`, `neighbours`,
            `shape_context` and `up` of `Points`.
        num_points: the most points of an example; null for all.
        seed: of the choice of these points; None for another choice each time.
        cache_dir: the folder of caches on disk; None to cache in memory, if at all.
    """

    def __init__(
        self,
        split: Split,
        reading: dict[str, Any],
        into: Into | None,
        derived: dict[str, Any],
        num_points: int | None,
        seed: int | None,
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__(split)
        self.reading = reading
        self.into = into
        self.derived = derived
        self.num_points = num_points
        self.seed = seed
        self.cache_dir = cache_dir
        self.arrays: Arrays | None = None

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One cloud, of `num_points` points if it has as many."""
        points = choose(self.content(row), self.num_points, self.seed)
        return self.example(row, {"points": {"content": points[:, 3:], "positions": points[:, :3]}})

    def content(self, row: int) -> Tensor:
        """All points of one cloud, from memory or disk if they are there."""
        # A copy: what is mapped from disk is not to be written on.
        return super().content(row) if self.arrays is None else torch.tensor(self.arrays[row])

    def read(self, row: int) -> Tensor:
        """All points of one cloud, normalised: float32 (M, 3 + C)."""
        where = os.path.join(self.split.where, self.split.names[row])
        return torch.from_numpy(self._load(self.split.items[row], where))

    def prepare(self, skip_broken: bool, cache: bool) -> list[str]:
        """Read all clouds once, as `FileSet.prepare`; on disk where there is a `cache_dir` and they are files."""
        if self.prepared or not cache or self.cache_dir is None or self.split.kind is not POINTS:
            return super().prepare(skip_broken, cache)
        settings = {"points": self.into, **self.derived, **self.reading}
        title = f"Reading {self.split.kind.name} of {self.split.where}"
        self.arrays = cached(self.split.items, self._load, settings, title, skip_broken, self.cache_dir)
        broken = [self.split.names[row] for row in self.arrays.broken]
        self.split = self.split.take([row for row in range(len(self)) if row not in self.arrays.broken])
        self.prepared = True
        return broken

    def _load(self, item: Any, where: str | Path | None = None) -> np.ndarray:
        """One cloud, normalised; `where` it is from, if not the item itself.

        Raises:
            InputError: it cannot be read, or has values that are not finite or lie too far out.
        """
        where = str(item if where is None else where)
        points = torch.from_numpy(np.asarray(self.split.kind.open(item, **self.reading), np.float32))
        bad = int((~points.isfinite().all(1)).sum())
        require(bad == 0, where, "finite values", f"NaN or infinity in {bad} of {len(points)} points")
        farthest = points[:, :3].abs().max().item()
        require(farthest < FARTHEST_READ, where, f"coordinates below {FARTHEST_READ:g}", f"{farthest:g}")
        positions, features = points[:, :3], points[:, 3:]
        zero, reach = torch.zeros(3), torch.ones(1)
        if self.into is None:
            expected = "positions in [-1, 1], as normalise is null"
            require(farthest <= FARTHEST_POSITION, where, expected, f"{farthest:g}")
        else:
            zero, reach = frame(positions, self.into)
        positions = positions - zero
        if self.derived["log_size"] is not None:
            together = "points that all fall together"
            require(bool((reach > 0).all()), where, "a cloud with a size, as log_size is given", together)
            mean, std = self.derived["log_size"]
            features = torch.cat([features, ((reach.log() - mean) / std).expand(len(positions), -1)], 1)
        flat, context, up = (self.derived[key] for key in ("neighbours", "shape_context", "up"))
        shapes = []
        if flat or context:
            near = nearest(positions, max(flat + context))
            shapes += [surface_shape(positions, near[:, :count], up) for count in flat]
            shapes += [shape_context(positions, near[:, :count]) for count in context]
        positions = positions / reach.clamp(min=torch.finfo(reach.dtype).tiny)
        return torch.cat([positions, features, *shapes], 1).numpy()
