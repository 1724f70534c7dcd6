"""Arrays of point clouds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.splits import Kind, Split, cut
from datamodules.points.base import Points
from datamodules.points.columns import join_columns, load_arrays
from perceiver_lightning.errors import require


def unchanged(cloud: np.ndarray, **_: Any) -> np.ndarray:
    """A cloud that is in memory already."""
    return cloud


ARRAYS = Kind("point clouds", (".npz", ".h5"), unchanged)


class ArrayFiles:
    """One npz a split, in a folder, or one in all, of which test is then cut off by seed.

    Args:
        root: the npz, or the folder with `train.npz`, `test.npz` and perhaps `val.npz`; from here or below the folder
            of all data.
        test_fraction: share that is cut off for test where there is one npz in all.
        load: makes the split of one npz.
    """

    def __init__(self, root: str, test_fraction: float, load: Callable[[Path], Split]) -> None:
        self.path = Path(root) if Path(root).is_file() else located(root)
        self.test_fraction = test_fraction
        self.load = load

    def file(self, split: str) -> Path:
        """The npz that has a split, which may be absent."""
        return self.path if self.path.is_file() else self.path / f"{split}.npz"

    def find_train(self, seed: int) -> tuple[Split, Split | None]:
        """The clouds of train, and those of validation if they have an npz."""
        if self.path.is_file():
            return self._cut_test(seed)[0], None
        return self._load("train"), self._load("val") if self.file("val").is_file() else None

    def find_test(self, seed: int) -> Split:
        """The clouds of test."""
        return self._cut_test(seed)[1] if self.path.is_file() else self._load("test")

    def _cut_test(self, seed: int) -> tuple[Split, Split]:
        return cut(self.load(self.path), self.test_fraction, seed, "test_fraction")

    def _load(self, split: str) -> Split:
        path = self.file(split)
        require(path.is_file(), "root", "an npz, or a folder with train.npz and test.npz", f"no file {path}")
        return self.load(path)


class PointArrays(Points):
    """One npz a split, or one in all, which is then split by seed.

        points    (N, M, 3), or (N, M, 3 + C) with the features behind; or (N, 3 + C, M), where no doubt is left
        labels    (N,) integers from 0
        features  (N, M, C), or (N, C, M), optional, if they are apart
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
        self.files = ArrayFiles(root, test_fraction, self._load)
        train = self.files.file("train")
        if class_names is None and train.is_file():
            classes = load_arrays(train, [], ["classes"]).get("classes")
            if classes is not None:
                class_names = [str(name) for name in classes.reshape(-1)]
                expected = f"{len(class_names)}, the number of names in `classes` of {train}"
                require(num_classes == len(class_names), "num_classes", expected, num_classes)
        super().__init__(class_facts(num_classes, class_names), **options)

    def find_train(self) -> tuple[Split, Split | None]:
        """The clouds of train, and those of validation if they have an npz."""
        return self.files.find_train(self.split_seed)

    def find_test(self) -> Split:
        """The clouds of test."""
        return self.files.find_test(self.split_seed)

    def _load(self, path: Path) -> Split:
        points, arrays = load_clouds(path, self.features, ["labels", *([self.scale] if self.scale else [])])
        if self.scale:
            scale = arrays[self.scale]
            is_scale = scale.dtype.kind in "fiu" and scale.shape == points.shape[:1] and bool((scale > 0).all())
            expected = f"{len(points)} numbers above 0, one a cloud"
            require(is_scale, f"{path}, {self.scale}", expected, f"{scale.dtype} {scale.shape}")
            points = np.concatenate([points[..., :3] * scale[:, None, None].astype(np.float32), points[..., 3:]], -1)
        names = [str(name) for name in arrays.get("ids", [])]
        return class_split(points, arrays["labels"], names, path, self.num_classes)


def load_clouds(path: Path, features: list[str], keys: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The clouds (N, M, 3 + C) of an npz; and its other arrays by these keys, and `ids` if it has them.

    Raises:
        InputError: the file cannot be read, lacks an array, or its points have not these features.
    """
    arrays = load_arrays(path, ["points", *keys], ["features", "ids"])
    return join_columns(arrays, features, path), arrays


def array_split(points: np.ndarray, labels: list[Any], names: list[str], path: Path, **columns: Any) -> Split:
    """The split of clouds (N, M, 3 + C) with a label for each, and names if they have any.

    Raises:
        InputError: points or names are not of this form.
    """
    require(points.ndim == 3, str(path), "points of shape (N, M, 3 or more)", points.shape)
    require(points.size > 0, str(path), "at least one point", f"points of shape {points.shape}")
    count = len(points)
    require(len(names) in (0, count), str(path), f"{count} ids, as points", len(names))
    names = names or [f"cloud {row}" for row in range(count)]
    return Split(list(points), names, labels, str(path), ARRAYS, **columns)


def class_split(points: np.ndarray, labels: np.ndarray, names: list[str], path: Path, num_classes: int) -> Split:
    """The split of clouds (N, M, 3 + C) with classes (N,), and names if they have any.

    Raises:
        InputError: points, labels or names are not of this form.
    """
    split = array_split(points, labels.tolist(), names, path)
    count = len(points)
    is_class = labels.dtype.kind in "iu" and labels.shape == (count,)
    require(is_class, str(path), f"integer labels of shape ({count},), as points", f"{labels.dtype} {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    classes = f"labels from 0 to {num_classes - 1} (num_classes)"
    require(low >= 0 and high < num_classes, str(path), classes, f"{low} to {high}")
    return split
