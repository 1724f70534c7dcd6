"""PLY files of every kind: text or binary of either byte order, any elements, lists of any types and lengths."""

import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

# What the types of properties are called, each in two ways, and what they are to `struct` and numpy.
CODES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}
SIZED = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
TYPES = {**CODES, **dict(zip(SIZED, CODES.values(), strict=True))}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class Lists(NamedTuple):
    """Lists of numbers one after the other, and how many numbers each has."""

    values: np.ndarray
    lengths: np.ndarray


class Property(NamedTuple):
    """A column of an element: its type, and that of its lengths where it holds lists."""

    name: str
    type: str
    length_type: str | None


class Element(NamedTuple):
    """What the header says of an element."""

    name: str
    rows: int
    properties: list[Property]


Columns = dict[str, "np.ndarray | Lists"]


def read_ply(path: Path) -> dict[str, Columns]:
    """The columns of each element by its name.

    Raises:
        ValueError: the file is not a PLY, or holds less or more than its header states.
    """
    data = path.read_bytes()
    start = re.match(rb"ply[ \t]*(\r\n|\n|\r)", data)
    end = start and re.compile(rb"[\r\n]end_header[ \t]*" + start[1]).search(data)
    if not start or not end:
        raise ValueError("a header from 'ply' to 'end_header' is missing")
    order, elements = _header(data[start.end() : end.start()].decode(errors="replace"))
    body: _Numbers | _Bytes = _Bytes(data[end.end() :], order) if order else _Numbers(data[end.end() :])
    found = {element.name: _read(body, element) for element in elements}
    if body.rest:
        raise ValueError(f"{body.rest} {body.unit} more than the header states")
    return found


def _header(text: str) -> tuple[str, list[Element]]:
    """The byte order, "" for text, and the elements."""
    order, elements = None, list[Element]()
    for line in re.split(r"[\r\n]+", text):
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, _] if name in ORDERS:
                order = ORDERS[name]
            case ["element", name, count] if count.isdecimal():
                elements.append(Element(name, int(count), []))
            case ["property", "list", length_type, kind, name] if elements and {length_type, kind} <= set(TYPES):
                elements[-1].properties.append(Property(name, TYPES[kind], TYPES[length_type]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append(Property(name, TYPES[kind], None))
            case _:
                raise ValueError(f"the line {line!r} in the header")
    if order is None:
        raise ValueError("a header without a format")
    for names in ([element.name for element in elements], *([p.name for p in e.properties] for e in elements)):
        if len(set(names)) < len(names):
            raise ValueError(f"a name twice in the header, of {', '.join(names)}")
    return order, elements


class _Numbers:
    """The numbers of a text, in their order."""

    unit = "numbers"

    def __init__(self, data: bytes) -> None:
        self.numbers = np.array(data.split(), np.float64)
        self.at = 0

    @property
    def rest(self) -> int:
        """Numbers that nothing has read."""
        return len(self.numbers) - self.at

    def table(self, properties: list[Property], lengths: list[int], count: int) -> list[np.ndarray] | None:
        """As `_Bytes.table`."""
        widths = [length + (p.length_type is not None) for p, length in zip(properties, lengths, strict=True)]
        if self.rest < count * sum(widths):
            return None
        table = self.numbers[self.at : self.at + count * sum(widths)].reshape(count, -1)
        columns = np.split(table, np.cumsum(widths)[:-1], 1)
        for i, p in enumerate(properties):
            if p.length_type and (columns[i][:, 0] != lengths[i]).any():
                return None
        self.at += count * sum(widths)
        return [column[:, p.length_type is not None :] for p, column in zip(properties, columns, strict=True)]

    def take(self, kind: str, count: int) -> list[float]:
        """The next numbers."""
        if not 0 <= count <= self.rest:
            raise EOFError
        self.at += count
        return self.numbers[self.at - count : self.at].tolist()


class _Bytes:
    """The bytes of a binary file, in their order."""

    unit = "bytes"

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order
        self.at = 0

    @property
    def rest(self) -> int:
        """Bytes that nothing has read; blanks at the end do not count."""
        return len(self.data[self.at :].strip(b"\0 \r\n"))

    def table(self, properties: list[Property], lengths: list[int], count: int) -> list[np.ndarray] | None:
        """The columns (count, length) of an element if each list of a property has the same length, else None."""
        fields: list[tuple[str, str, tuple[int, ...]]] = []
        for i, (p, length) in enumerate(zip(properties, lengths, strict=True)):
            if p.length_type:
                fields.append((f"length {i}", self.order + p.length_type, ()))
            fields.append((f"values {i}", self.order + p.type, (length,)))
        dtype = np.dtype(fields)
        if len(self.data) - self.at < count * dtype.itemsize:
            return None
        table = np.frombuffer(self.data, dtype, count, self.at)
        for i, p in enumerate(properties):
            if p.length_type and (table[f"length {i}"] != lengths[i]).any():
                return None
        self.at += count * dtype.itemsize
        return [table[f"values {i}"] for i in range(len(properties))]

    def take(self, kind: str, count: int) -> tuple[float, ...]:
        """The next numbers of a type."""
        size = struct.calcsize(self.order + kind)
        if not 0 <= count * size <= len(self.data) - self.at:
            raise EOFError
        self.at += count * size
        return struct.unpack_from(f"{self.order}{count}{kind}", self.data, self.at - count * size)


def _read(body: _Numbers | _Bytes, element: Element) -> Columns:
    """The columns of an element: as one table where all lists are of one length, else row by row."""
    _, count, properties = element
    if count == 0 or not properties:
        return {p.name: Lists(np.zeros(0), np.zeros(0, int)) if p.length_type else np.zeros(0) for p in properties}
    start, rows = body.at, [_row(body, element, 0)]
    lengths = [len(values) for values in rows[0]]
    body.at = start
    table = body.table(properties, lengths, count)
    if table is not None:
        return {
            p.name: Lists(column.reshape(-1), np.full(count, length)) if p.length_type else column[:, 0]
            for p, column, length in zip(properties, table, lengths, strict=True)
        }
    rows = [_row(body, element, row) for row in range(count)]
    columns: Columns = {}
    for p, column in zip(properties, zip(*rows, strict=True), strict=True):
        values = np.array([value for values in column for value in values])
        columns[p.name] = Lists(values, np.array([len(values) for values in column])) if p.length_type else values
    return columns


def _row(body: _Numbers | _Bytes, element: Element, row: int) -> list:
    """The numbers of each property in the next row."""
    try:
        found = []
        for p in element.properties:
            length = body.take(p.length_type, 1)[0] if p.length_type else 1
            if length != int(length):
                raise ValueError(f"a list of length {length} in row {row} of {element.name}")
            found.append(body.take(p.type, int(length)))
        return found
    except EOFError:
        raise ValueError(f"{element.rows} rows of {element.name} announced, {row} found") from None
