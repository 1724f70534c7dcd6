"""Arrays of point clouds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.splits import Kind, Split, files_of_splits
from datamodules.points.base import Points
from datamodules.points.columns import join_columns, load_arrays
from perceiver_lightning.errors import require


def unchanged(cloud: np.ndarray, **_: Any) -> np.ndarray:
    """A cloud that is in memory already."""
    return cloud


ARRAYS = Kind("point clouds", (".npz", ".h5"), unchanged)


class ArrayFiles:
    """One npz a split, in a folder, or one in all.

    Args:
        root: the npz, or the folder with `train.npz`, `test.npz` and perhaps `val.npz`, or other usual names of splits;
            from here or below the folder of all data.
        load: makes the split of one npz.
    """

    def __init__(self, root: str, load: Callable[[Path], Split]) -> None:
        self.path = Path(root) if Path(root).is_file() else located(root)
        self.load = load

    @property
    def train(self) -> Path:
        """The npz that has train, which may be absent."""
        return self.path if self.path.is_file() else self._files().get("train", self.path / "train.npz")

    def find_all(self) -> Split | None:
        """All clouds, where they have one npz."""
        return self.load(self.path) if self.path.is_file() else None

    def find_train(self) -> tuple[Split, Split | None]:
        """The clouds of train, and those of validation if they have an npz."""
        return self._load("train"), self._load("val") if "val" in self._files() else None

    def find_test(self) -> Split:
        """The clouds of test."""
        return self._load("test")

    def _files(self) -> dict[str, Path]:
        return files_of_splits(self.path, (".npz",))

    def _load(self, split: str) -> Split:
        known = "an npz, or a folder with train.npz and test.npz"
        require(split in (files := self._files()), "root", known, f"no file {self.path / f'{split}.npz'}")
        return self.load(files[split])


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
        self.test_fraction = test_fraction
        self.arrays = ArrayFiles(root, self._load)
        train = self.arrays.train
        if class_names is None and train.is_file():
            classes = load_arrays(train, [], ["classes"]).get("classes")
            if classes is not None:
                class_names = [str(name) for name in classes.reshape(-1)]
                expected = f"{len(class_names)}, the number of names in `classes` of {train}"
                require(num_classes == len(class_names), "num_classes", expected, num_classes)
        super().__init__(class_facts(num_classes, class_names), **options)

    def find_all(self) -> Split | None:
        """All clouds, where they have one npz."""
        return self.arrays.find_all()

    def find_train(self) -> tuple[Split, Split | None]:
        """The clouds of train, and those of validation if they have an npz."""
        return self.arrays.find_train()

    def find_test(self) -> Split:
        """The clouds of test."""
        return self.arrays.find_test()

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
