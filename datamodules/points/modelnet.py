"""ModelNet, as meshes or as points."""

from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.folders import layout_in_classes, list_classes
from datamodules.common.listing import folders_in
from datamodules.common.splits import Split, shortened
from datamodules.points.arrays import ARRAYS, class_split
from datamodules.points.base import Points
from datamodules.points.reading import NORMALS, take_columns
from perceiver_lightning.errors import InputError, require

MODELNET10 = ["bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet"]
MODELNET40 = [
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor",
    "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table",
    "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
]  # fmt: skip


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
        super().__init__(class_facts(number, list(MODELNET10 if number == 10 else MODELNET40)), **options)
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
        layout = layout_in_classes(self.folder, {folder: folders_in(folder) for folder in folders_in(self.folder)})
        found = sorted(layout.get(split, {}))
        known = f"the folders of ModelNet{self.num_classes}'s classes, with a folder {split} in each"
        require(
            found == self.class_names,
            str(self.folder),
            known,
            f"{shortened(found) or 'none'}; other classes are read by PointFolder",
        )
        return list_classes(self.folder, split, layout, self.kind)


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
        part = class_split(points, arrays[1].reshape(-1), [], path, num_classes)
        clouds += part.items
        labels += part.labels or []
        names += [f"{path.name}/{name}" for name in part.names]
    return Split(clouds, names, labels, str(folder), ARRAYS)
