"""Files into points: every format, and odd and broken files."""

import numpy as np
import pytest
import trimesh
from point_clouds import SQUARE, write_off, write_ply

from datamodules.points.reading import load_arrays, read_points
from perceiver_lightning.errors import InputError

TABLE = np.array([[k, k / 2, 1 - k, 10 * k, 10 + k] for k in range(6)], np.float32)


def says(message: str):
    return pytest.raises(InputError, match=message)


# ---------------------------------------------------------------- meshes


@pytest.mark.parametrize("ending", ["off", "obj", "ply", "stl", "glb", "OFF"])
def test_points_are_drawn_from_the_surface_of_a_mesh(tmp_path, ending):
    path = tmp_path / f"box.{ending}"
    trimesh.creation.box((1, 2, 3)).export(path, file_type=ending.lower())
    points = read_points(path, ["nx", "ny", "nz"], samples=4000, seed=3)
    assert points.dtype == np.float32 and points.shape == (4000, 6)
    on_face = np.isclose(np.abs(points[:, :3]), [0.5, 1, 1.5], atol=1e-5)
    assert on_face.any(1).all()
    # By area: the faces across x, y, z have 12, 6 and 4 of 22.
    np.testing.assert_allclose(on_face.mean(0), np.array([12, 6, 4]) / 22, atol=0.03)
    # The normal is that of the face that a point is on, outwards.
    np.testing.assert_allclose(points[:, 3:], on_face * np.sign(points[:, :3]), atol=1e-5)
    assert np.array_equal(points[:, :3], read_points(path, samples=4000, seed=3))
    assert not np.array_equal(points[:, :3], read_points(path, samples=4000, seed=4))


@pytest.mark.parametrize("header", ["OFF\n", "OFF", "OFF ", "# a comment\nOFF\n# another\n"])
def test_an_off_header_with_and_without_its_line_break(tmp_path, header):
    points = read_points(write_off(tmp_path / "a.off", header=header), samples=500)
    assert points.shape == (500, 3) and (points[:, 2] == 0).all() and (np.abs(points) <= 1).all()


@pytest.mark.parametrize("ending", ["off", "obj", "ply"])
def test_faces_of_four_and_more_corners_count_whole(tmp_path, ending):
    angles = np.linspace(0, 2 * np.pi, 7)[:-1]
    hexagon = [(round(np.cos(a), 6), round(np.sin(a), 6), 0) for a in angles]
    vertices, faces = [*hexagon, *((x, y, 1) for x, y, _ in SQUARE)], [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    path = tmp_path / f"a.{ending}"
    if ending == "off":
        write_off(path, vertices, faces)
    elif ending == "obj":
        lines = [f"v {x} {y} {z}" for x, y, z in vertices]
        path.write_text("\n".join([*lines, *("f " + " ".join(str(i + 1) for i in face) for face in faces)]) + "\n")
    else:
        write_ply(path, dict(zip("xyz", zip(*vertices, strict=True), strict=True)))
        head, body = path.read_text().split("end_header\n")
        lists = "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in faces)
        path.write_text(f"{head}element face 2\nproperty list uchar int vertex_indices\nend_header\n{body}{lists}")
    points = read_points(path, samples=4000)
    below = points[:, 2] == 0
    assert below.mean() == pytest.approx(2.598 / 6.598, abs=0.03)  # areas of hexagon and square
    for side in ((1, 1), (-1, 1), (1, -1), (-1, -1)):  # all four quarters of the square
        quarter = (points[~below, :2] * side > 0).all(1)
        assert quarter.mean() == pytest.approx(0.25, abs=0.04)


def test_all_parts_of_a_scene_stand_where_it_puts_them(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box())
    scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(tmp_path / "two.glb")
    points = read_points(tmp_path / "two.glb", samples=1000)
    assert (points[:, 0] > 4).mean() == pytest.approx(0.5, abs=0.06) and points[:, 0].max() <= 5.5 + 1e-5


@pytest.mark.parametrize("ending", ["off", "obj", "ply"])
def test_a_mesh_without_faces_is_a_cloud_of_its_vertices(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "off":
        write_off(path, faces=[])
    elif ending == "obj":
        path.write_text("".join(f"v {x} {y} {z}\n" for x, y, z in SQUARE))
    else:
        write_ply(path, dict(zip("xyz", zip(*SQUARE, strict=True), strict=True)))
    assert read_points(path, samples=100).tolist() == [list(vertex) for vertex in SQUARE]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.off", "", "expected points, found an empty file"),
        ("a.off", "OFF\n0 0 0\n", "expected a mesh or points, found neither"),
        ("a.off", "OFF\n", "found a file that cannot be read .no numbers of vertices and faces"),
        ("a.obj", "# nothing\n", "expected a mesh or points, found"),
        ("a.off", "no mesh at all", "expected a mesh or points, found a file that cannot be read"),
        ("a.off", "OFF\n4 1 0\n0 0 0\n1 0 0\n", "expected a mesh or points, found a file that cannot be read"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "found a file that cannot be read"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 nan 0\n0 1 0\n3 0 1 2\n", "found NaN or infinity in 1 of 3 vertices"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n0 0 0\n1 1 1\n3 0 1 2\n", "a mesh with a surface, found 1 faces of no area"),
        ("a.ply", "ply\nformat ascii 1.0\nend_header\n", "expected a mesh or points, found"),
        ("a.stl", "solid nothing\nendsolid\n", "expected a mesh or points, found"),
        ("a.glb", "glTF" + 20 * "x", "expected a mesh or points, found a file that cannot be read"),
    ],
)
def test_a_mesh_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with says(f"^{tmp_path / name}: .*{message}"):
        read_points(tmp_path / name)


def test_a_mesh_has_no_features_but_normals(tmp_path):
    with says("a.off: expected the columns nx, red, found nx, ny, nz, not red"):
        read_points(write_off(tmp_path / "a.off"), ["nx", "red"])


# ---------------------------------------------------------------- points


@pytest.mark.parametrize(
    "name", ["a.npy", "a.npz", "b.npz", "a.xyz", "a.txt", "a.csv", "b.csv", "c.csv", "d.csv", "a.ply"]
)
def test_points_and_features_of_every_format(tmp_path, name):
    path = tmp_path / name
    named = {"x": TABLE[:, 0], "y": TABLE[:, 1], "z": TABLE[:, 2], "Heat": TABLE[:, 3], "age": TABLE[:, 4]}
    if name == "a.npy":
        np.save(path, TABLE)
    elif name == "a.npz":
        np.savez(path, points=TABLE)
    elif name == "b.npz":
        np.savez(path, points=TABLE[:, :3], features=TABLE[:, 3:])
    elif name == "b.csv":  # named, in another order, with a column of words, as spreadsheets save it
        rows = [f'"a tree, tall",{a},{h},{z},{y},{x}' for x, y, z, h, a in TABLE.tolist()]
        path.write_text("\n".join(["kind,age,Heat,z,y,x", *rows]), encoding="utf-8-sig")
    elif name == "a.ply":
        write_ply(path, named)
    else:
        delimiter = " " if name == "a.xyz" else ","
        head = {"c.csv": delimiter.join(named), "d.csv": "# of a scanner\n# " + ",".join(named)}.get(name, "")
        np.savetxt(path, TABLE, delimiter=delimiter, header=head, comments="")
    if name == "a.ply":
        assert np.array_equal(read_points(path, ["age", "Heat"]), TABLE[:, [0, 1, 2, 4, 3]])
    assert np.array_equal(read_points(path, ["Heat", "age"]), TABLE)
    assert np.array_equal(read_points(path), TABLE[:, :3])


def test_a_binary_ply_has_its_colours(tmp_path):
    colours = np.array([[255, 0, 7, 255], [1, 2, 3, 255]], np.uint8)
    trimesh.points.PointCloud([[0, 0, 0], [1, 2, 3]], colors=colours).export(tmp_path / "a.ply", encoding="binary")
    points = read_points(tmp_path / "a.ply", ["red", "blue"])
    assert points.tolist() == [[0, 0, 0, 255, 7], [1, 2, 3, 1, 3]]


def test_pickled_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("sprung",)

    for name, save in (("a.npy", np.save), ("a.npz", lambda path, trap: np.savez(path, points=trap))):
        save(tmp_path / name, np.array([Trap()], dtype=object))
        with says(f"{tmp_path / name}: expected .* found .*cannot be .*allow_pickle=False"):
            read_points(tmp_path / name)
    (tmp_path / "b.npz").write_bytes(b"\x80\x04N.")  # a pickle by itself
    with says("b.npz: expected an npz, found a file that cannot be read"):
        read_points(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "arrays, features, message",
    [
        ({"cloud": TABLE}, [], "expected the arrays points, found cloud"),
        ({"points": TABLE[0]}, [], r"expected points of shape \(M, 3 or more\), found \(5,\)"),
        ({"points": TABLE[:, :2]}, [], r"expected points with 3 columns or more, found the shape \(6, 2\)"),
        ({"points": TABLE}, ["heat"], r"points with 4 columns \(x, y, z, heat\), found the shape \(6, 5\)"),
        (
            {"points": TABLE[:, :3], "features": TABLE[:2]},
            ["heat"],
            r"a row for each of the points \(6, 3\), found \(2, 5\)",
        ),
        ({"points": TABLE[:0]}, [], "expected at least one point, found none"),
        ({"points": TABLE.astype(str)}, [], "expected points as numbers, found <U"),
        ({"points": TABLE.astype(complex)}, [], "expected points as numbers, found complex"),
    ],
)
def test_an_npz_with_wrong_keys_or_shapes_is_named(tmp_path, arrays, features, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with says(f"^{tmp_path / 'a.npz'}: .*{message}"):
        read_points(tmp_path / "a.npz", features)


@pytest.mark.parametrize(
    "content, features, message",
    [
        ("1,2,3\n4,five,6\n", [], "cannot be read .*'five'"),
        ("1,2,3\n4,5\n", [], "cannot be read .*columns"),
        ("once upon a time\nthere was a cloud", [], "expected the columns x, y, z, found once, upon, a, time, not x"),
        ("x,y,heat\n1,2,3\n", [], "expected the columns x, y, z, found x, y, heat, not z"),
        ("x,y,z\n1,2,3\n", ["heat"], "expected the columns x, y, z, heat, found x, y, z, not heat"),
        ("x,y,z\n", [], "expected at least one point, found none"),
        ("# x,y,z\n\n", [], "expected at least one point, found none"),
        ("\n# nothing\n", [], "expected at least one point, found none"),
        ("1,2\n3,4\n", [], r"expected points with 3 columns or more, found the shape \(2, 2\)"),
    ],
)
def test_a_csv_with_text_or_wrong_columns_is_named(tmp_path, content, features, message):
    (tmp_path / "a.csv").write_text(content)
    with says(f"^{tmp_path / 'a.csv'}: .*{message}"):
        read_points(tmp_path / "a.csv", features)


def test_a_ply_without_the_feature_is_named(tmp_path):
    write_ply(tmp_path / "a.ply", {"x": [0], "y": [0], "z": [0], "heat": [1]})
    with says("a.ply: expected the columns cold, found x, y, z, heat, not cold"):
        read_points(tmp_path / "a.ply", ["cold"])


def test_an_npy_is_no_npz(tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    with says("a.npy: expected an npz of named arrays, found one array without a name"):
        load_arrays(tmp_path / "a.npy", ["points"])
