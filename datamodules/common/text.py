"""Text files and tables, and the files that they name."""

import codecs
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import ERRORS, composed

# The mark of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
}


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or what its byte-order mark says (Excel's "Unicode text" is UTF-16).

    Bytes that are not UTF-8 are kept, as in names of files: see `perceiver_lightning.names`.

    Raises:
        InputError: the file has zero bytes, as UTF-16 without a mark and files that are no text have.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, ERRORS)
    except UnicodeError as error:
        raise InputError(f"{path}: expected {encoding.upper()}, as its first bytes say, found {error}") from error
    if "\0" in text:
        raise InputError(f"{path}: expected text of UTF-8, or of UTF-16 with a byte-order mark, found zero bytes")
    return text


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV, or of a TSV by its ending, by its columns' names; blank lines are left out.

    Tabs and semicolons are taken for commas, and commas for tabs, where only so the columns are there, as
    spreadsheets save them.

    Raises:
        InputError: it is absent or no text, lacks a column, has no line, or a line with another number of columns.
    """
    try:
        text = read_text(path)
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        rows: list[tuple[int, list[str]]] = []
        for delimiter in (usual, *",\t;", usual):
            rows = _rows(text, delimiter)
            if rows and set(columns) <= set(rows[0][1]):
                break
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file, found one that cannot be read ({error})") from error
    found, lines = rows[0][1] if rows else [], rows[1:]
    names = [name for name in found if name]
    require(set(columns) <= set(found), str(path), f"the columns {', '.join(columns)}", ", ".join(names) or "none")
    require(len(set(names)) == len(names), str(path), "columns of different names", ", ".join(names))
    require(len(lines) > 0, str(path), "a line for each file", "none")
    for number, line in lines:
        expected = f"{len(found)} columns, as the first line has"
        require(len(line) == len(found), f"{path}, line {number}", expected, len(line))
    return [dict(zip(found, line, strict=True)) for _, line in lines]


def _rows(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, with the numbers of their lines; the cells of the first without blanks around."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=delimiter)
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    return [(number, [cell.strip() for cell in row]) for number, row in rows[:1]] + rows[1:]


def written_forms(path: str, listed: dict[str, dict[str, list[str]]]) -> list[str]:
    """The paths that `path` may mean: itself if it is there, else those that differ from it in form alone.

    That is in the Unicode form of names (NFC, NFD), and in blanks around them.

    Args:
        path: the absolute path.
        listed: what folders hold, kept from call to call.
    """
    if os.path.exists(path):
        return [path]
    folder, name = os.path.split(path)
    found = []
    for parent in written_forms(folder, listed) if name else []:
        if parent not in listed:
            listed[parent] = {}
            for other in os.listdir(parent) if os.path.isdir(parent) else []:
                listed[parent].setdefault(composed(other.strip()), []).append(other)
        found += [os.path.join(parent, other) for other in listed[parent].get(composed(name.strip()), [])]
    return found
