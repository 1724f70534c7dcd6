"""What all point clouds here share: number of points, features, augmentation."""

from abc import ABC
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.common.files import Files
from datamodules.common.scale import Numbers, Scale
from datamodules.common.splits import Split
from datamodules.points.augment import (
    AXES,
    PointAugment,
    cutmix,
    drop_points,
    jitter,
    random_angles,
    random_mirrors,
    random_stretch,
    rotate,
    scale_points,
    shrink_to_fit,
)
from datamodules.points.dataset import POINTS, PointSet, Sampling
from datamodules.points.geometry import Geometry, in_all_mirrors
from datamodules.points.meshes import NORMALS
from datamodules.points.reading import Into
from perceiver_lightning.errors import require


class Points(Files, ABC):
    """Point clouds of one modality, `points`: positions (B, M, 3), features as content (B, M, C).

    A subclass says where its splits are from. A batch of clouds that differ in their number of points is padded and
    masked. The training split is augmented, the others never; the test split is looked at in stage `test` only.

    Args:
        facts: what a task needs to know, as `DataModule` has them.
        features: names of what the files say of each point beside x, y and z, such as [nx, ny, nz] (which meshes have,
            too), [red, green, blue] or [intensity]; none for bare points.
        feature_mean: what is taken off each feature; one number or one per feature, or "train" for that of the train
            split, which is computed once and kept in checkpoints.
        feature_std: what each feature is then divided by, likewise.
        sampling: how many points are taken.
        normalise: "cube" or "ball": the mean of a cloud is moved to zero, and its farthest point scaled to lie on the
            cube from -1 to 1 or on the unit sphere. "box": the middle of its bounding box is moved to zero, and each
            side brought to reach from -1 to 1 (one below a thousandth of the longest less far), so that what is flat
            shows its relief, too; `log_size` then tells half its three lengths; normals, the shape of the surface and
            shape contexts stay those of the cloud before. Null leaves positions alone, which must then lie in [-1, 1].
        resolution: twice the highest frequency of the Fourier bands, along each axis; 2240, the paper's 1120, unless
            given.
        up: the axis that points up.
        geometry: features that are computed of the positions, and mirror images in evaluation; none unless given.
        augment: what is done by chance in training.
        options: as `Files` has them. Clouds are cached normalised, with all their points.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    kind = POINTS

    def __init__(
        self,
        facts: dict[str, Any],
        features: list[str] | None = None,
        feature_mean: Numbers = 0.0,
        feature_std: Numbers = 1.0,
        sampling: Sampling = Sampling(),
        normalise: Into | None = "cube",
        resolution: int = 2240,
        up: Literal["x", "y", "z"] = "z",
        geometry: Geometry = Geometry(),
        augment: PointAugment = PointAugment(),
        **options: Any,
    ) -> None:
        features = features or []
        require(len(set(features)) == len(features), "features", "names that differ", features)
        self.feature_scale = Scale(
            feature_mean, feature_std, len(features), ("feature_mean", "feature_std"), "features"
        )
        sampling.check()
        augment.check(facts)
        level = {name for name, axis in zip(NORMALS, AXES, strict=True) if axis != up} & set(features)
        known = not (augment.rotate and level) or set(NORMALS) <= set(features)
        require(known, "features", f"all of {NORMALS}, or of these n{up} alone, as rotate is given", features)
        if normalise == "box":
            require(augment.rotate == 0, "rotate", "0, as normalise is box", augment.rotate)
            seen = augment.stretch is None or geometry.log_size is not None
            require(seen, "stretch", "null, as normalise is box and log_size null", augment.stretch)
        geometry.check(normalise, augment.rotate)

        channels = len(features) + geometry.channels(normalise)
        modalities = {"points": {"channels": channels, "resolution": [resolution] * 3}}
        super().__init__(modalities, facts, **options)
        self.elements = {"points": sampling.num_points or sampling.samples}
        self.features = features
        self.scales = {"points": self.feature_scale} if features else {}
        self.sampling = sampling
        self.normalise: Into | None = normalise
        self.up = AXES.index(up)
        self.geometry = geometry
        self.augment = augment

    def make_set(self, split: Split, training: bool) -> PointSet:
        """The clouds of a split; other points of each every time if `training`."""
        sampling = self.sampling
        reading = {"features": self.features, "samples": sampling.samples, "seed": sampling.sample_seed}
        count, seed = sampling.num_points, None
        if not training:
            count, seed = sampling.eval_points or sampling.num_points, sampling.sample_seed
        return PointSet(split, reading, self.normalise, self.geometry, self.up, count, seed)

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """Augment a batch if training, else show it in mirrors if asked for; normalise features. See `Files.finish`."""
        factors = None
        if self.geometry.eval_mirrors and not training:
            batch, factors = in_all_mirrors(batch, self.up)
        points, rest = dict(batch["inputs"]["points"]), {key: batch[key] for key in batch if key != "inputs"}
        if factors is not None:
            points["positions"] = points["positions"] * factors
            self._mirror_features(points["content"], factors)
        if training:
            points = self._augment(**points)
        if self.features:
            given, computed = points["content"].tensor_split([len(self.features)], -1)
            points["content"] = torch.cat([self.feature_scale(given, points.get("mask")), computed], -1)
        if training and self.augment.cutmix:
            points, rest["labels"] = cutmix(points, rest["labels"], self.num_classes, self.augment.cutmix)
        if "mask" in points:
            points["content"] = points["content"] * points["mask"][..., None]
        return {"inputs": {"points": points}, **rest}

    def _mirror_features(self, content: Tensor, factors: Tensor) -> None:
        """Mirror normals and shape contexts, in place, as positions are mirrored by the factors (B, 1, 3)."""
        for axis, name in enumerate(NORMALS):
            if name in self.features:
                content[..., self.features.index(name)] *= factors[..., axis]
        self.geometry.mirror_contexts(content, factors)

    def _augment(self, content: Tensor, positions: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        content, augment = content.clone(), self.augment
        normals = [self.features.index(name) for name in NORMALS] if set(NORMALS) <= set(self.features) else []
        if augment.rotate:
            angle = random_angles(len(positions), augment.rotate, positions.device)
            positions = rotate(positions, angle, self.up)
            if normals:
                content[..., normals] = rotate(content[..., normals], angle, self.up)
        if augment.mirror:
            factors = random_mirrors(len(positions), self.up, positions.device)
            positions = positions * factors
            self._mirror_features(content, factors)
        if augment.stretch:
            low, high = augment.stretch
            factors = random_stretch(len(positions), low, high, positions.device)
            if self.normalise == "box":
                self.geometry.stretch_sizes(content, len(self.features), factors)
            else:
                positions = positions * factors
        if augment.scale_points:
            positions = scale_points(positions, *augment.scale_points)
        if augment.jitter:
            positions = jitter(positions, augment.jitter)
        if mask is not None:
            positions = positions * mask[..., None]  # what pads stays at zero
        positions = shrink_to_fit(positions)
        if augment.drop_points:
            there = torch.ones_like(positions[..., 0], dtype=torch.bool) if mask is None else mask
            mask = drop_points(there, augment.drop_points)
        points = {"content": content, "positions": positions}
        return points if mask is None else {**points, "mask": mask}
