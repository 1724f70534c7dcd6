"""What is done by chance to a whole batch of point clouds on its device.

Legend: B batch, M points, C features, A = 3 axes: x, y, z.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.base import FARTHEST_POSITION
from datamodules.common.classes import require_classes
from perceiver_lightning.errors import require

AXES = "xyz"


@dataclass(frozen=True)
class PointAugment:
    """What is done to point clouds by chance, in training alone.

    Args:
        rotate: turn each cloud (and its normals) about the axis up by up to so many degrees either way; 180 for any
            angle.
        mirror: mirror each cloud (and its normals) along each level axis, or not, by chance.
        stretch: [least, greatest] of a random factor for each cloud and axis. Where `normalise` is "box" its lengths
            change, as `log_size` tells them, while positions are shares of them; elsewhere positions alone.
        scale_points: [least, greatest] of a random factor for each point; the paper's is [0.99, 1.01].
        jitter: the standard deviation of noise on each position, cut at 5 of them.
        drop_points: the greatest share of a cloud's points to leave out; each cloud gets its own share.
        cutmix: alpha of CutMix of the points of two clouds; 0 for none. Makes labels soft.
    """

    rotate: float = 0.0
    mirror: bool = False
    stretch: list[float] | None = None
    scale_points: list[float] | None = None
    jitter: float = 0.0
    drop_points: float = 0.0
    cutmix: float = 0.0

    def check(self, facts: dict[str, Any]) -> None:
        """Raise an InputError that names what is out of its range, or needs classes where the facts have none."""
        require(0 <= self.rotate <= 180, "rotate", "degrees from 0 to 180", self.rotate)
        for key in ("jitter", "cutmix"):
            require(getattr(self, key) >= 0, key, "a number of at least 0", getattr(self, key))
        require(0 <= self.drop_points < 1, "drop_points", "a share from 0 to below 1", self.drop_points)
        for key in ("stretch", "scale_points"):
            scale = getattr(self, key)
            is_range = scale is None or (len(scale) == 2 and 0 < scale[0] <= scale[1])
            require(is_range, key, "null, or [least, greatest] above 0", scale)
        require_classes(facts, cutmix=self.cutmix)


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
