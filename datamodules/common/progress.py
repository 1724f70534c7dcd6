"""Work on many files at once, under a progress bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """Map a function over items in threads, in order, with a progress bar.

    Threads: decoders release the interpreter's lock.
    """
    not_first = getattr(rank_zero_only, "rank", 0) != 0  # one progress bar is enough
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from track(pool.map(function, items), title, len(items), transient=True, disable=not_first)
