"""Arrays of points with columns that have no names.

Legend: M points, C features, N clouds.
"""

import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.common.say import say_once
from perceiver_lightning.errors import InputError
from perceiver_lightning.names import ERRORS

log = logging.getLogger(__name__)

MOST_COLUMNS = 16  # of an array of points, where only its shape tells which axis is that of the columns


def load_arrays(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an npz by their keys, those of `optional` where they are there. Nothing is ever unpickled.

    Strings that are stored as bytes are decoded as UTF-8.

    Raises:
        InputError: the file is no npz, a key is missing, or an array is of pickled objects.
    """
    # numpy and zipfile raise nearly anything for a broken file: OSError, ValueError, BadZipFile, zlib.error ...
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an npz of named arrays, found one array without a name")
            missing = [key for key in keys if key not in file]
            if missing:
                raise InputError(f"{path}: expected the arrays {', '.join(keys)}, found {', '.join(file) or 'none'}")
            return {key: _read_key(file, key, path) for key in [*keys, *(key for key in optional if key in file)]}
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: expected an npz, found a file that cannot be read ({one_line(error)})") from error


def _read_key(file: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        array = file[key]
        return np.strings.decode(array, "utf-8", ERRORS) if array.dtype.kind == "S" else array
    except Exception as error:
        raise InputError(
            f"{path}: expected {key} to be an array of numbers or strings, found what cannot be read "
            f"({one_line(error)})"
        ) from error


def join_columns(arrays: dict[str, np.ndarray], features: Sequence[str], where: Any) -> np.ndarray:
    """`points`, and `features` if they are apart, as one array (..., M, 3 + C). Both may have their columns first.

    Raises:
        InputError: they have not these features, are no numbers, or can be read in two ways.
    """
    points, apart = _numbers(arrays["points"], where), arrays.get("features")
    if apart is None or not features:
        if apart is not None:
            line = f"{where}: the array features {apart.shape} is left out, as `features` names none of its columns"
            say_once(log, ("features", apart.shape[-1:]), line)
        return take_columns(points, features, where)
    if points.ndim < 2 or 3 not in points.shape[-2:]:
        raise InputError(
            f"{where}: expected points of 3 columns, as features are apart, found the shape {points.shape}"
        )
    if apart.ndim == points.ndim and _columns_are_first(points, 3, where):
        points, apart = points.swapaxes(-1, -2), apart.swapaxes(-1, -2)
    if apart.ndim != points.ndim or apart.shape[:-1] != points.shape[:-1]:
        raise InputError(
            f"{where}: expected features with a row for each of the points {points.shape}, found {apart.shape}"
        )
    return _take(np.concatenate([points, _numbers(apart, where)], -1), features, where)


def take_columns(points: np.ndarray, features: Sequence[str], where: Any) -> np.ndarray:
    """The first 3 + C columns, (..., M, 3 + C), of an array without names, which may have its columns first."""
    if points.ndim >= 2 and _columns_are_first(points, 3 + len(features) if features else None, where):
        points = points.swapaxes(-1, -2)
    return _take(points, features, where)


def _columns_are_first(points: np.ndarray, width: int | None, where: Any) -> bool:
    """Whether an array is (..., columns, M) and not (..., M, columns).

    Args:
        points: the array.
        width: its number of columns; 3 or more if not given. Then there are fewer columns than points; and columns come
            first only where their axis has up to `MOST_COLUMNS` and the other has more.
        where: the file, for messages.
    """
    rows, columns = points.shape[-2:]
    if width is None:
        first, last = 3 <= rows <= MOST_COLUMNS < columns, columns < rows or rows < 3
    else:
        first, last = rows == width, columns == width
    if first == last and (first or width is None):
        raise InputError(
            f"{where}: expected points (M, 3 or more) or (3 or more, M), found the shape {points.shape}, which can be "
            f"either{'' if width else ': name the columns in `features`, or leave out all behind z'}"
        )
    return first


def _numbers(points: np.ndarray, where: Any) -> np.ndarray:
    if points.dtype.kind not in "fiu":
        raise InputError(f"{where}: expected points as numbers, found {points.dtype}")
    return points


def _take(points: np.ndarray, features: Sequence[str], where: Any) -> np.ndarray:
    columns = points.shape[-1] if points.ndim else 0
    if columns < 3 or (features and columns != 3 + len(features)):
        expected = f"{3 + len(features)} columns (x, y, z, {', '.join(features)})" if features else "3 columns or more"
        raise InputError(f"{where}: expected points with {expected}, found the shape {points.shape}")
    x = points[..., 0]
    if x.ndim == 1 and len(x) > 3 and x[0] in (0, 1) and (x - x[0] == np.arange(len(x))).all():
        line = f"{where}: x counts the points, from {x[0]:g} on; if it is their index, remove that column"
        say_once(log, "x counts", line)
    say_left_out(columns, 3 + len(features), where)
    return points[..., : 3 + len(features)]


def present(wanted: Sequence[str], found: Sequence[str], where: Any) -> Sequence[str]:
    """`wanted`, if each is once among the columns that were found."""
    for name in wanted:
        if found.count(name) != 1:
            what = "not" if name not in found else "twice"
            names = textwrap.shorten(", ".join(found) or "none", 100, placeholder=" ...")
            raise InputError(f"{where}: expected the columns {', '.join(wanted)}, found {names}, {what} {name}")
    return wanted


def say_left_out(columns: int, read: int, where: Any) -> None:
    """Say once that a file has more columns than are read, if it has."""
    if columns > read:
        line = f"{where}: {columns} columns, of which {read} are read; `features` names those behind x, y and z"
        say_once(log, ("columns", columns, read), line)


def one_line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
