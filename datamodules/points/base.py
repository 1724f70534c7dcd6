"""What all datamodules of point clouds share: number of points, augmentation."""

from abc import ABC
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import located, require
from datamodules.common.collate import rows_of_clips
from datamodules.common.files import Files
from datamodules.common.splits import Split
from datamodules.points.augment import (
    AXES,
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
from datamodules.points.dataset import POINTS, PointSet
from datamodules.points.geometry import CONTEXT, all_mirrors, mirror_context
from datamodules.points.reading import NORMALS, Into


class Points(Files, ABC):
    """Point clouds of one modality, `points`: positions (B, M, 3), features as content (B, M, C); a subclass says where
    its splits are from.

    A batch of clouds that differ in their number of points is padded and masked. The training split is augmented,
    the others never; the test split is looked at in stage `test` only.

    Args:
        num_classes: number of classes.
        class_names: their names; numbers if not given.
        features: names of what the files say of each point beside x, y and z, such as [nx, ny, nz] (which meshes have,
            too), [red, green, blue] or [intensity]; none for bare points.
        feature_mean: what is taken off each feature; one number or one per feature.
        feature_std: what each feature is then divided by; one number or one per feature.
        log_size: [mean, standard deviation] of the logarithm of how far clouds reach before they are normalised: with
            these taken out, it is a feature of all points of a cloud, or three of "box", one an axis. Null where size
            means nothing.
        neighbours: numbers of nearest points: for each, the shape of the surface that they make around a point is four
            features of it (`surface_shape`), worked out of all points as they are read.
        shape_context: numbers of nearest points, too: for each, where they lie around a point is 28 features of it
            (`point_augment.shape_context`), behind those and worked out as they are. Not with `rotate`, as its cells
            lie along the axes.
        num_points: the most points of an example, drawn from all that it has: anew each time in training, else by
            `sample_seed`. Null for all.
        eval_points: the most points in evaluation, if other than `num_points`: a Perceiver takes any number, and more
            tell more.
        mesh_samples: points that are drawn from the surface of a mesh when it is read; the greater of `num_points` and
            `eval_points` if not given, or 2048 where `num_points` is null.
        sample_seed: the seed of both draws.
        normalise: "cube" or "ball": the mean of a cloud is moved to zero, and its farthest point scaled to lie on the
            cube from -1 to 1 or on the unit sphere. "box": the middle of its bounding box is moved to zero, and each
            side brought to reach from -1 to 1 (one below a thousandth of the longest less far), so that what is flat
            shows its relief, too; `log_size` then tells half its three lengths; normals, the shape of the surface and
            shape contexts stay those of the cloud as it was. Null leaves positions alone, which must then lie in
            [-1, 1].
        resolution: twice the highest frequency of the Fourier bands, along each axis; 2240, the paper's 1120, unless
            given.
        up: the axis that points up.
        rotate: in training, turn each cloud (and its normals) about the axis up by up to so many degrees either way;
            180 for any angle.
        mirror: in training, mirror each cloud (and its normals) along each level axis, or not, by chance.
        eval_mirrors: in evaluation, judge each cloud by the mean of its probabilities as it is and in its three mirror
            images along the level axes; a batch has four times as many rows.
        stretch: in training, [least, greatest] of a random factor for each cloud and axis. Where `normalise` is "box"
            its lengths change, as `log_size` tells them, while positions are shares of them; elsewhere positions alone.
        scale_points: in training, [least, greatest] of a random factor for each point; the paper's is [0.99, 1.01].
        jitter: in training, the standard deviation of noise on each position, cut at 5 of them.
        drop_points: in training, the greatest share of a cloud's points to leave out; each cloud gets its own share.
        cutmix: in training, alpha of CutMix of the points of two clouds; 0 for none. Makes labels soft.
        batch_size: clouds in a batch, on each device.
        num_workers: processes that read ahead; 0 is right for clouds in memory, else about one per core.
        cache: keep clouds as they are read, normalised, with all their points: "memory"; or "disk", memory-mapped,
            which all processes share and later runs find again; null reads each cloud each time. Clouds of one array
            (npz, HDF5, those made up) have no files to find them by: for them "disk" means "memory".
        cache_dir: the folder of caches on disk; `cache` in the folder of all data if not given.
        options: as all `Files` have them: `val_fraction`, `split_seed`, `balanced_sampling`, `predict_dir` and
            `skip_broken`.

    Raises:
        InputError: an argument is out of its range, or does not go with another.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        features: list[str] | None = None,
        feature_mean: float | list[float] = 0.0,
        feature_std: float | list[float] = 1.0,
        log_size: list[float] | None = None,
        neighbours: list[int] | None = None,
        shape_context: list[int] | None = None,
        num_points: int | None = 2048,
        eval_points: int | None = None,
        mesh_samples: int | None = None,
        sample_seed: int = 0,
        normalise: Into | None = "cube",
        resolution: int = 2240,
        up: Literal["x", "y", "z"] = "z",
        rotate: float = 0.0,
        mirror: bool = False,
        eval_mirrors: bool = False,
        stretch: list[float] | None = None,
        scale_points: list[float] | None = None,
        jitter: float = 0.0,
        drop_points: float = 0.0,
        cutmix: float = 0.0,
        batch_size: int = 64,
        num_workers: int = 0,
        cache: Literal["memory", "disk"] | None = None,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        features = features or []
        means = feature_mean if isinstance(feature_mean, list) else [feature_mean] * len(features)
        stds = feature_std if isinstance(feature_std, list) else [feature_std] * len(features)
        per_feature = f"one number, or {len(features)} (features)"
        require(len(set(features)) == len(features), "features", "names that differ", features)
        require(len(means) == len(features), "feature_mean", per_feature, feature_mean)
        require(len(stds) == len(features) and min(stds, default=1) > 0, "feature_std", f"{per_feature}, above 0", stds)
        for key, count in (("num_points", num_points), ("eval_points", eval_points), ("mesh_samples", mesh_samples)):
            require(count is None or count >= 1, key, "null, or an integer of at least 1", count)
        samples = mesh_samples or (max(num_points, eval_points or 1) if num_points else 2048)
        for key, count in (("num_points", num_points), ("eval_points", eval_points)):
            require(samples >= (count or 1), "mesh_samples", f"null, or at least {count} ({key})", samples)
        require(0 <= rotate <= 180, "rotate", "degrees from 0 to 180", rotate)
        for key, amount in (("jitter", jitter), ("cutmix", cutmix)):
            require(amount >= 0, key, "a number of at least 0", amount)
        require(0 <= drop_points < 1, "drop_points", "a share from 0 to below 1", drop_points)
        for key, scale in (("stretch", stretch), ("scale_points", scale_points)):
            is_range = scale is None or (len(scale) == 2 and 0 < scale[0] <= scale[1])
            require(is_range, key, "null, or [least, greatest] above 0", scale)

        level = {name for name, axis in zip(NORMALS, AXES, strict=True) if axis != up} & set(features)
        known = not (rotate and level) or set(NORMALS) <= set(features)
        require(known, "features", f"all of {NORMALS}, or of these n{up} alone, as rotate is given", features)
        if normalise == "box":
            require(rotate == 0, "rotate", "0, as normalise is box", rotate)
            seen = stretch is None or log_size is not None
            require(seen, "stretch", "null, as normalise is box and log_size null", stretch)
        if log_size is not None:
            is_scale = len(log_size) == 2 and log_size[1] > 0
            require(is_scale, "log_size", "null, or [mean, standard deviation above 0]", log_size)
            require(normalise is not None, "normalise", "ball, cube or box, as log_size is given", "null")
        neighbours, contexts = neighbours or [], shape_context or []
        for key, counts in (("neighbours", neighbours), ("shape_context", contexts)):
            are_counts = min(counts, default=3) >= 3 and len(set(counts)) == len(counts)
            require(are_counts, key, "numbers of at least 3 points, that differ", counts)
        require(not (rotate and contexts), "rotate", "0, as shape_context is given", rotate)

        sizes = 0 if log_size is None else 3 if normalise == "box" else 1
        channels = len(features) + sizes + 4 * len(neighbours) + CONTEXT * len(contexts)
        modalities = {"points": {"channels": channels, "resolution": [resolution] * 3}}
        super().__init__(
            POINTS,
            modalities,
            num_classes,
            class_names,
            batch_size=batch_size,
            num_workers=num_workers,
            cache=cache is not None,
            **options,
        )
        self.elements = {"points": num_points or samples}
        self.features = features
        require(sample_seed >= 0, "sample_seed", "an integer of at least 0", sample_seed)
        self.reading = {"features": features, "samples": samples, "seed": sample_seed}
        self.feature_mean = means
        self.feature_std = stds
        self.num_points = num_points
        self.eval_points = eval_points or num_points
        self.sample_seed = sample_seed
        self.normalise: Into | None = normalise
        self.up = AXES.index(up)
        self.log_size_std = 1.0 if log_size is None else log_size[1]
        self.derived = {"log_size": log_size, "neighbours": neighbours, "shape_context": contexts, "up": self.up}
        self.contexts = range(channels - CONTEXT * len(contexts), channels, CONTEXT)  # where each begins
        self.rotate = rotate
        self.mirror = mirror
        self.eval_mirrors = eval_mirrors
        self.stretch = stretch
        self.scale_points = scale_points
        self.jitter = jitter
        self.drop_points = drop_points
        self.cutmix = cutmix
        self.cache_dir = None if cache != "disk" else Path(cache_dir) if cache_dir else located(None) / "cache"

    def make_set(self, split: Split, training: bool) -> PointSet:
        """The clouds of a split; other points of each every time if `training`."""
        count, seed = (self.num_points, None) if training else (self.eval_points, self.sample_seed)
        return PointSet(split, self.reading, self.normalise, self.derived, count, seed, self.cache_dir)

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """Augment a batch if training, else show it in mirrors if asked for; normalise features. See `Files.finish`."""
        if self.eval_mirrors and not training:
            batch = self._in_all_mirrors(batch)
        points, rest = dict(batch["inputs"]["points"]), {key: batch[key] for key in batch if key != "inputs"}
        if training:
            points = self._augment(**points)
        if self.features:
            mean, std = (points["content"].new_tensor(values) for values in (self.feature_mean, self.feature_std))
            given, derived = points["content"].tensor_split([len(self.features)], -1)
            points["content"] = torch.cat([(given - mean) / std, derived], -1)
        if training and self.cutmix:
            points, rest["labels"] = cutmix(points, rest["labels"], self.num_classes, self.cutmix)
        if "mask" in points:
            points["content"] = points["content"] * points["mask"][..., None]
        return {"inputs": {"points": points}, **rest}

    def _in_all_mirrors(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with a row for each cloud as it is, and for each of its mirror images along the level axes."""
        factors_VA = all_mirrors(self.up)
        several = {key: torch.stack([x] * len(factors_VA), 1) for key, x in batch["inputs"]["points"].items()}
        clouds = len(several["positions"])
        batch = rows_of_clips({**batch, "inputs": {"points": several}}, {"points": 3})
        points = batch["inputs"]["points"]
        factors_B1A = factors_VA.to(points["positions"]).repeat(clouds, 1)[:, None]
        points["positions"] = points["positions"] * factors_B1A
        self._mirror_features(points["content"], factors_B1A)
        return batch

    def _mirror_features(self, content: Tensor, factors: Tensor) -> None:
        """Mirror normals and shape contexts, in place, as positions are mirrored by the factors (B, 1, 3)."""
        for axis, name in enumerate(NORMALS):
            if name in self.features:
                content[..., self.features.index(name)] *= factors[..., axis]
        for start in self.contexts:
            own = slice(start, start + CONTEXT)
            content[..., own] = mirror_context(content[..., own], factors)

    def _augment(self, content: Tensor, positions: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        content = content.clone()
        normals = [self.features.index(name) for name in NORMALS] if set(NORMALS) <= set(self.features) else []
        if self.rotate:
            angle = random_angles(len(positions), self.rotate, positions.device)
            positions = rotate(positions, angle, self.up)
            if normals:
                content[..., normals] = rotate(content[..., normals], angle, self.up)
        if self.mirror:
            factors = random_mirrors(len(positions), self.up, positions.device)
            positions = positions * factors
            self._mirror_features(content, factors)
        if self.stretch:
            low, high = self.stretch
            factors = random_stretch(len(positions), low, high, positions.device)
            if self.normalise == "box":
                lengths = slice(len(self.features), len(self.features) + 3)
                content[..., lengths] += factors.log() / self.log_size_std
            else:
                positions = positions * factors
        if self.scale_points:
            positions = scale_points(positions, *self.scale_points)
        if self.jitter:
            positions = jitter(positions, self.jitter)
        if mask is not None:
            positions = positions * mask[..., None]  # what pads stays at zero
        positions = shrink_to_fit(positions)
        if self.drop_points:
            there = torch.ones_like(positions[..., 0], dtype=torch.bool) if mask is None else mask
            mask = drop_points(there, self.drop_points)
        points = {"content": content, "positions": positions}
        return points if mask is None else {**points, "mask": mask}
