"""Files into point clouds: float32 (M, 3 + C), x, y, z and then the features that were asked for.

Legend: M points, C features, N clouds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.points.columns import join_columns, load_arrays, one_line, present, say_left_out
from datamodules.points.meshes import NORMALS, READERS, draw, load_mesh
from datamodules.points.text import read_lines
from perceiver_lightning.errors import InputError, require

FLATTEST = 1e-3  # share of the longest side of a box that the others have at least: they are divided by
FARTHEST_READ = 1e15  # well below where squares overflow in float32, 1e19
COARSE = 1e-4  # share of its extent by which float32 may move the points of a cloud that lies far from zero
MESHES = tuple(READERS)
TEXTS = (".xyz", ".pts", ".csv", ".txt", ".asc")
POINT_EXTENSIONS = (*MESHES, *TEXTS, ".npy", ".npz")

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
                                  is, has its vertices as points, and the features by the names that a ply gives them;
                                  an obj has red, green and blue
        csv, txt, xyz, pts, asc   a line for each point, by commas, semicolons or blanks; a first line of names says
                                  which columns are x, y, z and the features, one with a single number how many
                                  points follow
        npy                       (M, 3) or more columns, or (3 or more, M)
        npz                       `points` of that shape, and `features` (M, C) if they are apart

    Columns without names are x, y, z and the features in their order; without features, all behind z are left out, and
    one line on stderr says so.

    Args:
        path: the file; its ending says the format.
        features: names of the C features.
        samples: points to draw from a mesh.
        seed: of that draw.

    Returns:
        float32; float64 if float32 would move points that lie far from zero by more than a ten thousandth of the
        cloud's extent.

    Raises:
        InputError: the file cannot be read, has no points, no surface, or not these features, or values that are not
            finite or lie too far out.
    """
    path = Path(path)
    kind = path.suffix.lower()
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: expected points, found an empty file")
        if kind in MESHES:
            points = _read_mesh(path, features, samples, seed)
        elif kind in TEXTS:
            points = read_lines(path, features)
        else:
            points = _read_arrays(path, features)
    except InputError:
        raise
    # Readers raise nearly anything for a broken file: ValueError, IndexError, KeyError, MemoryError ...
    except Exception as error:
        what = "a mesh or points" if kind in MESHES else "points"
        raise InputError(f"{path}: expected {what}, found a file that cannot be read ({one_line(error)})") from error
    if len(points) == 0:
        raise InputError(f"{path}: expected at least one point, found none")
    single = checked(points, path)
    return points if is_coarse(points) else single


def checked(points: np.ndarray, where: Any) -> np.ndarray:
    """Points (M, 3 + C) as float32.

    Raises:
        InputError: values are not finite, or lie too far out.
    """
    farthest = float(np.abs(points[:, :3]).max())
    with np.errstate(over="ignore"):
        single = points.astype(np.float32)
    bad = int((~np.isfinite(single).all(1)).sum())
    if bad and not FARTHEST_READ <= farthest < np.inf:
        raise InputError(f"{where}: expected finite values, found NaN or infinity in {bad} of {len(points)} points")
    require(farthest < FARTHEST_READ, str(where), f"coordinates below {FARTHEST_READ:g}", f"{farthest:g}")
    return single


def is_coarse(points: np.ndarray) -> bool:
    """Whether float32 would move points (M, 3 + C) by more than `COARSE` of their extent."""
    if np.can_cast(points.dtype, np.float32):
        return False
    positions = points[:, :3].astype(np.float64)
    extent = np.ptp(positions, axis=0).max()
    return bool(np.abs(positions.astype(np.float32) - positions).max() > COARSE * extent)


def _read_arrays(path: Path, features: Sequence[str]) -> np.ndarray:
    is_npy = path.suffix.lower() == ".npy"
    arrays = {"points": _load_array(path)} if is_npy else load_arrays(path, ["points"], ["features"])
    shape = arrays["points"].shape
    if len(shape) != 2:
        raise InputError(f"{path}: expected points of shape (M, 3 or more), found {shape}")
    return join_columns(arrays, features, path)


def _load_array(path: Path) -> np.ndarray:
    """The array of an npy."""
    with path.open("rb") as file:
        array = np.load(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"more behind the array {array.shape} that its header announces")
    return array


def _read_mesh(path: Path, features: Sequence[str], samples: int, seed: int) -> np.ndarray:
    mesh = load_mesh(path)
    if mesh.triangles is not None:
        present(features, NORMALS, path)
        points, normals = draw(mesh, samples, seed, path)
        return np.hstack([points, *(normals[:, [NORMALS.index(name)]] for name in features)])
    if features:
        present(features, list(mesh.columns), path)
    say_left_out(len({*"xyz", *mesh.columns}), len({*"xyz", *features}), path)
    return np.hstack([mesh.vertices, *(mesh.columns[name].astype(np.float64)[:, None] for name in features)])
