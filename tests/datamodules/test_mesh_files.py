"""Meshes as other programs write them: values against independent writers, and cut and odd files."""

import struct

import numpy as np
import plyfile
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from datamodules.points.meshes import load_mesh
from datamodules.points.reading import read_points
from perceiver_lightning.errors import InputError

CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 2)]  # of a box of area 10
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
MIXED = [QUADS[0][:3], (QUADS[0][0], *QUADS[0][2:]), *QUADS[1:]]
SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
V = "".join(f"v {line}\n" for line in SQUARE.splitlines())


def area_of(path) -> float:
    mesh = load_mesh(path)
    first, second, third = mesh.vertices[mesh.triangles].swapaxes(0, 1)
    return np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2


def write_polygon(path, vertices, face):
    """One face, as OFF, OBJ or PLY."""
    if path.suffix == ".off":
        head, lines, face = f"OFF\n{len(vertices)} 1 0\n", "%r %r %r\n", f"{len(face)} {' '.join(map(str, face))}\n"
    elif path.suffix == ".obj":
        head, lines, face = "", "v %r %r %r\n", "f " + " ".join(str(corner + 1) for corner in face) + "\n"
    else:
        data = np.array([tuple(v) for v in vertices], [(axis, "f8") for axis in "xyz"])
        faces = np.empty(1, [("vertex_indices", object)])
        faces["vertex_indices"][0] = np.array(face, np.int32)
        elements = [plyfile.PlyElement.describe(data, "vertex"), plyfile.PlyElement.describe(faces, "face")]
        plyfile.PlyData(elements).write(str(path))
        return
    path.write_text(head + "".join(lines % tuple(map(float, v)) for v in vertices) + face)


# ---------------------------------------------------------------- faces of any outline


@st.composite
def polygons(draw):
    """The corners (K, 2) of a polygon that does not cross itself: concave, with corners on its edges and twice."""
    count = draw(st.integers(4, 12))
    radii = draw(st.lists(st.floats(0.15, 1), min_size=count, max_size=count))
    angles = np.arange(count) * 2 * np.pi / count
    corners = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    rows = []
    for i, corner in enumerate(corners):
        rows.append(corner)
        what = draw(st.sampled_from(["none", "none", "middle", "twice"]))
        rows += {"none": [], "middle": [(corner + corners[(i + 1) % count]) / 2], "twice": [corner]}[what]
    corners = np.roll(rows, draw(st.integers(0, len(rows) - 1)), 0)
    return corners[::-1] if draw(st.booleans()) else corners


@given(st.sampled_from(["off", "obj", "ply"]), polygons(), st.integers(0, 1000))
def test_no_point_of_a_face_lies_outside(tmp_path_factory, ending, corners, seed):
    path = tmp_path_factory.getbasetemp() / f"polygon.{ending}"
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    place = rng.normal(size=3) * 3
    write_polygon(path, corners @ axes[:2] + place, range(len(corners)))
    x, y = corners.T
    area = np.abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert area_of(path) == pytest.approx(area, rel=1e-9)
    points = (read_points(path, samples=300, seed=seed) - place) @ axes.T
    np.testing.assert_allclose(points[:, 2], 0, atol=1e-5)
    outline = Outline(corners)
    assert (
        outline.contains_points(points[:, :2], radius=1e-5) | outline.contains_points(points[:, :2], radius=-1e-5)
    ).all()


@pytest.mark.parametrize("ending", ["off", "obj", "ply"])
@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("step", [1, -1])
def test_a_concave_face_keeps_its_notch_and_its_side(tmp_path, ending, first, step):
    path = tmp_path / f"a.{ending}"
    vertices = [(0, 0, 0), (2, 0, 0), (2, 1, 0), (1, 1, 0), (1, 2, 0), (0, 2, 0)]
    write_polygon(path, vertices, np.roll(range(6), first)[::step])
    points = read_points(path, ["nz"], 2000)
    assert not ((points[:, 0] > 1) & (points[:, 1] > 1)).any()
    assert (points[:, 3] == step).all()


def test_a_face_with_a_hole_keeps_it(tmp_path):
    # A bridge from the outline to the hole, passed twice, as exporters write a hole.
    outer, inner = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0)], [(1, 1), (1, 3), (3, 3), (3, 1), (1, 1)]
    write_polygon(tmp_path / "a.off", [(x, y, 1) for x, y in outer + inner], range(10))
    assert area_of(tmp_path / "a.off") == pytest.approx(12)
    points = read_points(tmp_path / "a.off", samples=2000)
    assert not ((points[:, :2] > 1) & (points[:, :2] < 3)).all(1).any()


def test_a_face_that_crosses_itself_is_said(tmp_path, caplog):
    write_polygon(tmp_path / "a.obj", [(0, 0, 0), (1, 1, 0), (1, 0, 0), (0, 1, 0)], range(4))
    load_mesh(tmp_path / "a.obj")
    assert "a.obj: 1 of 1 faces cross themselves" in caplog.text


def test_an_obj_without_faces_is_a_cloud_with_its_colours(tmp_path):
    (tmp_path / "a.obj").write_text("v 1 2 3 0.5 0 1\nv 4 5 6 0.25 1 0\n")
    assert read_points(tmp_path / "a.obj", ["blue", "red"]).tolist() == [[1, 2, 3, 1, 0.5], [4, 5, 6, 0, 0.25]]
    (tmp_path / "a.obj").write_text("v 1 2 3 0.5 0 1\nv 4 5 6\n")
    with pytest.raises(InputError, match=r"a.obj: expected the columns red, found none, not red"):
        read_points(tmp_path / "a.obj", ["red"])


# ---------------------------------------------------------------- PLY

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}


@pytest.mark.slow
@given(st.data())
def test_every_ply_says_what_plyfile_wrote(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.ply"
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    num_vertices, num_faces = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 6))
    kinds = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]
    names = ["x", "y", "z", "red", "heat", "nx"]
    order = data.draw(st.permutations(names))
    vertex = np.zeros(num_vertices, [(name, data.draw(st.sampled_from(kinds))) for name in order])
    for name in names:
        vertex[name] = rng.integers(0, 100, num_vertices)
    index, length = data.draw(st.sampled_from(list(TYPES.values()))), data.draw(st.sampled_from(["u1", "i4", "u2"]))
    name = data.draw(st.sampled_from(["vertex_indices", "vertex_index"]))
    columns = data.draw(st.permutations([(name, object), ("red", "u1"), ("texcoord", object)]))
    face = np.empty(num_faces, columns)
    face["red"] = rng.integers(0, 255, num_faces)
    sizes = data.draw(st.sampled_from([[3], [4], [3, 4], [1, 2, 3, 5]]))
    for i in range(num_faces):
        face[name][i] = rng.integers(0, num_vertices, rng.choice(sizes)).astype(index)
        face["texcoord"][i] = rng.uniform(size=rng.integers(0, 4)).astype("f4")
    types = {name: index, "texcoord": "f4"}
    elements = [
        plyfile.PlyElement.describe(vertex, "vertex", comments=["of a test"]),
        plyfile.PlyElement.describe(face, "face", len_types={name: length}, val_types=types),
        plyfile.PlyElement.describe(np.zeros(3, [("vertex1", "i4"), ("vertex2", "i4")]), "edge"),
    ]
    text, order = data.draw(st.booleans()), data.draw(st.sampled_from("<>"))
    ply = plyfile.PlyData(data.draw(st.permutations(elements)), text, order, ["a comment"], ["an obj_info"])
    ply.write(str(path))
    mesh = load_mesh(path)
    assert np.array_equal(mesh.vertices, np.stack([vertex[axis] for axis in "xyz"], 1))
    for name_ in names:
        assert np.array_equal(mesh.columns[name_], vertex[name_])
    # The fan of a face and its triangles have one sum of areas with direction, however it is cut.
    if num_faces == 0:
        assert mesh.triangles is None
        return
    wanted, found = np.zeros(3), np.zeros(3)
    for corners in face[name]:
        places = mesh.vertices[np.asarray(corners, int)]
        wanted += np.cross(places, np.roll(places, -1, 0)).sum(0) if len(corners) > 2 else 0
    for places in mesh.vertices[mesh.triangles]:
        found += np.cross(places, np.roll(places, -1, 0)).sum(0)
    if set(sizes) <= {3}:
        assert mesh.triangles.tolist() == [list(map(int, corners)) for corners in face[name]]
        np.testing.assert_allclose(found, wanted)
    # A file that ends early is named, wherever it ends.
    whole = path.read_bytes()
    body = whole.index(b"end_header") + 11
    cut = data.draw(st.integers(body, len(whole) - 2))
    path.write_bytes(whole[:cut])
    if not text or len(whole[:cut].split()) < len(whole.split()):
        with pytest.raises(InputError, match=r"any.ply: .* (announced, .* found|an element 'vertex' with)"):
            read_points(path)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_binary_ply_of_triangles_and_quads(tmp_path, order, newline):
    name = {"<": "little", ">": "big"}[order]
    lines = ["ply", f"format binary_{name}_endian 1.0", "comment größe \x0b", "element vertex 8"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += ["element face 7", "property list uchar int vertex_indices", "obj_info end_header", "end_header", ""]
    body = np.array(CORNERS, f"{order}f4").tobytes()
    body += b"".join(struct.pack("B", len(face)) + np.array(face, f"{order}i4").tobytes() for face in MIXED)
    (tmp_path / "a.ply").write_bytes(newline.join(lines).encode() + body)
    assert area_of(tmp_path / "a.ply") == 10


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("faces", [QUADS, MIXED])
def test_a_ply_in_text_with_colours_of_faces(tmp_path, before, faces):
    colours = "property uchar red\nproperty float quality\n"
    lists = "property list uchar int vertex_indices\n"
    head = "ply\nformat ascii 1.0\nelement vertex 8\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    head += f"element face {len(faces)}\n{colours + lists if before else lists + colours}end_header\n"
    body = "".join(f"{x} {y} {z}\n" for x, y, z in CORNERS)
    for face in faces:
        corners, colour = f"{len(face)} {' '.join(map(str, face))}", "255 0.5"
        body += f"{colour} {corners}\n" if before else f"{corners} {colour}\n"
    (tmp_path / "a.ply").write_text(head + body)
    assert area_of(tmp_path / "a.ply") == 10


@pytest.mark.parametrize("text", [True, False])
def test_strips_of_triangles_restart_and_keep_their_side(tmp_path, text):
    xs = np.arange(5.0)
    vertices = np.array([(x, y, 0) for x in xs for y in (1, 0)], [(axis, "f4") for axis in "xyz"])
    strips = np.empty(2, [("vertex_indices", object)])
    strips["vertex_indices"] = [np.array([0, 1, 2, 3, 4, 5, -1, 6, 7, 8], np.int32), np.array([8, 7, 9], np.int32)]
    elements = [
        plyfile.PlyElement.describe(vertices, "vertex"),
        plyfile.PlyElement.describe(strips, "tristrips", len_types={"vertex_indices": "i4"}),
    ]
    plyfile.PlyData(elements, text).write(str(tmp_path / "a.ply"))
    assert area_of(tmp_path / "a.ply") == 3  # of four squares without the third
    points = read_points(tmp_path / "a.ply", ["nz"], 500)
    assert (points[:, 3] == 1).all() and not ((points[:, 0] > 2) & (points[:, 0] < 3)).any()


HEAD = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (f"{HEAD}{FACE}3 0 1 3\n", "3 vertices, and a face with the corner 3"),
        (f"{HEAD}{FACE}3 0 1 -1\n", "3 vertices, and a face with the corner -1"),
        (f"{HEAD}{FACE}3 0 1 1.5\n", "a face with the corner 1.5"),
        (f"{HEAD}{FACE}3 0 1 2\n3 0 1 2\n", "4 numbers more than the header states"),
        (f"{HEAD}{FACE}3 0 1\n", "1 rows of face announced, 0 found"),
        (f"{HEAD}end_header\n0 0 0\n1 0 0\n", "3 rows of vertex announced, 2 found"),
        (f"{HEAD}end_header\n0 0 0\n1 0 0\n0 one 0\n", "one"),
        (f"{HEAD.replace('float z', 'float w')}end_header\n{SQUARE[:18]}", "an element 'vertex' with x, y, w"),
        (f"{HEAD.replace('float z', 'half z')}end_header\n", "the line 'property half z'"),
        (f"{HEAD}{FACE.replace('vertex_indices', 'corners')}3 0 1 2\n", "an element 'face' with corners"),
        (
            f"{HEAD}{FACE.replace('element face', 'element trifans')}3 0 1 2\n",
            "an element 'trifans' with vertex_indices",
        ),
        (f"{HEAD}0 0 0\n", "a header from 'ply' to 'end_header'"),
        (
            HEAD.replace("element vertex 3", f"element vertex {10**15}") + "end_header\n1 1 1\n",
            "rows of vertex announced",
        ),
    ],
)
def test_a_ply_that_says_too_little_or_too_much_is_named(tmp_path, content, message):
    (tmp_path / "a.ply").write_text(content)
    with pytest.raises(InputError, match=f"^{tmp_path / 'a.ply'}: .*{message}"):
        read_points(tmp_path / "a.ply")


# ---------------------------------------------------------------- OFF, OBJ, STL, GLB


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.off", f"\ufeffOFF\n4 1 0\n{SQUARE}4 0 1 2 3\n"),
        ("a.off", f"OFF4 1 4\n{SQUARE}4 0 1 2 3\n\n# the end\n"),
        ("a.off", f"4 1 0\n{SQUARE}4 0 1 2 3\n"),
        ("a.off", "COFF # colours\n4 1 0\n" + SQUARE.replace("\n", " 255 0 0 255\n") + "4 0 1 2 3 255 0 0\n"),
        ("a.off", "STCNOFF\n\n4 1\n" + SQUARE.replace("\n", " 0 0 1 .5 .5 .5 1 0 0\n") + "4 0 1 2 3 7\n"),
        ("a.off", f"OFF\n4 1 0\n{SQUARE}4 0 1 2 3\n".replace("\n", "\r\n")),
        ("a.obj", f"{V}f -4 -3 -2 -1\n"),
        ("a.obj", f"{V}f 1 2 3\n{V}f -4 -2 -1\n"),
        ("a.obj", f"mtllib no.mtl\no a\ng b\nusemtl c\ns off\n{V}vt 0 0\nvn 0 0 1\nf 1/1/1 2//1 3/1 \\\n  4 # all\n"),
        ("a.obj", "\ufeff" + V.replace("\n", " 1 0 0\r\n") + "f 1 2 3 4\r\n"),
        (
            "a.stl",
            "solid of endsolid\nfacet normal 0 0 1\nouter loop\n"
            + V.replace("v ", "VERTEX ")
            + "endloop\nendfacet\nendsolid\n",
        ),
    ],
)
def test_a_square_in_many_spellings(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert area_of(tmp_path / name) == 1
    assert load_mesh(tmp_path / name).vertices[:4].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]


@pytest.mark.slow
@given(
    st.sampled_from(["stl", "stl_ascii", "ply", "ply_ascii", "off", "obj", "glb"]), st.integers(0, 100), st.floats(0, 1)
)
def test_what_trimesh_writes_is_read_and_never_in_part(tmp_path_factory, kind, seed, share):
    ending, _, text = kind.partition("_")
    path = tmp_path_factory.getbasetemp() / f"hull.{ending}"
    mesh = trimesh.convex.convex_hull(np.random.default_rng(seed).normal(size=(9, 3)))
    encoding = {"encoding": "ascii" if text else "binary"} if ending == "ply" else {}
    whole = mesh.export(file_type=kind if ending == "stl" else ending, **encoding)
    whole = whole.encode() if isinstance(whole, str) else whole
    path.write_bytes(whole)
    found = load_mesh(path)
    np.testing.assert_allclose(found.vertices[found.triangles], mesh.triangles, atol=1e-5)
    path.write_bytes(whole[: int(share * (len(whole) - 3))])
    if ending != "obj":  # which states no counts
        with pytest.raises(InputError, match=f"{path}: expected"):
            read_points(path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.off", f"OFF\n4 2 0\n{SQUARE}4 0 1 2 3\n", "4 vertices and 2 faces announced, 5 lines found"),
        ("a.off", f"OFF\n4 1 0\n{SQUARE}4 0 1 2 3\n3 0 1 2\n", "4 vertices and 1 faces announced, 6 lines found"),
        ("a.off", f"OFF\n4 1 0\n{SQUARE}4 0 1 2\n", "4 corners of a face announced, 3 found"),
        ("a.off", f"OFF\n4 1 0\n{SQUARE}3 0 1 4\n", "4 vertices, and a face with the corner 4"),
        ("a.off", f"4OFF\n4 1 0\n{SQUARE}3 0 1 2\n", "'4OFF', an OFF file that is binary or not of three dimensions"),
        ("a.off", "OFF BINARY\n\0\0\0\4", "'OFF BINARY', an OFF file that is binary"),
        ("a.off", f"OFF\n-4 1 0\n{SQUARE}3 0 1 2\n", "-4 vertices and 1 faces announced"),
        ("a.off", f"OFF\nfour 1 0\n{SQUARE}3 0 1 2\n", "four"),
        ("a.obj", f"{V}f 1 2 5\n", "4 vertices, and a face with the corner 4, counted from 0"),
        ("a.obj", f"{V}f 1 2 -5\n", "4 vertices, and a face with the corner -1"),
        ("a.obj", f"{V}f 0 1 2\n", "the face 'f 0 1 2'"),
        ("a.obj", f"{V}f 1 2\n", "the face 'f 1 2'"),
        ("a.obj", f"{V}v 1 2\n", "2 coordinates of vertex 4"),
        ("a.obj", f"{V}surf 0 1 0 1 1 2 3 4\n", "'surf', a free-form curve or surface"),
        ("a.stl", "solid a\nfacet\nvertex 0 0 0\nendfacet\nfacet", "2 facets in 1 solids, of which 1 and 0 end"),
        ("a.stl", "solid a\nfacet\n" + "vertex 0 0\n" * 3 + "endfacet\nendsolid\n", "2 coordinates of vertex 0"),
        ("a.stl", b"solid x".ljust(80) + struct.pack("<I", 9) + bytes(100), "9 facets announced, 2 found"),
        ("a.stl", b"x".ljust(80) + struct.pack("<I", 1) + bytes(70), "1 facets announced, 1.4 found"),
        ("a.stl", "solid a\nfacet\nvertex 0 0 0\nendfacet\nendsolid", "1 facets in 1 solids, of which 1 and 1 end"),
    ],
)  # fmt: skip
def test_a_mesh_that_is_cut_or_odd_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"^{tmp_path / name}: expected a mesh or points, found .*{message}"):
        read_points(tmp_path / name)


@pytest.mark.parametrize(
    "change, message",
    [
        ((b'"asset"', b'"extensionsRequired":["KHR_draco_mesh_compression"],"asset"'), "KHR_draco_mesh_compression"),
        ((b'"mode":4', b'"mode":6'), "fans of triangles"),
        ((b'"accessors":[{', b'"accessors":[{"sparse":{},'), "a sparse or normalised accessor"),
    ],
)
def test_a_glb_that_trimesh_would_read_in_part_is_named(tmp_path, change, message):
    whole = trimesh.Scene(trimesh.creation.box()).export(file_type="glb")
    size = struct.unpack_from("<I", whole, 12)[0]
    tree = whole[20 : 20 + size].replace(*change)
    tree += b" " * (-len(tree) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, len(whole) - size + len(tree), len(tree), 0x4E4F534A)
    (tmp_path / "a.glb").write_bytes(head + tree + whole[20 + size :])
    with pytest.raises(InputError, match=f"a.glb: .*{message}"):
        read_points(tmp_path / "a.glb")
