"""Clouds as text: a line for each point."""

import csv
import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from datamodules.common.say import say_once
from datamodules.common.text import read_text
from datamodules.points.columns import present, say_left_out, take_columns
from perceiver_lightning.errors import InputError

log = logging.getLogger(__name__)

COMMENTS = ("#", "//")  # the second is CloudCompare's
ELEMENTS = 118
SEEN = 100  # lines that are looked at to tell numbers with a point from whole ones


def read_lines(path: Path, features: Sequence[str]) -> np.ndarray:
    """The points of a text file, (M, 3 + C): by the names in its first line, else in the order of its columns.

    A first line 0, 1, 2 ... above numbers with a point is the header of a table whose columns have no names. Whole
    numbers that count the lines, in front of three columns of others, are the index of such a table. Both are left
    out, and one line says so.

    Raises:
        InputError: the file lacks columns, has no points, or atoms.
        ValueError: a cell is not a number, or the file has not as many points as it announces.
    """
    whole = read_text(path).splitlines()
    lines = [line.strip() for line in whole if line.strip()]
    names, announced, begin = _head(lines)
    if begin and not lines[begin - 1].startswith(COMMENTS) and _is_atom(names) and not _are_numbers(names[1:]):
        raise _atoms(path, lines[begin - 1])
    lines = [line for line in lines[begin:] if not line.startswith(COMMENTS)]
    if announced is not None:
        _refuse_atoms(path, lines, names, whole)
        if announced != len(lines):
            raise ValueError(f"{announced} points announced, {len(lines)} lines found")
    columns, named = None, bool(names) and not _are_numbers(names[1:])
    if named:
        columns = [names.index(name) for name in present([*"xyz", *(name.lower() for name in features)], names, path)]
    if not lines:
        raise InputError(f"{path}: expected at least one point, found none")
    first = _cells(lines[0])
    if not names and _are_numbers(first):
        lines = _without_numbers(lines, path)
    width, delimiter = len(_cells(lines[0])), _delimiter(lines[0])
    if columns is not None:
        if first[-1] == "" and width == len(names) + 1:  # each line ends with a delimiter
            width -= 1
        is_index = width == len(names) + 1 and _rises(lines)
        in_front = width < len(names) and columns == list(range(len(columns)))  # a name may have blanks
        if width != len(names) and not is_index and not in_front:
            raise InputError(f"{path}: expected {len(names)} columns, as its names, found {width}")
        columns = [column + is_index for column in columns]
    elif names or _is_index(lines, width, 3 + len(features) if features else None, path):
        say_once(log, "index of points", f"{path}: its first column is an index of the points, and is left out")
        columns = list(range(1, width))
    points = np.loadtxt(lines, delimiter=delimiter, usecols=columns, quotechar='"', ndmin=2)
    if not named:
        return take_columns(points, features, path)
    say_left_out(len(names), len(columns or ()), path)
    return points


def _head(lines: Sequence[str]) -> tuple[list[str], int | None, int]:
    """The names of the columns, the number of points that is announced, and the first line that has a point."""
    names: list[str] = []
    announced = None
    for place, line in enumerate(lines):
        cells = [cell.lower() for cell in _cells(line.lstrip("#/ "))]
        if line.startswith(COMMENTS):
            names = cells if set("xyz") <= set(cells) else names
        elif line.isdecimal() and announced is None:
            announced = int(line)
        elif not names and not all(map(_is_number, cells)):
            names = cells
        else:
            return names, announced, place
    return names, announced, len(lines)


def _without_numbers(lines: list[str], path: Path) -> list[str]:
    """The lines without a first one that numbers the columns."""
    has_index = len(lines) > 1 and len(_cells(lines[1])) == len(_cells(lines[0])) + 1
    if not has_index and _are_whole(lines[1:]):
        line = f"{path}: its first line, {lines[0]}, is read as a point; if it numbers the columns, remove it"
        say_once(log, "numbers of columns as a point", line)
        return lines
    say_once(log, "numbers of columns", f"{path}: its first line, {lines[0]}, numbers the columns, and is left out")
    return lines[1:]


def _is_index(lines: Sequence[str], width: int, expected: int | None, path: Path) -> bool:
    """Whether the first of columns without names is the index of a table: it counts the points, from 0 or 1 on."""
    has_room = width >= 4 if expected is None else width == expected + 1
    if not has_room or len(lines) < width or not _rises(lines) or _are_whole(lines):
        return False
    first, last = (int(_cells(line)[0]) for line in (lines[0], lines[-1]))
    if first in (0, 1) and last - first == len(lines) - 1:
        return True
    line = f"{path}: x rises from line to line in whole numbers; if it is an index of the points, remove that column"
    say_once(log, "x rises", line)
    return False


def _rises(lines: Sequence[str]) -> bool:
    """Whether each line begins with a whole number, larger than the one before."""
    delimiter = _delimiter(lines[0])
    cells = [line.split(delimiter, 1)[0].strip(' "') for line in lines]
    return all(cell.isdecimal() for cell in cells) and all(int(a) < int(b) for a, b in pairwise(cells))


def _are_whole(lines: Sequence[str]) -> bool:
    """Whether the numbers behind the first column are whole, as their text has no point."""
    return all(cell.lstrip("+-").isdecimal() for line in lines[:SEEN] for cell in _cells(line)[1:])


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether the names of columns are 0, 1, 2 ..., for three or more."""
    return len(names) >= 3 and list(names) == [str(place) for place in range(len(names))]


def _refuse_atoms(path: Path, lines: Sequence[str], names: Sequence[str], whole: Sequence[str]) -> None:
    """Raise an InputError for the file of a molecule: a count, a comment, then a line for each atom."""
    for line in lines[:2]:
        if _is_atom(_cells(line)) and not set("xyz") <= set(names):
            raise _atoms(path, line)
    if path.suffix.lower() == ".xyz" and lines:
        is_comment = (bool(names) and not set("xyz") <= set(names)) or (whole[0].strip() and not whole[1].strip())
        cells = _cells(lines[0])
        if is_comment and len(cells) > 3 and cells[0].isdecimal() and 0 < int(cells[0]) <= ELEMENTS:
            raise _atoms(path, lines[0])


def _is_atom(cells: Sequence[str]) -> bool:
    """Whether a line has a word, then three numbers or more."""
    return len(cells) > 3 and not _is_number(cells[0]) and cells[0] != "" and all(map(_is_number, cells[1:4]))


def _atoms(path: Path, line: str) -> InputError:
    return InputError(
        f"{path}: expected lines of numbers, found atoms or other named points, as in molecules: {line!r}"
    )


def _delimiter(line: str) -> str | None:
    return next((delimiter for delimiter in ";," if delimiter in line), None)


def _cells(line: str) -> list[str]:
    delimiter = _delimiter(line)
    if delimiter is None:
        return [cell.strip('"') for cell in re.findall(r'"[^"]*"|\S+', line)]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
