"""Evaluation on several devices: each example once."""

from collections.abc import Iterator, Sized
from typing import Any

from torch.utils.data import DistributedSampler


class WholeBatches(DistributedSampler):
    """Deals out the very batches that one device would have, in turn: rank 0 gets the first, rank 1 the second ...

    So each example counts once, and rows of one example stay in one batch. Nothing is repeated to fill up: some ranks
    have a batch less than others, or none, so that no evaluation step may wait for other ranks.

    Lightning leaves a `DistributedSampler` as it is. It asks each rank for its length, and skips a rank with none, so
    all tell the length of rank 0, which has the most.

    Args:
        dataset: what is evaluated on.
        batch_size: of the loader, on each device.
        num_replicas: number of ranks.
        rank: this one.
    """

    def __init__(self, dataset: Any, batch_size: int, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.batch_size = batch_size
        self.num_samples = len(self._own(0))

    def __iter__(self) -> Iterator[int]:
        return iter(self._own(self.rank))

    def _own(self, rank: int) -> list[int]:
        assert isinstance(self.dataset, Sized)
        starts = range(rank * self.batch_size, len(self.dataset), self.num_replicas * self.batch_size)
        return [i for start in starts for i in range(start, min(start + self.batch_size, len(self.dataset)))]
