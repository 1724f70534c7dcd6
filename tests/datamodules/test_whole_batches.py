"""How an evaluation is shared out among devices."""

from itertools import zip_longest

from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from datamodules.common.whole_batches import WholeBatches


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 9))
def test_each_batch_of_one_device_is_one_rank_s(examples, batch_size, ranks):
    samplers = [WholeBatches(range(examples), batch_size, ranks, rank) for rank in range(ranks)]
    shares = [list(BatchSampler(sampler, batch_size, drop_last=False)) for sampler in samplers]
    together = [batch for turn in zip_longest(*shares) for batch in turn if batch]
    assert together == list(BatchSampler(SequentialSampler(range(examples)), batch_size, drop_last=False))
    assert len({len(sampler) for sampler in samplers}) == 1  # Lightning skips a rank that has none
    assert len(samplers[0]) == sum(map(len, shares[0])) > 0


def test_a_loader_with_nothing_to_give_just_ends():
    loader = DataLoader(range(3), batch_size=4, sampler=WholeBatches(range(3), 4, 2, 1))
    assert len(loader) == 1 and list(loader) == []
