"""The command `check`: what each split holds, what was left out, and whether one file is in two of them."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perceiver_lightning.errors import InputError
from perceiver_lightning.training.progress import counts_in_words

SHOWN = 10  # pairs of equal files
PIECE = 1 << 20  # bytes that are read at a time


def check_splits(data: Any) -> bool:
    """Print what the splits of a datamodule hold.

    Args:
        data: a datamodule that can say which files its splits have (`files`).

    Returns:
        whether files, or arrays, of equal content are in two splits.
    """
    if not hasattr(data, "files"):
        raise InputError(f"check: expected a datamodule of files, found {type(data).__name__}")
    console = Console()
    splits: dict[str, Sequence[Any]] = dict(data.files("fit"))
    try:
        splits |= data.files("test")
    except InputError as error:  # some data have no test
        console.print(f"test: {error}", markup=False)
    table = Table("split", "examples", "files", "classes")
    left_out: Counter[str] = Counter()
    for split, sources in splits.items():
        for source in sources:
            table.add_row(
                split, f"{len(source.items):,}", counts_in_words(endings(source.items)), _classes(source, data)
            )
            left_out += Counter(source.left_out)
    console.print(table)
    console.print(f"left out: {counts_in_words(left_out) or 'nothing'}", markup=False)
    equal, compared = equal_items(splits)
    total = sum(len(source.items) for sources in splits.values() for source in sources)
    if compared < total:
        console.print(f"not compared: {total - compared:,} examples, which cannot be read as files or arrays")
    if not equal:
        console.print(f"no file is in two of {', '.join(splits)}")
        return False
    console.print(f"[bold red]in two splits: {len(equal):,} of equal content[/]")
    for one, other in equal[:SHOWN]:
        console.print(f"  {one} = {other}", markup=False)
    if len(equal) > SHOWN:
        console.print(f"  and {len(equal) - SHOWN:,} more")
    return True


def endings(items: Sequence[Any]) -> Counter[str]:
    """How many files there are of each ending; other items are "in memory"."""
    return Counter(
        os.path.splitext(item)[1].lower() if isinstance(item, str | os.PathLike) else "in memory" for item in items
    )


def _classes(source: Any, data: Any) -> str:
    """How many examples of each class there are, of the first few classes."""
    names = getattr(data, "class_names", None)
    if names is None or not source.labels:
        return ""
    counts = Counter(names[label] for labels in source.labels for label in np.atleast_1d(labels))
    few = dict(counts.most_common(5))
    return counts_in_words(few) + (f" and {len(counts) - len(few)} more" if len(counts) > len(few) else "")


def equal_items(splits: Mapping[str, Sequence[Any]]) -> tuple[list[tuple[str, str]], int]:
    """What is in two splits, by its content; only what is of equal size in two splits is read.

    Returns:
        of each content in two splits or more, the first of one split and the first of another, as "split: name"; and
        how many examples could be compared.
    """
    by_size: dict[int, list[tuple[str, str, Any]]] = defaultdict(list)
    for split, sources in splits.items():
        for source in sources:
            for name, item in zip(source.names, source.items, strict=True):
                if (size := _size(item)) is not None:
                    by_size[size].append((split, name, item))
    alike = [one for group in by_size.values() if len({split for split, *_ in group}) > 1 for one in group]
    by_content: dict[bytes, dict[str, str]] = defaultdict(dict)
    for split, name, item in track(alike, "Comparing files", transient=True, disable=not alike):
        by_content[_digest(item)].setdefault(split, f"{split}: {name}")
    pairs = [tuple(found.values()) for found in by_content.values() if len(found) > 1]
    return [(one, other) for one, other, *_ in pairs], sum(map(len, by_size.values()))


def _size(item: Any) -> int | None:
    if isinstance(item, np.ndarray):
        return item.nbytes
    try:
        return os.stat(item).st_size if isinstance(item, str | os.PathLike) else None
    except OSError:
        return None


def _digest(item: Any) -> bytes:
    digest = hashlib.blake2b()
    for piece in _pieces(item):
        digest.update(piece)
    return digest.digest()


def _pieces(item: Any) -> Iterator[bytes]:
    if isinstance(item, np.ndarray):
        yield f"{item.dtype} {item.shape}".encode() + item.tobytes()
        return
    with open(item, "rb") as file:
        while piece := file.read(PIECE):
            yield piece
