"""What a point cloud says of its surface: features worked out of the positions, and mirror images.

Legend: B batch, M points, C features, A = 3 axes: x, y, z.
"""

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from datamodules.points.reading import FLATTEST

CONTEXT = 1 + 3**3  # features of a shape context
MIDDLE = 0.2  # half the width of the middle cells of a shape context, as a share of its reach
BLOCK = 2**14  # points whose shape contexts are made at a time, to bound the memory


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
