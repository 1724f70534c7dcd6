"""Lines on stderr that are true of many files, said for the first of them."""

import logging
from collections.abc import Hashable

from torch.utils.data import get_worker_info

_said: set[Hashable] = set()


def say_once(log: logging.Logger, about: Hashable, line: str) -> None:
    """Log a line the first time that something is to be said `about` this, in this process.

    Workers of a loader stay silent: they would each say it again in each epoch. So that it is said all the same,
    datasets read their first file where they are made ready.
    """
    if about not in _said and get_worker_info() is None:
        _said.add(about)
        log.warning(line)
