"""Small files of meshes and points, for tests."""

from pathlib import Path

import numpy as np
import trimesh

SQUARE = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]


def write_off(path: Path, vertices=SQUARE, faces=((0, 1, 2, 3),), header="OFF\n") -> Path:
    """An OFF file as ModelNet has them; `header` "OFF" leaves out the line break behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{header}{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(map(str, vertex)) for vertex in vertices]
    lines += [" ".join(map(str, [len(face), *face])) for face in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_boxes(folder: Path, count: int, sides=(1, 1, 1), ending="off"):
    """Meshes of boxes with sides near `sides`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        trimesh.creation.box(np.array(sides) * (1 + 0.01 * i)).export(folder / f"{i}.{ending}")


def write_arrays(path: Path, count: int = 12, points: int = 20, classes: int = 2, **more):
    """An npz of clouds: the first class is flat, the second upright; and so on in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(count) % classes
    clouds = np.random.default_rng(0).uniform(-1, 1, (count, points, 3)).astype(np.float16)
    clouds[np.arange(count), :, labels % 3] = 0
    np.savez(path, **{"points": clouds, "labels": labels, **more})


def write_ply(path: Path, columns: dict[str, list[float]]) -> Path:
    """A ply of points without faces."""
    rows = zip(*columns.values(), strict=True)
    count = len(next(iter(columns.values())))
    head = ["ply", "format ascii 1.0", f"element vertex {count}", *(f"property float {name}" for name in columns)]
    path.write_text("\n".join([*head, "end_header", *(" ".join(map(str, row)) for row in rows)]) + "\n")
    return path
