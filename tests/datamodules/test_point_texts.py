"""Clouds as text: by the writers of pandas, R and CloudCompare, and molecules."""

import codecs

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.points.reading import read_points
from perceiver_lightning.errors import InputError

CLOUD = np.random.default_rng(0).uniform(-1, 1, (9, 6)).round(4).astype(np.float32)


@pytest.fixture(autouse=True)
def said(caplog, monkeypatch):
    """What is logged, as in a process that has said nothing yet."""
    monkeypatch.setattr("datamodules.common.say._said", set())
    return caplog


def text_of(columns: int, header: str | None, index: list | None, delimiter: str) -> str:
    rows = [[f"{value:.4f}" for value in row[:columns]] for row in CLOUD]
    rows = [[str(number), *row] for number, row in zip(index, rows, strict=True)] if index else rows
    lines = ["\t".join(row) for row in rows]
    return "\n".join([header, *lines] if header else lines).replace("\t", delimiter) + "\n"


COUNTED, FILTERED = list(range(9)), [0, 3, 4, 7, 10, 11, 12, 20, 30]


@pytest.mark.parametrize("ending", ["csv", "txt", "xyz", "asc"])
@pytest.mark.parametrize(
    ("header", "index", "columns"),
    [
        ("0\t1\t2", None, 3),  # DataFrame.to_csv(index=False)
        ("0\t1\t2\t3\t4\t5", None, 6),
        ('""\t0\t1\t2', COUNTED, 3),  # DataFrame.to_csv()
        ("index\t0\t1\t2\t3", FILTERED, 4),
        ("0\t1\t2", COUNTED, 3),  # DataFrame.to_csv(index_label=False)
        (None, COUNTED, 3),
        (None, [k + 1 for k in COUNTED], 5),
        ("id\tx\ty\tz", COUNTED, 3),
        ('"x"\t"y"\t"z"', [f'"{k + 1}"' for k in COUNTED], 3),  # R's write.table
    ],
)
def test_a_table_of_numbers_has_neither_its_header_nor_its_index_read(tmp_path, said, ending, header, index, columns):
    path = tmp_path / f"a.{ending}"
    for delimiter in (",", " ", "\t", ";") if ending != "csv" else (",", ";"):
        path.write_text(text_of(columns, header, index, delimiter))
        assert np.array_equal(read_points(path), CLOUD[:, :3])
        if columns > 3 and not (header or "").startswith("id"):
            assert np.array_equal(read_points(path, [str(k) for k in range(3, columns)]), CLOUD[:, :columns])
    numbered = header is None or "x" not in header or header.startswith("index")
    assert not numbered or any("left out" in line for line in said.messages)


def test_a_first_column_that_may_be_a_filtered_index_is_told(tmp_path, said):
    path = tmp_path / "a.xyz"
    path.write_text(text_of(3, None, FILTERED, " "))
    assert read_points(path, ["a"])[:, 0].tolist() == FILTERED  # four columns are asked for
    assert not said.messages
    assert read_points(path)[:, 0].tolist() == FILTERED
    assert f"{path}: x rises from line to line in whole numbers; if it is an index" in said.messages[0]


@given(st.integers(4, 40), st.integers(0, 2**16), st.sampled_from(["%.3f", "%g", "%d"]), st.integers(3, 5))
def test_honest_clouds_are_read_as_they_are(tmp_path_factory, count, seed, form, columns):
    path = tmp_path_factory.getbasetemp() / "honest.txt"
    points = np.random.default_rng(seed).integers(-3, 30, (count, columns)) / (1 if form == "%d" else 2)
    if count > columns:
        np.savetxt(path, points, form)
        assert np.array_equal(read_points(path), points[:, :3].astype(np.float32))


@pytest.mark.parametrize("head", ["0 1 2", "0.0 1.0 2.0", "0.5 1 2"])
def test_a_first_point_that_may_be_a_header_is_told(tmp_path, said, head):
    (tmp_path / "a.xyz").write_text(f"{head}\n3 4 5\n3 0 9\n7 1 1\n")
    assert len(read_points(tmp_path / "a.xyz")) == 4
    assert len(said.messages) == (head == "0 1 2")
    if said.messages:
        assert "its first line, 0 1 2, is read as a point; if it numbers the columns, remove it" in said.messages[0]


@pytest.mark.parametrize("ending", ["npy", "txt"])
def test_an_x_that_counts_the_points_is_told(tmp_path, said, ending):
    cloud = np.hstack([np.arange(9, dtype=np.float32)[:, None], CLOUD[:, :3]])
    path = tmp_path / f"a.{ending}"
    np.save(path, cloud) if ending == "npy" else np.savetxt(path, cloud, "%.4f")
    assert np.array_equal(read_points(path, ["a"]), cloud)
    assert said.messages == [f"{path}: x counts the points, from 0 on; if it is their index, remove that column"]


@pytest.mark.parametrize("ending", ["xyz", "txt", "asc", "csv"])
@pytest.mark.parametrize("head", ["//X Y Z R G B\n", "//X Y Z R G B\n9\n", "9\n// X Y Z R G B\n", "# x y z r g b\n"])
def test_headers_of_cloudcompare(tmp_path, ending, head):
    path = tmp_path / f"a.{ending}"
    for delimiter in " ,;\t":
        rows = "\n".join(delimiter.join(f"{value:.4f}" for value in row) for row in CLOUD)
        path.write_text((head if delimiter == " " else head.replace("Y Z R G", delimiter.join("YZRG"))) + rows + "\n")
        if delimiter == " ":
            assert np.array_equal(read_points(path, ["B", "r"]), CLOUD[:, [0, 1, 2, 5, 3]])
            assert np.array_equal(read_points(path), CLOUD[:, :3])
    path.write_text(head + rows[: rows.rindex("\n")])
    if "9" in head:
        with pytest.raises(InputError, match=r"9 points announced, 8 lines found"):
            read_points(path)


@pytest.mark.parametrize(
    "text",
    [
        "3\nwater\nO 0.0 0.1 0.2\nH 1.0 0.1 0.2\nH 0.0 1.1 0.2\n",
        "3\n\nO 0.0 0.1 0.2\nH 1.0 0.1 0.2\nH 0.0 1.1 0.2\n",
        "2\n-76.4\nHe 0.0 0.1 0.2\nCl 1.0 0.1 0.2\n",
        '2\nLattice="1 0 0 0 1 0 0 0 1" Properties=species:S:1:pos:R:3\nSi 0 0 0\nSi 1.3 1.3 1.3\n',
        "2\ngdb 1\t157.7\t157.7\t157.7\nC\t-0.01\t1.08\t0.0\t-0.53\nH\t0.0\t0.1\t0.2\t0.1\n",
        "C 0.0 0.1 0.2\nC1 1.0 0.1 0.2\n",
        "2\n\n6 0.0 0.1 0.2\n1 1.0 0.1 0.2\n",
        "2\nby number\n6 0.0 0.1 0.2\n1 1.0 0.1 0.2\n",
        "2\n0.5 eV\n6 0.0 0.1 0.2\n1 1.0 0.1 0.2\n",
    ],
)
def test_molecules_are_refused_as_such(tmp_path, text):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(
        InputError, match=f"^{tmp_path / 'a.xyz'}: expected lines of numbers, found atoms or other named"
    ):
        read_points(tmp_path / "a.xyz")


def test_rows_with_other_columns_than_their_names_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z\n0.5,1,2,3\n0.25,1,2,3\n")
    with pytest.raises(InputError, match=r"a.csv: expected 3 columns, as its names, found 4"):
        read_points(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("x,y,z\n0.5,1,2,\n0.25,1,2,\n")
    assert read_points(tmp_path / "a.csv").tolist() == [[0.5, 1, 2], [0.25, 1, 2]]
    (tmp_path / "a.txt").write_text("x y z scalar field\n0.5 1 2 3\n0.25 1 2 3\n")  # a name with a blank
    assert read_points(tmp_path / "a.txt").tolist() == [[0.5, 1, 2], [0.25, 1, 2]]


@pytest.mark.parametrize("encoding, mark", [("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)])
def test_a_cloud_in_utf_16(tmp_path, encoding, mark):
    (tmp_path / "a.txt").write_bytes(mark + text_of(3, "x\ty\tz", None, "\t").encode(encoding))
    assert np.array_equal(read_points(tmp_path / "a.txt"), CLOUD[:, :3])
