"""What is done to point clouds: normalised one by one where they are read, then varied as a whole batch on its device.

Legend: B batch, M points, C features, A = 3 axes: x, y, z.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from datamodules.base import FARTHEST_POSITION

AXES = "xyz"
FLATTEST = 1e-3  # share of the longest side of a box that the others have at least: they are divided by
CONTEXT = 1 + 3**3  # features of a shape context
MIDDLE = 0.2  # half the width of the middle cells of a shape context, as a share of its reach
BLOCK = 2**14  # points whose shape contexts are made at a time, to bound the memory


Into = Literal["ball", "cube", "box"]


def frame(positions: Tensor, into: Into) -> tuple[Tensor, Tensor]:
    """Where the zero of a cloud (M, 3) is to be, (3,), and how far it reaches from there, (1,) or along each axis (3,).

    Less the first and over the second, it is normalised into the unit ball, or into the cube from -1 to 1, with its
    mean at zero and its farthest point on the surface; or into its own box, which becomes that cube, each side by
    itself. Points that all fall together reach 0; a side of a box, `FLATTEST` of the longest at least.
    """
    if into == "box":
        low, high = positions.amin(0), positions.amax(0)
        reach = (high - low) / 2
        return (high + low) / 2, reach.clamp(min=FLATTEST * reach.max().item())
    zero = positions.mean(0)
    positions = positions - zero
    return zero, (positions.norm(dim=1) if into == "ball" else positions.abs()).max()[None]


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


def choose(points: Tensor, count: int | None, seed: int | None) -> Tensor:
    """`count` of the points (M, 3 + C), drawn without repeats: anew, or by `seed`; all if there are no more."""
    if count is None or len(points) <= count:
        return points
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return points[torch.randperm(len(points), generator=generator)[:count]]


def rotate(vectors_BMA: Tensor, angle_B: Tensor, up: int) -> Tensor:
    """Turn each cloud's positions or normals by its angle, in radians, about the axis `up`: 0, 1 or 2."""
    first, second = (up + 1) % 3, (up + 2) % 3  # x to y about z, y to z about x, z to x about y
    cos, sin = angle_B.cos()[:, None], angle_B.sin()[:, None]
    turned = vectors_BMA.clone()
    turned[..., first] = cos * vectors_BMA[..., first] - sin * vectors_BMA[..., second]
    turned[..., second] = sin * vectors_BMA[..., first] + cos * vectors_BMA[..., second]
    return turned


def random_angles(batch: int, degrees: float, device: torch.device) -> Tensor:
    """Angles (B,) in radians, up to `degrees` either way."""
    return (2 * torch.rand(batch, device=device) - 1) * math.radians(degrees)


def scale_points(positions_BMA: Tensor, low: float, high: float) -> Tensor:
    """Multiply each point by a number of its own between `low` and `high` (Perceiver, section 4.4: 0.99 to 1.01)."""
    return positions_BMA * (low + (high - low) * torch.rand_like(positions_BMA[..., :1]))


def random_stretch(batch: int, low: float, high: float, device: torch.device) -> Tensor:
    """Factors (B, 1, 3), one for each cloud and axis, by which to stretch it."""
    return low + (high - low) * torch.rand(batch, 1, 3, device=device)


def random_mirrors(batch: int, up: int, device: torch.device) -> Tensor:
    """Factors (B, 1, 3) that mirror half of the clouds along each level axis, and none along the axis `up`."""
    factors_B1A = torch.randint(0, 2, (batch, 1, 3), device=device) * 2.0 - 1
    factors_B1A[..., up] = 1
    return factors_B1A


def all_mirrors(up: int) -> Tensor:
    """Factors (4, 3) of all that `random_mirrors` may do to a cloud, nothing first."""
    factors_4A = torch.ones(4, 3)
    for row, axis in enumerate(axis for axis in range(3) if axis != up):
        factors_4A[[1 + row, 3], axis] = -1
    return factors_4A


def jitter(positions_BMA: Tensor, std: float) -> Tensor:
    """Move each point by normal noise, cut at 5 standard deviations (PointNet's 0.01 and 0.05)."""
    return positions_BMA + (std * torch.randn_like(positions_BMA)).clamp(-5 * std, 5 * std)


def drop_points(mask_BM: Tensor, greatest: float) -> Tensor:
    """Mask points out: in each cloud a share of its own between 0 and `greatest`, each point by chance, never all."""
    share_B1 = greatest * torch.rand(len(mask_BM), 1, device=mask_BM.device)
    kept_BM = mask_BM & (torch.rand(mask_BM.shape, device=mask_BM.device) >= share_B1)
    return torch.where(kept_BM.any(1, keepdim=True), kept_BM, mask_BM)


def cutmix(
    points: dict[str, Tensor], labels_B: Tensor, num_classes: int, alpha: float
) -> tuple[dict[str, Tensor], Tensor]:
    """CutMix of clouds: each point stays, by chance, or gives way to the one in its place of the cloud before.

    The chance is one for the batch, drawn from Beta(alpha, alpha). Labels become (B, K), by the shares of the points
    that are there.

    Args:
        points: content (B, M, C), positions (B, M, 3), and a mask (B, M) if there is one.
        labels_B: integers below `num_classes`.
        num_classes: K.
        alpha: above 0.

    Source: after PointCutMix-R (Zhang et al. 2021, https://arxiv.org/abs/2101.01461), without its assignment of the
    points of the two clouds to each other.
    """
    there_BM = points.get("mask", torch.ones_like(points["positions"][..., 0], dtype=torch.bool))
    stays_BM = torch.rand(there_BM.shape, device=there_BM.device) < torch.distributions.Beta(alpha, alpha).sample()
    stays_BM |= ~torch.where(stays_BM, there_BM, there_BM.roll(1, 0)).any(1, keepdim=True)  # never nothing at all
    points = {
        key: torch.where(stays_BM.view(*stays_BM.shape, *[1] * (x.ndim - 2)), x, x.roll(1, 0))
        for key, x in points.items()
    }
    own_B, other_B = (stays_BM & there_BM).sum(1), (~stays_BM & there_BM.roll(1, 0)).sum(1)
    share_B1 = (own_B / (own_B + other_B))[:, None]
    labels_BK = F.one_hot(labels_B, num_classes).to(share_B1.dtype)
    return points, labels_BK.roll(1, 0).lerp(labels_BK, share_B1)


def shrink_to_fit(positions_BMA: Tensor) -> Tensor:
    """Shrink each cloud that stands out of what positions may be, as a whole, until it fits; the others stay."""
    most_B11 = positions_BMA.abs().amax((1, 2), keepdim=True)
    return positions_BMA * (0.999 * FARTHEST_POSITION / most_B11.clamp(min=1e-9)).clamp(max=1)
