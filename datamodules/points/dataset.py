"""The dataset that reads and normalises point clouds."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import FARTHEST_POSITION
from datamodules.common.file_set import FileSet
from datamodules.common.splits import Kind, Split
from datamodules.points.geometry import Geometry
from datamodules.points.reading import POINT_EXTENSIONS, Into, checked, choose, frame, is_coarse, read_points
from perceiver_lightning.errors import require

POINTS = Kind("point clouds", POINT_EXTENSIONS, read_points)


@dataclass(frozen=True)
class Sampling:
    """How many points of each cloud are taken.

    Args:
        num_points: the most points of an example, drawn from all that it has: each time in training, else by
            `sample_seed`. Null for all.
        eval_points: the most points in evaluation, if other than `num_points`: a Perceiver takes any number, and more
            tell more.
        mesh_samples: points that are drawn from the surface of a mesh when it is read; the greater of `num_points` and
            `eval_points` if not given, or 2048 where `num_points` is null.
        sample_seed: the seed of both draws.
    """

    num_points: int | None = 2048
    eval_points: int | None = None
    mesh_samples: int | None = None
    sample_seed: int = 0

    @property
    def samples(self) -> int:
        """Points that are drawn from a mesh."""
        return self.mesh_samples or (max(self.num_points, self.eval_points or 1) if self.num_points else 2048)

    def check(self) -> None:
        """Raise an InputError that names what is out of its range."""
        for key in ("num_points", "eval_points", "mesh_samples"):
            count = getattr(self, key)
            require(count is None or count >= 1, key, "null, or an integer of at least 1", count)
        for key in ("num_points", "eval_points"):
            count = getattr(self, key)
            require(self.samples >= (count or 1), "mesh_samples", f"null, or at least {count} ({key})", self.samples)
        require(self.sample_seed >= 0, "sample_seed", "an integer of at least 0", self.sample_seed)


class PointSet(FileSet):
    """Reads the clouds of a split as examples.

    Args:
        split: the clouds; its kind opens them with what else `read_points` takes.
        reading: that: features, samples and seed.
        into: what they are normalised into.
        geometry: what is computed of the positions, as features behind those that are read.
        up: the axis that points up, 0, 1 or 2.
        num_points: the most points of an example; None for all.
        seed: of the choice of these points; None for another choice each time.
    """

    def __init__(
        self,
        split: Split,
        reading: dict[str, Any],
        into: Into | None,
        geometry: Geometry,
        up: int,
        num_points: int | None,
        seed: int | None,
    ) -> None:
        computed = {
            "log_size": geometry.log_size,
            "neighbours": geometry.neighbours or [],
            "shape_context": geometry.shape_context or [],
        }
        super().__init__(split, {"points": {"points": into, **computed, "up": up, **reading}})
        self.reading = reading
        self.into = into
        self.geometry = geometry
        self.up = up
        self.num_points = num_points
        self.seed = seed

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One cloud, of `num_points` points if it has as many."""
        points = choose(self.cloud(row), self.num_points, self.seed)
        return self.example(row, {"points": {"content": points[:, 3:], "positions": points[:, :3]}})

    def cloud(self, row: int) -> Tensor:
        """All points of one cloud, normalised: float32 (M, 3 + C)."""
        points = self.content(row)["points"]
        return torch.from_numpy(points if points.flags.writeable else points.copy())

    def read(self, name: str, row: int) -> np.ndarray:
        """Read one cloud, and normalise it: float32 (M, 3 + C).

        Raises:
            InputError: it cannot be read, or has values that are not finite or lie too far out.
        """
        where = os.path.join(self.split.where, self.split.names[row])
        cloud = np.asarray(self.split.kind.open(self.split.items[row], **self.reading))
        single = checked(cloud, where)
        farthest = np.abs(single[:, :3]).max().item()
        if self.into is not None and is_coarse(cloud):  # far from zero: moved there before float32 rounds
            centre = cloud[:, :3].astype(np.float64).mean(0)
            single = np.hstack([(cloud[:, :3] - centre).astype(np.float32), single[:, 3:]])
        points = torch.from_numpy(single)
        positions, features = points[:, :3], points[:, 3:]
        zero, reach = torch.zeros(3), torch.ones(1)
        if self.into is None:
            expected = "positions in [-1, 1], as normalise is null"
            require(farthest <= FARTHEST_POSITION, where, expected, f"{farthest:g}")
        else:
            zero, reach = frame(positions, self.into)
        positions = positions - zero
        computed = self.geometry.features(positions, reach, self.up, where)
        positions = positions / reach.clamp(min=torch.finfo(reach.dtype).tiny)
        return torch.cat([positions, features, *computed], 1).numpy()
