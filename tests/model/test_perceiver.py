import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from randomly import randomise
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from perceiver_lightning.model import Perceiver
from perceiver_lightning.model.attention import Dense

IMAGENET = {"image": {"channels": 3, "resolution": [224, 224]}}
ONE_AT_THE_START = [1] + [0] * 7
FUSED = {
    "image": {"channels": 3, "resolution": [4, 4]},
    "points": {"channels": 0, "resolution": [8, 8, 8]},
    "sound": {"channels": 2, "resolution": [12]},
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(modalities: dict, **changes) -> Perceiver:
    """A small Perceiver in float64 whose every parameter is drawn."""
    arguments = {
        "num_latents": 5, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2, "bands": 2,
        "position_width": 6,
    }  # fmt: skip
    return randomise(Perceiver(modalities, 3, **(arguments | changes)).double().eval())


def fused_batch(batch: int = 2) -> dict:
    points = torch.rand(batch, 6, 3, generator=torch.Generator().manual_seed(4)) * 2 - 1
    return {
        "image": {"content": normal(batch, 4, 4, 3)},
        "points": {"content": normal(batch, 6, 0), "positions": points},
        "sound": {"content": normal(batch, 12, 2, seed=1)},
    }


# The papers' numbers


@pytest.mark.parametrize(
    ("parameters", "changes"),
    [
        (44_912_254, {}),
        (326_241_856, {"sharing": "none"}),
        (42_135_859, {"cross_attends": ONE_AT_THE_START}),
        (48_440_627, {"cross_attends": ONE_AT_THE_START, "decoder": "query"}),
    ],
)
def test_parameters_are_the_papers(parameters, changes):
    with torch.device("meta"):
        perceiver = Perceiver(IMAGENET, 1000, **changes)
    assert sum(parameter.numel() for parameter in perceiver.parameters()) == parameters


@pytest.mark.parametrize(
    ("flops", "changes"),
    [
        (707e9, {}),
        (404e9, {"cross_attends": ONE_AT_THE_START}),
        (407e9, {"cross_attends": ONE_AT_THE_START, "decoder": "query"}),
    ],
)
def test_flops_of_a_forward_pass_are_the_papers_within_half_a_percent(flops, changes):
    with torch.device("meta"):
        perceiver = Perceiver(IMAGENET, 1000, attention="dense", **changes).requires_grad_(False)
        content = torch.empty(1, 224, 224, 3)
    with FlopCounterMode(display=False) as counter:
        logits = perceiver({"image": {"content": content}})
    assert logits.shape == (1, 1000)
    assert abs(counter.get_total_flops() / flops - 1) < 0.005


# Order and sharing


@pytest.mark.parametrize(
    ("cross_attends", "sharing", "expected"),
    [
        ([1, 1, 1], "paper", "c0 s0 c1 s0 c1 s0"),
        ([1, 1, 1], "none", "c0 s0 c1 s1 c2 s2"),
        ([1, 1, 1], "all", "c0 s0 c0 s0 c0 s0"),
        ([3, 0, 0], "paper", "c0 c1 c1 s0 s0 s0"),
        ([3, 0, 0], "none", "c0 c1 c2 s0 s1 s2"),
        ([1, 0, 1], "paper", "c0 s0 s0 c1 s0"),
        ([1, 0, 1], "none", "c0 s0 s1 c1 s2"),
        ([1, 0, 1], "all", "c0 s0 s0 c0 s0"),
        ([1, 0, 0], "paper", "c0 s0 s0 s0"),
        ([2], "paper", "c0 c1 s0"),
    ],
)
def test_interleaving_and_sharing(cross_attends, sharing, expected):
    perceiver = small(FUSED, cross_attends=cross_attends, sharing=sharing, self_attends=2)
    ran: list[str] = []
    for letter, modules in (("c", perceiver.cross_attends), ("s", perceiver.stacks)):
        for i, module in enumerate(modules):
            module.register_forward_hook(lambda *_, name=f"{letter}{i}": ran.append(name))
    perceiver(fused_batch())
    assert " ".join(ran) == expected
    names = set(expected.split())
    assert len(perceiver.cross_attends) == sum(name[0] == "c" for name in names)
    assert len(perceiver.stacks) == sum(name[0] == "s" for name in names)
    assert {len(stack) for stack in perceiver.stacks} == {2}


def test_the_forward_pass_is_its_parts_one_after_the_other():
    perceiver = small(FUSED, cross_attends=[2, 0], sharing="none")
    array = Dense(perceiver.inputs(fused_batch()))
    x = perceiver.latents.expand(2, -1, -1)
    x = perceiver.cross_attends[1](perceiver.cross_attends[0](x, array), array)
    x = perceiver.stacks[1](perceiver.stacks[0](x))
    torch.testing.assert_close(perceiver.encode(fused_batch()), x)
    expected = x.mean(1) @ perceiver.decoder.output.weight.T + perceiver.decoder.output.bias
    torch.testing.assert_close(perceiver(fused_batch()), expected)


def test_no_self_attends_is_a_perceiver_that_only_reads():
    assert small(FUSED, self_attends=0)(fused_batch()).shape == (2, 3)


def test_widths_heads_widening_and_dropout_reach_every_layer():
    perceiver = small(
        FUSED, cross_heads=3, cross_qk_width=6, cross_v_width=9, self_heads=4, self_qk_width=12, self_v_width=16,
        widening=5, dropout=0.25, decoder="query", decoder_heads=7, decoder_qk_width=14, decoder_v_width=21,
    )  # fmt: skip
    for layer, widths in (
        *((cross, (3, 6, 9)) for cross in perceiver.cross_attends),
        *((layer, (4, 12, 16)) for stack in perceiver.stacks for layer in stack),
        (perceiver.decoder.cross_attend, (7, 14, 21)),
    ):
        attention = layer.attention
        assert (attention.heads, attention.key.out_features, attention.value.out_features) == widths
        if layer is not perceiver.decoder.cross_attend:
            assert layer.mlp[0].out_features == 5 * 8 and layer.dropout.p == 0.25


# Sets of elements


@settings(max_examples=15)
@given(st.sampled_from(["fourier", "learned", "learned_axes"]), st.integers(0, 99))
def test_elements_permuted_with_their_positions_change_nothing_and_without_them_much(positions, seed):
    perceiver = small({"image": {"channels": 3, "resolution": [4, 5]}}, positions=positions)
    content = normal(2, 4, 5, 3, seed=seed)
    places = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 5), indexing="ij"), -1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    content_BMC, places_MA = content.flatten(1, 2), places.flatten(0, 1)
    raw = perceiver({"image": {"content": content}})
    travelled = perceiver({"image": {"content": content_BMC[:, order], "positions": places_MA[order]}})
    torch.testing.assert_close(travelled, raw, rtol=0, atol=1e-10)
    for stayed in (
        {"content": content_BMC[:, order].view(2, 4, 5, 3)},
        {"content": content_BMC[:, order], "positions": places_MA},
    ):
        assert (perceiver({"image": stayed}) - raw).abs().max() > 1e-4


grids = st.integers(1, 4).flatmap(
    lambda axes: st.tuples(*[st.lists(st.integers(1, 4), min_size=axes, max_size=axes)] * 3)
)


@given(grids, st.sampled_from(["fourier", "learned", "learned_axes"]))
def test_a_padded_grid_gives_what_it_gives_alone(grids_of_batch, positions):
    """Each example has places of its own along each axis, and what fills it up is masked."""
    axes = len(grids_of_batch[0])
    perceiver = small({"x": {"channels": 2, "resolution": [5] * axes}}, positions=positions)
    contents = [normal(*grid, 2, seed=seed) for seed, grid in enumerate(grids_of_batch)]
    alone = torch.cat([perceiver({"x": {"content": content[None]}}) for content in contents])

    padded = [max(sizes) for sizes in zip(*grids_of_batch, strict=True)]
    content = 100 * normal(len(contents), *padded, 2, seed=9)
    mask = torch.zeros(content.shape[:-1], dtype=torch.bool)
    places = [0.123 * torch.ones(len(contents), size) for size in padded]
    for b, grid in enumerate(grids_of_batch):
        there = (b, *(slice(size) for size in grid))
        content[there], mask[there] = contents[b], True
        for axis, size in enumerate(grid):
            places[axis][b, :size] = torch.linspace(-1, 1, size)
    together = perceiver({"x": {"content": content, "positions": places, "mask": mask}})
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    if not mask.all():
        seen = perceiver({"x": {"content": content, "positions": places}})
        assert (seen - alone)[~mask.flatten(1).all(1)].abs().amax(1).min() > 1e-6


@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(["fourier", "learned", "learned_axes"]),
)
def test_padded_coordinates_give_what_they_give_alone(axes, sizes, channels, positions):
    perceiver = small({"x": {"channels": channels, "resolution": [5] * axes}}, positions=positions)
    examples = [
        {
            "content": normal(1, size, channels, seed=i),
            "positions": torch.rand(1, size, axes, generator=torch.Generator().manual_seed(i)) * 2 - 1,
        }
        for i, size in enumerate(sizes)
    ]
    alone = torch.cat([perceiver({"x": example}) for example in examples])
    content, places = 100 * normal(len(sizes), max(sizes), channels, seed=9), torch.zeros(len(sizes), max(sizes), axes)
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    for i, (size, example) in enumerate(zip(sizes, examples, strict=True)):
        content[i, :size], places[i, :size] = example["content"][0], example["positions"][0]
    together = perceiver({"x": {"content": content, "positions": places, "mask": mask}})
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_a_modality_that_is_absent_is_one_that_is_fully_masked():
    perceiver = small(FUSED)
    batch = fused_batch()
    whole = perceiver(batch)
    for name in FUSED:
        absent = perceiver({other: given for other, given in batch.items() if other != name})
        masked = copy.copy(batch)
        masked[name] = batch[name] | {"mask": torch.zeros(batch[name]["content"].shape[:-1], dtype=torch.bool)}
        torch.testing.assert_close(perceiver(masked), absent, rtol=0, atol=1e-10)
        assert (absent - whole).abs().max() > 1e-4
        masked[name]["mask"][1] = True  # there in one example of the batch, and not in the other
        torch.testing.assert_close(perceiver(masked), torch.stack([absent[0], whole[1]]), rtol=0, atol=1e-10)


def test_an_example_with_nothing_in_it_gives_numbers_and_finite_gradients():
    perceiver = small({"x": {"channels": 2, "resolution": [4]}})
    content = normal(2, 4, 2).requires_grad_()
    mask = torch.tensor([[False] * 4, [True] * 4])
    logits = perceiver({"x": {"content": content, "mask": mask}})
    assert logits.isfinite().all()
    logits.square().sum().backward()
    assert torch.equal(content.grad[0], torch.zeros(4, 2)) and content.grad[1].abs().min() > 0
    assert all(parameter.grad.isfinite().all() for parameter in perceiver.parameters())


# Gradients and initialisation


@pytest.mark.parametrize("positions", ["fourier", "learned", "learned_axes"])
@pytest.mark.parametrize(
    "decoder", [{}, {"decoder": "query", "num_queries": 2}, {"decoder": "query", "query_resolution": [2]}]
)
def test_gradients_reach_every_parameter(positions, decoder):
    modalities = {"image": {"channels": 3, "resolution": [4, 4]}, "sound": {"channels": 2, "resolution": [12]}}
    perceiver = small(modalities, positions=positions, cross_attends=[2, 0, 1], **decoder)
    batch = fused_batch()
    perceiver({name: batch[name] for name in modalities}).square().sum().backward()
    for name, parameter in perceiver.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("key.bias"):  # adds the same to all logits of a softmax: its true gradient is 0
            assert parameter.grad.abs().max() < 1e-10, name
        else:
            assert parameter.grad.abs().min() > 0, name


def test_initialisation_is_the_papers():
    torch.manual_seed(0)
    perceiver = Perceiver(
        FUSED, 600, num_latents=512, latent_width=256, cross_attends=[1], self_attends=1, positions="learned",
        position_width=128, decoder="query", num_queries=64, widening=2,
    )  # fmt: skip
    linears = norms = arrays = 0
    for module in perceiver.modules():
        for name, x in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm):
                assert (x == (name == "weight")).all()
                norms += 1
            elif isinstance(module, nn.Linear) and name == "weight":
                std = 1 / math.sqrt(module.in_features)
                assert x.std().item() == pytest.approx(std, rel=0.03) and abs(x.mean()) < 0.03 * std
                assert x.abs().max() <= 2 * std / 0.8796  # cut at two of the normal that it is drawn from
                linears += 1
            elif isinstance(module, nn.Linear):
                assert not x.any()
            else:
                assert x.abs().max() <= 0.04
                if x.numel() > 1000:
                    assert x.std().item() == pytest.approx(0.0176, rel=0.04)
                arrays += 1
    assert perceiver.latents.std().item() == pytest.approx(0.0176, rel=0.01) and perceiver.latents.abs().max() > 0.039
    assert (linears, norms, arrays) == (3 * 6 + 1, 2 * (3 + 2 + 3), 1 + 1 + 3 + 3)


# Decoders


@pytest.mark.parametrize(("queries", "shape"), [(1, (2, 3)), (4, (2, 4, 3))])
def test_learned_queries(queries, shape):
    assert small(FUSED, decoder="query", num_queries=queries)(fused_batch()).shape == shape


def test_a_grid_of_queries_in_chunks_is_the_whole_grid():
    perceiver = small(FUSED, decoder="query", query_resolution=[3, 4], decoder_heads=2)
    whole = perceiver(fused_batch())
    assert whole.shape == (2, 3, 4, 3)
    places = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 4), indexing="ij"), -1)
    chunks = [perceiver(fused_batch(), chunk) for chunk in places.flatten(0, 1).split(5)]
    assert [chunk.shape[1] for chunk in chunks] == [5, 5, 2]
    torch.testing.assert_close(torch.cat(chunks, 1).view(2, 3, 4, 3), whole, rtol=0, atol=1e-12)
    own = torch.stack([places[1, :2], places[2, 1:3]])  # each example asks for places of its own
    found = perceiver(fused_batch(), own)
    torch.testing.assert_close(found, torch.stack([whole[0, 1, :2], whole[1, 2, 1:3]]), rtol=0, atol=1e-12)


def test_query_residual_can_be_left_out():
    with_it, without = (small(FUSED, decoder="query", query_residual=residual) for residual in (True, False))
    assert (with_it(fused_batch()) - without(fused_batch())).abs().max() > 1e-3


# Checkpoints, copies, precision


@pytest.mark.parametrize("positions", ["fourier", "learned", "learned_axes"])
def test_checkpoint_deepcopy_and_pickle_keep_the_logits(positions):
    torch.manual_seed(0)
    modalities = {"image": {"channels": 3, "resolution": [4, 4]}}
    options = {"num_latents": 5, "latent_width": 8, "self_heads": 2, "bands": 2, "cross_attends": [1, 1]}
    options |= {"positions": positions, "position_width": 6}
    perceiver = Perceiver(modalities, 3, **options).eval()
    batch = {"image": {"content": torch.randn(2, 4, 4, 3)}}
    logits = perceiver(batch)
    assert set(perceiver.state_dict()) == {name for name, _ in perceiver.named_parameters()}  # no tables
    file = io.BytesIO()
    torch.save(perceiver.state_dict(), file)
    file.seek(0)
    other = Perceiver(modalities, 3, **options).eval()
    assert not torch.equal(other(batch), logits)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for same in (other, copy.deepcopy(perceiver), pickle.loads(pickle.dumps(perceiver))):
        assert torch.equal(same(batch), logits)


def test_training_goes_on_after_a_first_pass_in_inference_mode():
    perceiver = small({"x": {"channels": 2, "resolution": [4, 4]}}, decoder="query", query_resolution=[2])
    with torch.inference_mode():
        before = perceiver({"x": {"content": normal(2, 4, 4, 2)}})
    after = perceiver({"x": {"content": normal(2, 4, 4, 2)}})
    assert torch.equal(after, before.clone())
    after.sum().backward()
    assert perceiver.latents.grad is not None


def test_bfloat16_as_weights_and_by_autocast_stays_near_float32():
    perceiver = small({"x": {"channels": 2, "resolution": [64]}}, latent_width=16).float()
    for parameter in perceiver.parameters():
        parameter.data /= 2
    content = normal(4, 64, 2).float()
    exact = perceiver({"x": {"content": content}})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = perceiver({"x": {"content": content}})
    half = perceiver.bfloat16()({"x": {"content": content.bfloat16()}})
    assert autocast.dtype == half.dtype == torch.bfloat16
    for found in (autocast, half):
        torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)


# Errors in words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_latents": 0}, "num_latents: expected 1 or more, found 0"),
        ({"latent_width": -8}, "latent_width: expected 1 or more, found -8"),
        ({"bands": 0}, "bands: expected 1 or more, found 0"),
        ({"widening": 0}, "widening: expected 1 or more, found 0"),
        ({"num_queries": 0}, "num_queries: expected 1 or more, found 0"),
        ({"self_heads": 0}, "self_heads: expected 1 or more, found 0"),
        ({"cross_v_width": 0}, "cross_v_width: expected 1 or more, found 0"),
        ({"token_width": 0}, "token_width: expected 1 or more, found 0"),
        ({"self_heads": 3}, "self_heads: expected a divisor of 8, which is self_qk_width or.*latent_width, found 3"),
        ({"self_v_width": 9}, "self_heads: expected a divisor of 9, which is self_v_width.*, found 2"),
        (
            {"cross_heads": 4},
            "cross_heads: expected a divisor of 13, which is cross_qk_width or.*input array.*, found 4",
        ),
        ({"cross_qk_width": 8, "cross_heads": 3}, "cross_heads: expected a divisor of 8.*, found 3"),
        ({"decoder": "query", "decoder_heads": 3}, "decoder_heads: expected a divisor of 8.*, found 3"),
        ({"cross_attends": []}, r"cross_attends: expected.*with one cross-attend at the least, found \[\]"),
        ({"cross_attends": [0, 0]}, r"cross_attends: expected.*with one cross-attend at the least, found \[0, 0\]"),
        ({"cross_attends": [2, -1]}, r"cross_attends: expected one number, 0 or more.*, found \[2, -1\]"),
        ({"cross_attends": [0, 1]}, r"cross_attends: expected the first block to begin with one.*, found \[0, 1\]"),
        ({"self_attends": -1}, "self_attends: expected 0 or more, found -1"),
        ({"sharing": "some"}, "sharing: expected paper, none or all, found 'some'"),
        ({"decoder": "max"}, "decoder: expected mean or query, found 'max'"),
        ({"positions": "rotary"}, "positions: expected fourier, learned or learned_axes, found 'rotary'"),
        ({"dropout": 2.0}, "dropout: expected 0 or more and below 1, found 2.0"),
        ({"highest_frequency": 0}, "highest_frequency: expected more than 0, found 0"),
        ({"query_resolution": [3, 0]}, r"query_resolution: expected one number, 1 or more, .*, found \[3, 0\]"),
    ],
)
def test_an_argument_that_cannot_be_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        small({"image": {"channels": 3, "resolution": [4, 4]}}, **changes)


def test_no_outputs_and_no_modalities_are_named():
    with pytest.raises(ValueError, match="num_outputs: expected 1 or more, found 0"):
        Perceiver(FUSED, 0)
    with pytest.raises(ValueError, match=r"modalities: expected at least one, .*, found none"):
        Perceiver({}, 3)


@pytest.mark.parametrize(
    ("changes", "axes", "message"),
    [
        ({}, 1, r"query_positions: expected none, as the model has no query_resolution, found \(5, 1\)"),
        (
            {"decoder": "query"},
            1,
            r"query_positions: expected none, as the model has no query_resolution, found \(5, 1\)",
        ),
        ({"decoder": "query", "query_resolution": [3, 4]}, 3, "query_positions: expected 2 axes, found 3"),
    ],
)
def test_query_positions_that_nothing_asks_for_are_refused(changes, axes, message):
    with pytest.raises(ValueError, match=message):
        small(FUSED, **changes)(fused_batch(), torch.zeros(5, axes))


def test_a_batch_with_a_modality_that_the_model_does_not_know_is_refused():
    with pytest.raises(
        ValueError, match=r"inputs: expected some of the modalities \['image', 'points', 'sound'\], found \['smell'\]"
    ):
        small(FUSED)({"smell": {"content": normal(1, 2, 3)}})
