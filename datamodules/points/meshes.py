"""Mesh files into vertices and triangles, and those into points.

Legend: V vertices, T triangles, C columns beside x, y and z.
"""

import json
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh

from datamodules.points.columns import say_left_out
from datamodules.points.ply import Lists, read_ply
from datamodules.points.triangles import triangulate
from perceiver_lightning.errors import InputError

NORMALS = ["nx", "ny", "nz"]
# Of what a glb says that its reader has to know, what does not change the triangles.
HARMLESS = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "KHR_lights_", "KHR_mesh_quantization")

STL_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


class Mesh(NamedTuple):
    """What a file holds: vertices (V, 3), columns of them by name, and triangles (T, 3) if it has faces."""

    vertices: np.ndarray
    columns: dict[str, np.ndarray]
    triangles: np.ndarray | None


def load_mesh(path: Path) -> Mesh:
    """The mesh, or the cloud, of a file by its ending.

    Raises:
        InputError: it has no vertices.
        Exception: nearly any, if the file cannot be read.
    """
    mesh = READERS[path.suffix.lower()](path)
    if len(mesh.vertices) == 0:
        raise InputError(f"{path}: expected a mesh or points, found neither")
    return mesh


def draw(mesh: Mesh, samples: int, seed: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (samples, 3) drawn from the surface, evenly by area, and the normals there.

    Raises:
        InputError: it has vertices that are not finite, or no surface.
    """
    finite = np.isfinite(mesh.vertices).all(1)
    if not finite.all():
        bad, total = int((~finite).sum()), len(mesh.vertices)
        raise InputError(f"{path}: expected finite values, found NaN or infinity in {bad} of {total} vertices")
    surface = trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False)
    if not surface.area > 0:
        raise InputError(f"{path}: expected a mesh with a surface, found {len(surface.faces)} faces of no area")
    points, faces = trimesh.sample.sample_surface(surface, samples, seed=seed)
    return points, surface.face_normals[faces]


def _of_faces(vertices: np.ndarray, faces: Sequence[Sequence[int]], path: Path) -> Mesh:
    """A mesh of faces of any number of corners; a cloud, if there are none."""
    if not faces:
        return Mesh(vertices, {}, None)
    corners = np.array([corner for face in faces for corner in face])
    return Mesh(vertices, {}, triangulate(vertices, corners, np.array([len(face) for face in faces]), path))


def _load_off(path: Path) -> Mesh:
    """An OFF file. Colours, normals and texture coordinates of vertices, and colours of faces, are left out.

    Hundreds of ModelNet40's begin with "OFF490 518 0", without the line break.
    """
    text = re.sub("#.*", "", path.read_text(encoding="utf-8-sig", errors="replace"))
    head = re.match(r"\s*(ST)?C?N?(4)?(n)?OFF([ \t]+BINARY)?", text)
    if head and any(head.groups()[1:]):
        raise ValueError(f"{head[0].strip()!r}, an OFF file that is binary or not of three dimensions")
    lines = [line.split() for line in text[head.end() if head else 0 :].splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError("no numbers of vertices and faces")
    num_vertices, num_faces = map(int, lines[0][:2])
    if min(num_vertices, num_faces) < 0 or len(lines) - 1 != num_vertices + num_faces:
        raise ValueError(f"{num_vertices} vertices and {num_faces} faces announced, {len(lines) - 1} lines found")
    vertices = _floats([line[:3] for line in lines[1 : num_vertices + 1]])
    if num_vertices and not num_faces:
        say_left_out(len(lines[1]), 3, path)
    faces = []
    for line in lines[num_vertices + 1 :]:
        face = [int(corner) for corner in line[1 : int(line[0]) + 1]]
        if len(face) != int(line[0]):
            raise ValueError(f"{line[0]} corners of a face announced, {len(face)} found")
        faces.append(face)
    return _of_faces(vertices, faces, path)


def _load_obj(path: Path) -> Mesh:
    """An OBJ file: its vertices, with their colours if all have some, and its faces. Normals, textures are left out."""
    text = re.sub(r"\\[ \t]*\r?\n", " ", path.read_text(encoding="utf-8-sig", errors="replace"))
    vertices: list[list[str]] = []
    faces: list[list[int]] = []
    for line in text.splitlines():
        match line.partition("#")[0].split():
            case ["v", *place]:
                vertices.append(place)
            case ["f", *corners]:
                # From 1 on, or back from the last vertex so far.
                rows = [int(corner.partition("/")[0]) for corner in corners]
                face = [row - 1 if row > 0 else len(vertices) + row for row in rows]
                if len(face) < 3 or 0 in rows:
                    raise ValueError(f"the face {line.strip()!r}")
                faces.append(face)
            case ["curv" | "curv2" | "surf" as what, *_]:
                raise ValueError(f"{what!r}, a free-form curve or surface")
    mesh = _of_faces(_floats([place[:3] for place in vertices]), faces, path)
    if {len(place) for place in vertices} != {6}:
        return mesh
    colours = np.array(vertices, np.float64).T[3:]
    return mesh._replace(columns=dict(zip(["red", "green", "blue"], colours, strict=True)))


def _load_stl(path: Path) -> Mesh:
    """An STL file, binary or text. That it is binary is told by its length: some of these begin with "solid", too."""
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little")
    if len(data) >= 84 and len(data) == 84 + 50 * count:
        facets = np.frombuffer(data, STL_FACET, count, 84)
        vertices = facets["corners"].reshape(-1, 3).astype(np.float64)
        return Mesh(vertices, {}, np.arange(3 * count).reshape(-1, 3))
    if not re.match(rb"\s*solid\b", data) or b"\0" in data:
        facets_found = f"{count} facets announced, {(len(data) - 84) / 50:g} found"
        raise ValueError(facets_found if len(data) >= 84 else f"{len(data)} bytes, less than a header")
    text = data.decode(errors="replace").lower()
    words = re.findall(r"^[ \t]*(solid|facet|vertex|endfacet|endsolid)\b", text, re.MULTILINE)
    # A letter for each: s, f and v, and capitals for what ends a solid and a facet.
    order = "".join({"endfacet": "F", "endsolid": "S"}.get(word, word[0]) for word in words)
    if not re.fullmatch("(s(fv{3,}F)*S)+", order):
        raise ValueError(
            f"{order.count('f')} facets in {order.count('s')} solids, of which {order.count('F')} and "
            f"{order.count('S')} end"
        )
    places = [place.split() for place in re.findall(r"^[ \t]*vertex\b(.*)$", text, re.MULTILINE)]
    counts = np.array([len(facet) for facet in re.findall("v+", order)], np.int64)
    vertices = _floats(places)
    return Mesh(vertices, {}, triangulate(vertices, np.arange(len(vertices)), counts, path))


def _floats(rows: list[list[str]]) -> np.ndarray:
    """Places (V, 3)."""
    for row, place in enumerate(rows):
        if len(place) != 3:
            raise ValueError(f"{len(place)} coordinates of vertex {row}")
    return np.array(rows, np.float64).reshape(-1, 3)


def _load_ply(path: Path) -> Mesh:
    """A PLY file: its vertices with their columns, its faces and its strips of triangles."""
    elements = read_ply(path)
    columns = {name: column for name, column in elements.get("vertex", {}).items() if not isinstance(column, Lists)}
    if not set("xyz") <= set(columns):
        raise ValueError(f"an element 'vertex' with {', '.join(columns) or 'nothing'}, not x, y and z")
    vertices = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], 1)
    found, num_faces = [], 0
    for element, lists in elements.items():
        corners = lists.get("vertex_indices", lists.get("vertex_index"))
        num_faces += len(corners.lengths) if isinstance(corners, Lists) else 0
        if element == "face" and isinstance(corners, Lists):
            found.append(triangulate(vertices, *corners, path))
        elif element == "tristrips" and isinstance(corners, Lists):
            found.append(triangulate(vertices, *_strips(*corners), path))
        elif element in ("face", "tristrips") or isinstance(corners, Lists):
            known = "vertex_indices of 'face' or of 'tristrips'"
            raise ValueError(f"an element {element!r} with {', '.join(lists)}, where only {known} are known")
    triangles = np.concatenate([*found, np.zeros((0, 3), int)])
    return Mesh(vertices, columns, triangles if num_faces else None)


def _strips(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The triangles of strips, which -1 parts: each corner makes one with the two before, turned in every second."""
    triangles = []
    for strip in np.split(values, lengths.cumsum()[:-1]):
        for part in np.split(strip, np.flatnonzero(strip == -1)):
            part = part[part != -1]
            for i in range(len(part) - 2):
                triangles.append(part[[i, i + 1, i + 2]] if i % 2 == 0 else part[[i + 1, i, i + 2]])
    corners = np.array(triangles).reshape(-1)
    return corners, np.full(len(triangles), 3)


def _load_glb(path: Path) -> Mesh:
    """A glb file: all meshes of its scene, where it puts them."""
    _check_glb(path)
    dumped: list[Any] = trimesh.load_scene(path, process=False, skip_materials=True).dump()
    parts = [part for part in dumped if len(part.vertices)]
    meshes = [part for part in parts if len(getattr(part, "faces", ()))]
    if not meshes:
        return Mesh(np.concatenate([np.zeros((0, 3)), *(part.vertices for part in parts)]), {}, None)
    mesh: Any = trimesh.util.concatenate(meshes) if len(meshes) > 1 else meshes[0]
    corners, counts = mesh.faces.reshape(-1), np.full(len(mesh.faces), 3)
    return Mesh(mesh.vertices, {}, triangulate(mesh.vertices, corners, counts, path))


def _check_glb(path: Path) -> None:
    """Raise a ValueError if the file is cut, or has what trimesh would leave out or read wrong without a word."""
    data = path.read_bytes()
    magic, _, length, chunk = struct.unpack_from("<4sIII", data)
    if magic != b"glTF":
        raise ValueError("no header of a glb")
    if len(data) < length:
        raise ValueError(f"{length} bytes announced, {len(data)} found")
    tree = json.loads(data[20 : 20 + chunk])
    unknown = [name for name in tree.get("extensionsRequired", []) if not name.startswith(HARMLESS)]
    if unknown:
        raise ValueError(f"the extension {unknown[0]}")
    for primitive in (primitive for mesh in tree.get("meshes", []) for primitive in mesh["primitives"]):
        if primitive.get("mode", 4) == 6:
            raise ValueError("fans of triangles (mode 6)")
        used = [primitive["attributes"].get("POSITION"), primitive.get("indices")]
        for accessor in (tree["accessors"][number] for number in used if number is not None):
            if "sparse" in accessor or accessor.get("normalized"):
                raise ValueError("a sparse or normalised accessor")


READERS: dict[str, Callable[[Path], Mesh]] = {
    ".off": _load_off,
    ".obj": _load_obj,
    ".ply": _load_ply,
    ".stl": _load_stl,
    ".glb": _load_glb,
}
