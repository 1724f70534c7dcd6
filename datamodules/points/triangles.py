"""Faces of any number of corners as triangles.

Legend: V vertices, F faces, K corners of all faces, T triangles.
"""

import logging
from pathlib import Path

import mapbox_earcut
import numpy as np

from datamodules.common.say import say_once

log = logging.getLogger(__name__)

SLACK = 1e-9  # share of its face's area by which a triangle may miss it: rounding
CROSSING = 1e-6  # share of the product of its sides by which a face's triangles may have more area: rounding in float32


def triangulate(vertices: np.ndarray, corners: np.ndarray, counts: np.ndarray, path: Path) -> np.ndarray:
    """The triangles (T, 3) of faces, in the order of the faces, each turned as its face.

    A face is cut into the fan of its first corner where that fan covers it (as in every convex face), else by earcut,
    in its own plane. One that is not flat is cut as its shadow on its mean plane. One line on stderr says if faces
    cross themselves, as these have no one surface.

    Args:
        vertices: (V, 3).
        corners: (K,) rows of `vertices`, face by face.
        counts: (F,) corners of each face; those of one or two have no surface.
        path: the file, for messages.

    Raises:
        ValueError: a corner is not among the vertices.
    """
    corners, counts = _integers(corners), _integers(counts)
    outside = (corners < 0) | (corners >= len(vertices))
    if outside.any():
        raise ValueError(f"{len(vertices)} vertices, and a face with the corner {corners[outside][0]}, counted from 0")
    if (counts == 3).all():
        return corners.reshape(-1, 3)
    starts, fans = counts.cumsum() - counts, np.maximum(counts - 2, 0)
    face = np.repeat(np.arange(len(counts)), fans)  # of each triangle
    second = np.arange(len(face)) - np.repeat(fans.cumsum() - fans, fans) + starts[face] + 1
    triangles = corners[np.stack([starts[face], second, second + 1], 1)]
    normals, along = _areas(vertices, triangles, face, len(counts))
    missed = np.unique(face[along < -SLACK * np.linalg.norm(normals[face], axis=1)])
    cut = [_cut(vertices, corners[starts[row] : starts[row] + counts[row]], normals[row]) for row in missed]
    kept = ~np.isin(face, missed)
    face = np.concatenate([face[kept], *(np.full(len(part), row) for row, part in zip(missed, cut, strict=True))])
    triangles = np.concatenate([triangles[kept], *cut])
    order = np.argsort(face, kind="stable")
    face, triangles = face[order], triangles[order]
    crossing = _crossing(vertices, triangles, face, normals)
    if crossing:
        line = f"{path}: {crossing} of {len(counts)} faces cross themselves, which leaves their surface open"
        say_once(log, "faces that cross themselves", line)
    return triangles


def _integers(values: np.ndarray) -> np.ndarray:
    """Whole numbers as int64."""
    whole = values.astype(np.int64)
    if (whole != values).any():
        raise ValueError(f"a face with the corner {values[whole != values][0]}")
    return whole


def _areas(vertices: np.ndarray, triangles: np.ndarray, face: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """The normal (F, 3) of each face, twice its area long, and twice the area (T,) of each triangle as seen along it.

    Triangles that turn the other way than their face have areas below zero.
    """
    first, second, third = vertices[triangles].swapaxes(0, 1)
    crosses = np.cross(second - first, third - first)
    normals = np.stack([np.bincount(face, crosses[:, axis], faces) for axis in range(3)], 1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    units = normals / np.where(lengths > 0, lengths, 1)
    return normals, (crosses * units[face]).sum(1)


def _cut(vertices: np.ndarray, corners: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The triangles (T, 3) of one face, by earcut on the plane across the longest part of its normal."""
    axis = int(np.abs(normal).argmax())
    flat = np.delete(vertices[corners] - vertices[corners[0]], axis, 1)
    flat = np.ascontiguousarray(flat / (np.abs(flat).max() or 1), np.float64)
    triangles = corners[mapbox_earcut.triangulate_float64(flat, np.array([len(corners)], np.uint32)).astype(np.int64)]
    triangles = triangles.reshape(-1, 3)
    first, second, third = vertices[triangles].swapaxes(0, 1)
    turned = (np.cross(second - first, third - first) * normal).sum(1) < 0
    return np.where(turned[:, None], triangles[:, ::-1], triangles)


def _crossing(vertices: np.ndarray, triangles: np.ndarray, face: np.ndarray, normals: np.ndarray) -> int:
    """How many faces have triangles of more area than they have themselves: these cross themselves."""
    first, second, third = vertices[triangles].swapaxes(0, 1)
    one, other = second - first, third - first
    lengths = np.linalg.norm(normals, axis=1)
    units = normals / np.where(lengths > 0, lengths, 1)[:, None]
    crosses = np.cross(one, other)
    flat = lengths[face] > 0
    areas = np.where(flat, np.abs((crosses * units[face]).sum(1)), np.linalg.norm(crosses, axis=1))
    reach = np.bincount(face, np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1), len(normals))
    return int((np.bincount(face, areas, len(normals)) > lengths + CROSSING * reach).sum())
