"""A folder of meshes or of point files."""

from datamodules.common.folders import InFolders
from datamodules.points.base import Points


class PointFolder(InFolders, Points):
    """A folder of meshes (off, obj, ply, stl, glb) or of point files (ply, csv, txt, xyz, pts, asc, npy, npz).

    `InFolders` says how they lie, and `datamodules.points.reading.read_points` how each format is read.
    """
