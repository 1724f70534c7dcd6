"""Point clouds to train on: ModelNet, folders of meshes or of point files of your own, arrays of clouds."""

import os
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from torchvision.datasets.folder import make_dataset

from datamodules.base import located, require
from datamodules.point_base import Points
from datamodules.point_files import NORMALS, join_features, load_arrays, take_columns
from datamodules.point_sets import POINTS
from datamodules.splits import ClassFolder, Kind, Split, cut
from perceiver_lightning.errors import InputError

MODELNET10 = ["bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet"]
MODELNET40 = [
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor",
    "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table",
    "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
]  # fmt: skip


class PointFolder(Points):
    """A folder of meshes (off, obj, ply, stl, glb) or of point files (ply, csv, txt, xyz, npy, npz), one a cloud.

    Laid out as `<split>/<class>/*` or as ModelNet has it, `<class>/<split>/*`, with the splits `train`, `test` and
    perhaps `val`; or as `<class>/*`, which is then split by seed. Without a validation split, one is cut from train.
    `datamodules.point_files.read_points` says how each format is read.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder where it is there.
        test_fraction: share that is cut off for test where the folder is not split.
        options: as all point clouds have them.
    """

    def __init__(self, root: str, num_classes: int | None = None, test_fraction: float = 0.1, **options: Any) -> None:
        self.folder = ClassFolder(root, POINTS, num_classes, test_fraction)
        super().__init__(self.folder.num_classes, self.folder.class_names, **options)

    def find_train(self) -> tuple[Split, Split | None]:
        """The train files, and the validation files if there are any."""
        if not self._is_split_in_classes("train"):
            return self.folder.find_train(self.split_seed)
        val = self._in_classes("val") if self._is_split_in_classes("val") else None
        return self._in_classes("train"), val

    def find_test(self) -> Split:
        """The test files."""
        in_classes = self._is_split_in_classes("train")
        return self._in_classes("test") if in_classes else self.folder.find_test(self.split_seed)

    def _is_split_in_classes(self, split: str) -> bool:
        return any((self.folder.folder / name / split).is_dir() for name in self.class_names)

    def _in_classes(self, split: str) -> Split:
        return split_in_classes(self.folder.folder, split, self.class_names)


class ModelNet(Points):
    """ModelNet40 or ModelNet10 as released: a folder of OFF meshes, `<class>/<split>/*.off`, or of the HDF5 files.

    The HDF5 files are PointNet's `modelnet40_ply_hdf5_2048`, with `train_files.txt` and `test_files.txt`: 2,048 points
    of each mesh, and their normals. There y points up: say `up: y` if clouds are to be rotated. In the meshes z does.

    Args:
        root: the folder, from here or below the folder of all data.
        number: of classes, 40 or 10.
        options: as all point clouds have them.
    """

    def __init__(self, root: str = "ModelNet40", number: Literal[10, 40] = 40, **options: Any) -> None:
        super().__init__(number, MODELNET10 if number == 10 else MODELNET40, **options)
        self.folder = located(root)

    def find_train(self) -> tuple[Split, None]:
        """The train split."""
        return self._find("train"), None

    def find_test(self) -> Split:
        """The test split."""
        return self._find("test")

    def _find(self, split: str) -> Split:
        require(self.folder.is_dir(), "root", "the folder of ModelNet's files", f"no folder {self.folder}")
        if (self.folder / f"{split}_files.txt").is_file():
            return hdf5_split(self.folder, split, self.features, self.num_classes)
        return split_in_classes(self.folder, split, self.class_names)


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


def split_in_classes(folder: Path, split: str, classes: list[str]) -> Split:
    """The files in `folder/<class>/<split>/`, at any depth, named by their path from `folder`.

    Raises:
        InputError: a class has none.
    """

    def is_wanted(path: str) -> bool:
        inside = Path(path).relative_to(folder)
        return inside.parts[1] == split and inside.suffix.lower() in POINTS.extensions and inside.name[0] != "."

    expected = f"point clouds ({', '.join(POINTS.extensions)})"
    for name in classes:
        require((folder / name / split).is_dir(), f"{folder / name / split}", expected, "none")
    labels_of = {name: label for label, name in enumerate(classes)}
    files = make_dataset(str(folder), labels_of, is_valid_file=is_wanted, allow_empty=True)
    found = {label for _, label in files}
    for name, label in labels_of.items():
        require(label in found, f"{folder / name / split}", expected, "none")
    names = [os.path.relpath(path, folder) for path, _ in files]
    return Split([path for path, _ in files], names, [label for _, label in files], str(folder), POINTS)


def hdf5_split(folder: Path, split: str, features: list[str], num_classes: int) -> Split:
    """The clouds in the HDF5 files that `<split>_files.txt` names; only the last part of each name counts.

    Raises:
        InputError: a file is missing or not of the form, or the features are not the normals.
    """
    require(features in ([], NORMALS), "features", f"none or {NORMALS}, as the HDF5 files have them", features)
    clouds: list[np.ndarray] = []
    labels: list[int] = []
    names: list[str] = []
    for line in (folder / f"{split}_files.txt").read_text().split():
        path = folder / Path(line).name
        try:
            with h5py.File(path) as file:
                arrays = [file[key][:] for key in ("data", "label", *(["normal"] if features else []))]
        except (OSError, KeyError) as error:
            what = " and ".join(["data", "label", *(["normal"] if features else [])])
            raise InputError(f"{path}: expected an HDF5 file with {what}, found {error}") from error
        points = take_columns(np.concatenate([arrays[0], *arrays[2:]], -1), features, path)
        part = array_split(points, arrays[1].reshape(-1), [], path, num_classes)
        clouds += part.items
        labels += part.labels or []
        names += [f"{path.name}/{name}" for name in part.names]
    return Split(clouds, names, labels, str(folder), ARRAYS)


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
