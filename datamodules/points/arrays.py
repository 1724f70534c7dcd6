"""Arrays of point clouds."""

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import located, require
from datamodules.common.splits import Kind, Split, cut
from datamodules.points.base import Points
from datamodules.points.reading import join_features, load_arrays, take_columns


class PointArrays(Points):
    """One npz a split, or one in all, which is then split by seed.

        points    (N, M, 3), or (N, M, 3 + C) with the features behind
        labels    (N,) integers from 0
        features  (N, M, C), optional, if they are apart
        classes   (K,) strings, optional: the names of the classes
        ids       (N,) strings, optional: the names of the clouds
        the array that `scale` names, (N,), optional: by what each cloud is to be multiplied to have its true size

    Args:
        root: an npz, or a folder with `train.npz`, `test.npz` and perhaps `val.npz`; from here or below the folder of
            all data.
        num_classes: number of classes.
        class_names: their names; else those in the npz of train, if it is there and has them.
        scale: the name of the array of the clouds' sizes, where their points were normalised when they were stored; for
            `log_size`. Files in `predict_dir` have no such array: they are taken at the size that they have.
        test_fraction: share that is cut off for test where there is one npz in all.
        options: as all point clouds have them.
    """

    def __init__(
        self,
        root: str,
        num_classes: int,
        class_names: list[str] | None = None,
        scale: str | None = None,
        test_fraction: float = 0.1,
        **options: Any,
    ) -> None:
        self.scale = scale
        self.path = Path(root) if Path(root).is_file() else located(root)
        if class_names is None and self._file("train").is_file():
            classes = load_arrays(self._file("train"), [], ["classes"]).get("classes")
            class_names = None if classes is None else [str(name) for name in classes]
        super().__init__(num_classes, class_names, **options)
        self.test_fraction = test_fraction

    def find_train(self) -> tuple[Split, Split | None]:
        """The clouds of train, and those of validation if they have an npz."""
        if self.path.is_file():
            return self._cut_test()[0], None
        return self._load("train"), self._load("val") if self._file("val").is_file() else None

    def find_test(self) -> Split:
        """The clouds of test."""
        return self._cut_test()[1] if self.path.is_file() else self._load("test")

    def _cut_test(self) -> tuple[Split, Split]:
        return cut(self._load(""), self.test_fraction, self.split_seed, "test_fraction")

    def _file(self, split: str) -> Path:
        return self.path if self.path.is_file() else self.path / f"{split}.npz"

    def _load(self, split: str) -> Split:
        path = self._file(split)
        require(path.is_file(), "root", "an npz, or a folder with train.npz and test.npz", f"no file {path}")
        needed = ["points", "labels", *([self.scale] if self.scale else [])]
        arrays = load_arrays(path, needed, ["features", "ids"] if self.features else ["ids"])
        points, labels = take_columns(join_features(arrays, path), self.features, path), arrays["labels"]
        if self.scale:
            scale = arrays[self.scale]
            is_scale = scale.dtype.kind in "fiu" and scale.shape == points.shape[:1] and bool((scale > 0).all())
            expected = f"{len(points)} numbers above 0, one a cloud"
            require(is_scale, f"{path}, {self.scale}", expected, f"{scale.dtype} {scale.shape}")
            points = np.concatenate([points[..., :3] * scale[:, None, None].astype(np.float32), points[..., 3:]], -1)
        names = [str(name) for name in arrays.get("ids", [])]
        return array_split(points, labels, names, path, self.num_classes)


def array_split(points: np.ndarray, labels: np.ndarray, names: list[str], path: Path, num_classes: int) -> Split:
    """Clouds (N, M, 3 + C) with labels (N,), and names if they have any.

    Raises:
        InputError: shapes or labels are not of this form.
    """
    require(points.ndim == 3, str(path), "points of shape (N, M, 3 or more)", points.shape)
    require(points.size > 0, str(path), "at least one point", f"points of shape {points.shape}")
    count = len(points)
    is_class = labels.dtype.kind in "iu" and labels.shape == (count,)
    require(is_class, str(path), f"integer labels of shape ({count},), as points", f"{labels.dtype} {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    classes = f"labels from 0 to {num_classes - 1} (num_classes)"
    require(low >= 0 and high < num_classes, str(path), classes, f"{low} to {high}")
    require(len(names) in (0, count), str(path), f"{count} ids, as points", len(names))
    names = names or [f"cloud {row}" for row in range(count)]
    return Split(list(points), names, labels.tolist(), str(path), ARRAYS)


def as_it_is(cloud: np.ndarray, **_: Any) -> np.ndarray:
    """A cloud that is in memory already."""
    return cloud


ARRAYS = Kind("point clouds", (".npz", ".h5"), as_it_is)
