"""Files into point clouds: float32 (M, 3 + C), x, y, z and then the features that were asked for.

Legend: M points, C features, N clouds.
"""

import csv
import itertools
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
from torch import Tensor

from perceiver_lightning.errors import InputError

FLATTEST = 1e-3  # share of the longest side of a box that the others have at least: they are divided by
MESHES = (".off", ".obj", ".ply", ".stl", ".glb")
TEXTS = (".xyz", ".csv", ".txt")
POINT_EXTENSIONS = (*MESHES, *TEXTS, ".npy", ".npz")
NORMALS = ["nx", "ny", "nz"]

Into = Literal["ball", "cube", "box"]  # what clouds are normalised into


def frame(positions: Tensor, into: Into) -> tuple[Tensor, Tensor]:
    """Where the zero of a cloud (M, 3) is to be, (3,), and how far it reaches from there, (1,) or along each axis (3,).

    Less the first and over the second, it is normalised into the unit ball, or into the cube from -1 to 1, with its
    mean at zero and its farthest point on the surface; or into its own box, which becomes that cube, each side by
    itself. Points that all fall together reach 0; a side of a box, `FLATTEST` of the longest at least.
    """
    if into == "box":
        low, high = positions.amin(0), positions.amax(0)
        reach = (high - low) / 2
        return (high + low) / 2, reach.clamp(min=FLATTEST * reach.max().item())
    zero = positions.mean(0)
    positions = positions - zero
    return zero, (positions.norm(dim=1) if into == "ball" else positions.abs()).max()[None]


def choose(points: Tensor, count: int | None, seed: int | None) -> Tensor:
    """`count` of the points (M, 3 + C), drawn without repeats: each time, or by `seed`; all if there are no more."""
    if count is None or len(points) <= count:
        return points
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return points[torch.randperm(len(points), generator=generator)[:count]]


def read_points(path: str | Path, features: Sequence[str] = (), samples: int = 2048, seed: int = 0) -> np.ndarray:
    """The points of one file.

        off, obj, ply, stl, glb   a mesh: drawn from its surface, evenly by area; faces may have any number of corners.
                                  Its features can be the normals, nx, ny and nz. A file without faces, as a ply often
                                  is, has its vertices as points, and the features by the names that a ply gives them
        csv, txt, xyz             a line for each point, by commas or blanks; a first line of names says which columns
                                  are x, y, z and the features
        npy                       (M, 3) or more columns
        npz                       `points` of that shape, and `features` (M, C) if they are apart

    Columns without names are x, y, z and the features in their order; without features, all behind z are left out.

    Args:
        path: the file; its ending says the format.
        features: names of the C features.
        samples: points to draw from a mesh.
        seed: of that draw.

    Raises:
        InputError: the file cannot be read, has no points, no surface, or not these features.
    """
    path = Path(path)
    kind = path.suffix.lower()
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: expected points, found an empty file")
        if kind in MESHES:
            points = _read_mesh(path, features, samples, seed)
        elif kind in TEXTS:
            points = _read_text(path, features)
        else:
            points = _read_arrays(path, features)
    except InputError:
        raise
    # trimesh's and numpy's readers raise nearly anything for a broken file: ValueError, IndexError, KeyError ...
    except Exception as error:
        what = "a mesh or points" if kind in MESHES else "points"
        raise InputError(f"{path}: expected {what}, found a file that cannot be read ({_line(error)})") from error
    if len(points) == 0:
        raise InputError(f"{path}: expected at least one point, found none")
    return points.astype(np.float32)


def load_arrays(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an npz by their keys, those of `optional` where they are there. Nothing is ever unpickled.

    Raises:
        InputError: the file is no npz, a key is missing, or an array is of pickled objects.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected an npz, found a file that cannot be read ({_line(error)})") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: expected an npz of named arrays, found one array without a name")
    with file:
        missing = [key for key in keys if key not in file]
        if missing:
            raise InputError(f"{path}: expected the arrays {', '.join(keys)}, found {', '.join(file) or 'none'}")
        arrays = {}
        for key in [*keys, *(key for key in optional if key in file)]:
            try:
                arrays[key] = file[key]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(
                    f"{path}: expected {key} to be an array of numbers or strings, found what cannot be read "
                    f"({_line(error)})"
                ) from error
    return arrays


def take_columns(points: np.ndarray, features: Sequence[str], where: Any) -> np.ndarray:
    """The first 3 + C columns, (..., 3 + C), of an array without names."""
    columns = points.shape[-1] if points.ndim else 0
    if columns < 3 or (features and columns != 3 + len(features)):
        expected = f"{3 + len(features)} columns (x, y, z, {', '.join(features)})" if features else "3 columns or more"
        raise InputError(f"{where}: expected points with {expected}, found the shape {points.shape}")
    if points.dtype.kind not in "fiu":
        raise InputError(f"{where}: expected points as numbers, found {points.dtype}")
    return points[..., : 3 + len(features)]


def _read_arrays(path: Path, features: Sequence[str]) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        points = np.load(path, allow_pickle=False)
    else:
        arrays = load_arrays(path, ["points"], ["features"] if features else [])
        points = join_features(arrays, path)
    if points.ndim != 2:
        raise InputError(f"{path}: expected points of shape (M, 3 or more), found {points.shape}")
    return take_columns(points, features, path)


def join_features(arrays: dict[str, np.ndarray], where: Any) -> np.ndarray:
    """`points` (..., M, 3) and, if there are any, `features` (..., M, C) as one array."""
    points, features = arrays["points"], arrays.get("features")
    if features is None:
        return points
    if features.ndim != points.ndim or features.shape[:-1] != points.shape[:-1]:
        raise InputError(
            f"{where}: expected features with a row for each of the points {points.shape}, found {features.shape}"
        )
    return np.concatenate([points[..., :3], features], -1)


def _read_text(path: Path, features: Sequence[str]) -> np.ndarray:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names: list[str] = []
    delimiter, through = None, 0
    for line in lines:
        delimiter, through = "," if "," in line else None, through + 1
        text = line.lstrip("# ").rstrip()
        names = [name.strip().lower() for name in (next(csv.reader([text]), []) if delimiter else text.split())]
        if names and (line[0] != "#" or set("xyz") <= set(names)):
            break  # the first line that is no comment, or is one that names the columns
    else:
        names = []
    columns = None
    if not all(_is_number(name) for name in names):
        wanted = [*"xyz", *(name.lower() for name in features)]
        columns = [names.index(name) for name in _present(wanted, names, path)]
        lines = lines[through:]
    if all(not line.strip() or line[0] == "#" for line in lines):
        raise InputError(f"{path}: expected at least one point, found none")
    points = np.loadtxt(lines, delimiter=delimiter, usecols=columns, quotechar='"', ndmin=2)
    return points if columns else take_columns(points, features, path)


def _read_mesh(path: Path, features: Sequence[str], samples: int, seed: int) -> np.ndarray:
    # Without `process`, which would merge and drop vertices: of a cloud they are the points.
    is_off = path.suffix.lower() == ".off"
    dumped: list[Any] = [_load_off(path)] if is_off else trimesh.load_scene(path, process=False).dump()
    parts = [part for part in dumped if len(part.vertices)]
    meshes = [part for part in parts if len(getattr(part, "faces", ()))]
    if not parts:
        raise InputError(f"{path}: expected a mesh or points, found neither")
    if not meshes:
        return _vertices(parts, features, path)
    mesh: Any = trimesh.util.concatenate(meshes) if len(meshes) > 1 else meshes[0]
    _present(features, NORMALS, path)
    if not np.isfinite(mesh.vertices).all():
        bad = int((~np.isfinite(mesh.vertices).all(1)).sum())
        total = len(mesh.vertices)
        raise InputError(f"{path}: expected finite values, found NaN or infinity in {bad} of {total} vertices")
    if not mesh.area > 0:
        raise InputError(f"{path}: expected a mesh with a surface, found {len(mesh.faces)} faces of no area")
    points, faces = trimesh.sample.sample_surface(mesh, samples, seed=seed)
    return np.hstack([points, *(mesh.face_normals[faces][:, [NORMALS.index(name)]] for name in features)])


def _load_off(path: Path) -> trimesh.Trimesh:
    """An OFF file, with any number of corners a face: trimesh 5.2 fails where some faces have five or more.

    Hundreds of ModelNet40's begin with "OFF490 518 0", without the line break.
    """
    text = re.sub("#.*", "", path.read_text(errors="replace"))
    lines = [line for line in re.sub(r"^\s*C?OFF", "", text).splitlines() if line.strip()]
    if not lines:
        raise ValueError("no numbers of vertices and faces")
    counts, *lines = lines
    num_vertices, num_faces = map(int, counts.split()[:2])
    found = len(lines)
    if found < num_vertices + num_faces:
        raise ValueError(f"{num_vertices} vertices and {num_faces} faces announced, {found} lines found")
    vertices = np.array([line.split()[:3] for line in lines[:num_vertices]], np.float64).reshape(-1, 3)
    faces = []
    for line in lines[num_vertices : num_vertices + num_faces]:
        count, *corners = map(int, line.split()[: int(line.split()[0]) + 1])
        if len(corners) < count or not all(0 <= corner < num_vertices for corner in corners):
            raise ValueError(f"a face {line!r} of {num_vertices} vertices")
        faces += [(corners[0], second, third) for second, third in itertools.pairwise(corners[1:])]
    return trimesh.Trimesh(vertices, np.array(faces, np.int64).reshape(-1, 3), process=False)


def _vertices(parts: list[Any], features: Sequence[str], path: Path) -> np.ndarray:
    """The vertices of parts without faces, with what a ply says of each beside its place."""
    points = np.vstack([part.vertices for part in parts])
    if not features:
        return points
    raw = parts[0].metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {}) if len(parts) == 1 else {}
    names = raw.keys() if isinstance(raw, dict) else raw.dtype.names  # of a text, of a binary file
    _present(features, list(names), path)
    return np.hstack([points, *(np.asarray(raw[name], np.float64).reshape(-1, 1) for name in features)])


def _present(wanted: Sequence[str], found: Sequence[str], path: Path) -> Sequence[str]:
    """`wanted`, if all are among the columns that were found."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(
            f"{path}: expected the columns {', '.join(wanted)}, found {', '.join(found) or 'none'}, not {missing[0]}"
        )
    return wanted


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
