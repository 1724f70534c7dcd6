"""Engineered features of point clouds, off by default: size, shape of the surface, neighbourhoods, mirror images.

The papers' Perceiver sees raw coordinates alone.

Legend: B batch, M points, N nearest points, C features, A = 3 axes: x, y, z.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from datamodules.common.collate import rows_of_clips
from datamodules.points.reading import FLATTEST, Into
from perceiver_lightning.errors import require

CONTEXT = 1 + 3**3  # features of a shape context
MIDDLE = 0.2  # half the width of the middle cells of a shape context, as a share of its reach
BLOCK = 2**14  # points whose shape contexts are made at a time, to bound the memory


@dataclass(frozen=True)
class Geometry:
    """What is computed of the positions of a cloud, as features behind those that are read.

    Args:
        log_size: [mean, standard deviation] of the logarithm of how far clouds reach before they are normalised: with
            these taken out, it is a feature of all points of a cloud, or three of "box", one an axis. Null where size
            means nothing.
        neighbours: numbers of nearest points: for each, the shape of the surface that they make around a point is four
            features of it (`surface_shape`), computed of all points as they are read.
        shape_context: numbers of nearest points, too: for each, where they lie around a point is 28 features of it
            (the function `shape_context`), behind those and computed as they are. Not with `rotate`, as its cells lie
            along the axes.
        eval_mirrors: in evaluation, average the probabilities of each cloud and of its three mirror images along the
            level axes; a batch has four times as many rows.
    """

    log_size: list[float] | None = None
    neighbours: list[int] | None = None
    shape_context: list[int] | None = None
    eval_mirrors: bool = False

    def check(self, into: Into | None, rotate: float) -> None:
        """Raise an InputError that names what is out of its range, or does not go with another argument."""
        if self.log_size is not None:
            is_scale = len(self.log_size) == 2 and self.log_size[1] > 0
            require(is_scale, "log_size", "null, or [mean, standard deviation above 0]", self.log_size)
            require(into is not None, "normalise", "ball, cube or box, as log_size is given", "null")
        for key in ("neighbours", "shape_context"):
            counts = getattr(self, key) or []
            are_counts = min(counts, default=3) >= 3 and len(set(counts)) == len(counts)
            require(are_counts, key, "numbers of at least 3 points, that differ", counts)
        require(not (rotate and self.shape_context), "rotate", "0, as shape_context is given", rotate)

    def channels(self, into: Into | None) -> int:
        """The number of these features, of clouds that are normalised into a ball, a cube, a box, or not."""
        sizes = 0 if self.log_size is None else 3 if into == "box" else 1
        return sizes + 4 * len(self.neighbours or []) + CONTEXT * len(self.shape_context or [])

    def features(self, positions: Tensor, reach: Tensor, up: int, where: str) -> list[Tensor]:
        """The features (M, ...) of a cloud (M, 3) about its zero, which reaches so far from there, (1,) or (3,).

        Raises:
            InputError: its points all fall together, and its size is asked for; it names `where` it is from.
        """
        made = []
        if self.log_size is not None:
            together = "points that all fall together"
            require(bool((reach > 0).all()), where, "a cloud with a size, as log_size is given", together)
            mean, std = self.log_size
            made.append(((reach.log() - mean) / std).expand(len(positions), -1))
        flat, context = self.neighbours or [], self.shape_context or []
        if flat or context:
            near = nearest(positions, max(flat + context))
            made += [surface_shape(positions, near[:, :count], up) for count in flat]
            made += [shape_context(positions, near[:, :count]) for count in context]
        return made

    def stretch_sizes(self, content: Tensor, place: int, factors: Tensor) -> None:
        """Stretch the three sizes of a box, in place, which are features (B, M, C) from `place` on, by (B, 1, 3)."""
        assert self.log_size is not None
        content[..., place : place + 3] += factors.log() / self.log_size[1]

    def mirror_contexts(self, content: Tensor, factors: Tensor) -> None:
        """Mirror the shape contexts, the last features of (B, M, C), in place, as positions are by (B, 1, 3)."""
        channels = content.shape[-1]
        for start in range(channels - CONTEXT * len(self.shape_context or []), channels, CONTEXT):
            own = slice(start, start + CONTEXT)
            content[..., own] = mirror_context(content[..., own], factors)


def nearest(positions: Tensor, count: int) -> Tensor:
    """The rows of the `count` nearest points of each point of a cloud (M, 3), itself among them, nearest first.

    (M, count), or (M, M) where there are no more. Which comes first of points equally far is not said.
    """
    count = min(count, len(positions))
    near = cKDTree(positions.numpy()).query(positions.numpy(), count)[1]
    return torch.from_numpy(near).view(len(positions), count)


def surface_shape(positions: Tensor, near: Tensor, up: int) -> Tensor:
    """The shape of the surface around each point of a cloud (M, 3), by its nearest points, (M, N) rows: (M, 4).

    Linearity, planarity and verticality from the eigenvalues of their covariance, as Weinmann et al., "Semantic point
    cloud interpretation based on optimal neighborhoods, relevant features and efficient classifiers" (2015), have
    them; the last is how far the normal points away from the cloud's zero. All lie in [0, 1].
    """
    own = positions[near].double()
    own = own - own.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(own.mT @ own)  # rising; the first vector is the normal
    least, middle, greatest = values.clamp(min=0).unbind(-1)
    greatest = greatest.clamp(min=torch.finfo(values.dtype).tiny)
    normals = vectors[..., 0]
    outwards = F.normalize(positions.double(), dim=1)
    measures = (
        (greatest - middle) / greatest,
        (middle - least) / greatest,
        1 - normals[:, up].abs(),
        (normals * outwards).sum(-1).abs(),
    )
    return torch.stack(measures, 1).float()


def shape_context(positions: Tensor, near: Tensor) -> Tensor:
    """Where the nearest points, (M, N) rows as `nearest` has them, lie around each point of a cloud (M, 3): (M, 28).

    First the logarithm of their reach: the distance to the last of them over that of the cloud's farthest point from
    its mean, `FLATTEST` at least. Then how many of them lie in each of 3 x 3 x 3 cells about the point, x varying
    slowest: the square root of their number relative to an even spread. A model's first linear layer weighs these
    cells as a convolution would.

    Source: the 3D shape contexts of Frome et al., "Recognizing objects in range data using regional point descriptors"
    (2004), with cells along the axes in place of spherical ones, as what is up and to the side means something here.
    """
    farthest = (positions - positions.mean(0)).norm(dim=1).max().clamp(min=torch.finfo(positions.dtype).tiny)
    blocks = zip(positions.split(BLOCK), near.split(BLOCK), strict=True)
    return torch.cat([_contexts(positions[rows_MN] - own_MA[:, None], farthest) for own_MA, rows_MN in blocks])


def _contexts(offsets_MNA: Tensor, farthest: Tensor) -> Tensor:
    """Shape contexts of points, of the offsets to the nearest of each, nearest first."""
    points, count = offsets_MNA.shape[:2]
    reach_M = offsets_MNA[:, -1].norm(dim=1).maximum(FLATTEST * farthest)
    middle_M11 = MIDDLE * reach_M[:, None, None]
    # 0, 1 or 2 along each axis, in small integers: a cloud has a million of them.
    x, y, z = (1 + (offsets_MNA > middle_M11).to(torch.int8) - (offsets_MNA < -middle_M11).to(torch.int8)).unbind(-1)
    cells = 27 * torch.arange(points)[:, None] + (9 * x + 3 * y + z)
    counts = torch.bincount(cells.flatten(), minlength=27 * points).view(points, 27)
    return torch.cat([(reach_M / farthest).log()[:, None], (27 / count * counts).sqrt()], 1)


def mirror_context(context_BMC: Tensor, factors_B1A: Tensor) -> Tensor:
    """What shape contexts (B, M, 28) are where clouds are mirrored, by `random_mirrors`; but for ties in `nearest`."""
    reach, cells = context_BMC.split([1, 27], -1)
    cells = cells.unflatten(-1, (3, 3, 3))
    for axis, factor_B1 in enumerate(factors_B1A.unbind(-1)):
        cells = torch.where(factor_B1[..., None, None, None] < 0, cells.flip(axis - 3), cells)
    return torch.cat([reach, cells.flatten(-3)], -1)


def all_mirrors(up: int) -> Tensor:
    """Factors (4, 3) of all that `random_mirrors` may do to a cloud, nothing first."""
    factors_4A = torch.ones(4, 3)
    for row, axis in enumerate(axis for axis in range(3) if axis != up):
        factors_4A[[1 + row, 3], axis] = -1
    return factors_4A


def in_all_mirrors(batch: dict[str, Any], up: int) -> tuple[dict[str, Any], Tensor]:
    """A batch with four rows for each cloud, still all alike, and the factors (B, 1, 3) to mirror each of them by."""
    factors_VA = all_mirrors(up)
    several = {key: torch.stack([x] * len(factors_VA), 1) for key, x in batch["inputs"]["points"].items()}
    clouds = len(several["positions"])
    batch = rows_of_clips({**batch, "inputs": {"points": several}}, {"points": 3})
    return batch, factors_VA.to(several["positions"]).repeat(clouds, 1)[:, None]
