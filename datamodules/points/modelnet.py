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
from datamodules.points.columns import join_columns
from datamodules.points.meshes import NORMALS
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
        folders = folders_in(self.folder)
        missing = set(self.class_names) - {folder.name for folder in folders}
        found = f"{shortened(folders) or 'none'}; PointFolder reads a folder of any classes"
        require(not missing, "root", f"the classes of ModelNet{self.num_classes} in {self.folder}", found)
        inside = {self.folder / name: folders_in(self.folder / name) for name in self.class_names}
        layout = layout_in_classes(self.folder, inside, self.kind)
        require(split in layout, str(self.folder), f"a folder {split} in each class", "none")
        return list_classes(self.folder, layout, self.kind)[split]


def hdf5_split(folder: Path, split: str, features: list[str], num_classes: int) -> Split:
    """The clouds in the HDF5 files that `<split>_files.txt` names; only the last part of each name counts.

    Raises:
        InputError: a file is missing or not of the form, or the features are not the normals.
    """
    require(features in ([], NORMALS), "features", f"none or {NORMALS}, as the HDF5 files have them", features)
    clouds: list[np.ndarray] = []
    labels: list[int] = []
    names: list[str] = []
    listed = folder / f"{split}_files.txt"
    for line in filter(str.strip, listed.read_text(encoding="utf-8-sig", errors="replace").splitlines()):
        path = folder / Path(line.strip()).name
        # h5py raises nearly anything for a broken file: OSError, KeyError, RuntimeError, TypeError ...
        try:
            with h5py.File(path) as file:
                arrays = [np.asarray(file[key]) for key in ("data", "label", *(["normal"] if features else []))]
        except Exception as error:
            what = " and ".join(["data", "label", *(["normal"] if features else [])])
            raise InputError(f"{path}: expected an HDF5 file with {what}, found {error}") from error
        apart = {"features": arrays[2]} if features else {}
        points = join_columns({"points": arrays[0], **apart}, features, path)
        part = class_split(points, arrays[1].reshape(-1), [], path, num_classes)
        clouds += part.items
        labels += part.labels or []
        names += [f"{path.name}/{name}" for name in part.names]
    require(len(clouds) > 0, str(listed), "names of HDF5 files", "none")
    return Split(clouds, names, labels, str(folder), ARRAYS)
