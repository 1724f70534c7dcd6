"""A folder of meshes or of point files."""

import os
from pathlib import Path
from typing import Any

from torchvision.datasets.folder import make_dataset

from datamodules.common.classes import class_facts
from datamodules.common.splits import ClassFolder, Split
from datamodules.points.base import Points
from datamodules.points.dataset import POINTS
from perceiver_lightning.errors import require


class PointFolder(Points):
    """A folder of meshes (off, obj, ply, stl, glb) or of point files (ply, csv, txt, xyz, pts, npy, npz), one a cloud.

    Laid out as `<split>/<class>/*` or as ModelNet has it, `<class>/<split>/*`, with the splits `train`, `test` and
    perhaps `val`; or as `<class>/*`, which is then split by seed. Without a validation split, one is cut from train.
    `datamodules.points.reading.read_points` says how each format is read.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder where it is there.
        test_fraction: share that is cut off for test where the folder is not split.
        options: as all point clouds have them.
    """

    def __init__(self, root: str, num_classes: int | None = None, test_fraction: float = 0.1, **options: Any) -> None:
        self.folder = ClassFolder(root, POINTS, num_classes, test_fraction)
        super().__init__(class_facts(self.folder.num_classes, self.folder.class_names), **options)

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
