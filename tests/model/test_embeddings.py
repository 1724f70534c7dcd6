"""Tokens: embedded by a learned table, and from there on content as any other."""

import copy

import pytest
import torch
from randomly import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_lightning.analysis.attention.maps import attention_maps
from perceiver_lightning.analysis.costs import forward_flops, training_memory
from perceiver_lightning.model import Ensemble, LateFusion, Perceiver
from perceiver_lightning.model.perceiver import initialise

TEXT = {"vocabulary": 11, "resolution": [9]}
IMAGE = {"channels": 3, "resolution": [4, 5]}
SMALL = {
    "num_latents": 5, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2, "bands": 2,
    "position_width": 6, "token_width": 7,
}  # fmt: skip


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def batch_of(modalities: dict, masked: bool = False) -> dict:
    """Three examples; with a mask that hides the text of the second wholly, and some of the others'."""
    made: dict = {"text": {"content": tokens(3, 9)}}
    if masked:
        made["text"]["mask"] = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) > 0.3
        made["text"]["mask"][1] = False
    if "image" in modalities:
        image = torch.randn(3, 4, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        made["image"] = {"content": image}
    return made


def embedded(batch: dict, table: Tensor) -> dict:
    """The batch with the tokens' vectors, looked up by torch, as float content."""
    return {**batch, "text": {**batch["text"], "content": F.embedding(batch["text"]["content"], table)}}


def pair(modalities: dict, **options) -> tuple[Perceiver, Perceiver, nn.Parameter]:
    """A model of tokens, one of float content with the same weights, and the former's table."""
    ours = randomise(Perceiver(modalities, 3, **SMALL, **options).double())
    floats = {
        name: {"channels": 7, "resolution": [9]} if name == "text" else facts for name, facts in modalities.items()
    }
    theirs = Perceiver(floats, 3, **SMALL, **options).double()
    weights = ours.state_dict()
    table = ours.inputs.embeddings["text"].table
    assert weights.pop("inputs.embeddings.text.table").shape == (11, 7)
    theirs.load_state_dict(weights)
    return ours, theirs, table


@pytest.mark.parametrize("attention", ["dense", "separable"])
@pytest.mark.parametrize("positions", ["fourier", "learned", "learned_axes"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("modalities", [{"text": TEXT}, {"image": IMAGE, "text": TEXT}], ids=["alone", "beside"])
def test_tokens_are_what_torch_looks_up_with_gradients_to_the_table(modalities, masked, positions, attention):
    ours, theirs, table = pair(modalities, attention=attention, positions=positions)
    batch = batch_of(modalities, masked)
    out, expected = ours(batch), theirs(embedded(batch, table))
    assert torch.equal(out, expected) and out.std() > 0.01
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    (found,) = torch.autograd.grad((out * weight).sum(), table)
    (true,) = torch.autograd.grad((expected * weight).sum(), table)
    torch.testing.assert_close(found, true, rtol=1e-12, atol=1e-12)
    seen = batch["text"]["content"] if not masked else batch["text"]["content"][batch["text"]["mask"]]
    for token in range(11):
        assert bool(found[token].any()) == bool((seen == token).any())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("modalities", [{"text": TEXT}, {"image": IMAGE, "text": TEXT}], ids=["alone", "beside"])
def test_separable_is_dense(modalities, masked):
    perceiver = randomise(Perceiver(modalities, 3, **SMALL).double())
    found = []
    for kind in ("dense", "separable"):
        perceiver.attention = kind
        out = perceiver(batch_of(modalities, masked))
        found.append([out, *torch.autograd.grad(out.square().sum(), perceiver.parameters())])
    for dense, separable in zip(*found, strict=True):
        torch.testing.assert_close(separable, dense, rtol=1e-9, atol=1e-9)


def test_free_positions_of_tokens():
    ours, theirs, table = pair({"text": TEXT})
    batch = {"text": {"content": tokens(2, 6), "positions": torch.rand(2, 6, 1) * 2 - 1}}
    assert torch.equal(ours(batch), theirs(embedded(batch, table)))


def test_late_fusion_and_ensembles_read_tokens():
    modalities = {"image": IMAGE, "text": TEXT}
    batch = batch_of(modalities, masked=True)
    fused = randomise(LateFusion(modalities, 3, **SMALL).double())
    image, text = (fused.perceivers()[name]({name: batch[name]}) for name in modalities)
    torch.testing.assert_close(
        fused(batch), torch.stack([(image[0] + text[0]) / 2, image[1], (image[2] + text[2]) / 2])
    )
    ensemble = randomise(Ensemble(2, modalities, 3, **SMALL).double())
    torch.testing.assert_close(ensemble(batch), torch.stack([member(batch) for member in ensemble.members]))


def test_a_model_without_tokens_is_untouched_by_their_width():
    made = []
    for width in (7, 64):
        torch.manual_seed(0)
        made.append(Perceiver({"image": IMAGE}, 3, **{**SMALL, "token_width": width}).state_dict())
    assert list(made[0]) == list(made[1]) and all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_the_table_is_initialised_as_other_learned_arrays_and_64_wide_when_nothing_is_said():
    torch.manual_seed(0)
    perceiver = Perceiver({"text": {"vocabulary": 262, "resolution": [9]}}, 3, num_latents=4, latent_width=8)
    table = perceiver.inputs.embeddings["text"].table
    assert table.shape == (262, 64) and perceiver.inputs.width == 64 + 129
    assert table.abs().max() <= 0.04 and table.std().item() == pytest.approx(0.0176, rel=0.03)
    before = table.detach().clone()
    perceiver.apply(initialise)
    assert not torch.equal(before, table)


def test_a_copy_in_half_precision_gives_half_precision():
    perceiver = copy.deepcopy(randomise(Perceiver({"text": TEXT}, 3, **SMALL))).bfloat16()
    assert perceiver(batch_of({"text": TEXT})).dtype == torch.bfloat16


def test_costs_and_attention_maps_know_tokens():
    """A look-up costs nothing but the table's memory."""
    ours, theirs, table = pair({"text": TEXT})
    facts, floats = {"text": TEXT}, {"text": {"channels": 7, "resolution": [9]}}
    assert forward_flops(ours, facts) == forward_flops(theirs, floats) > 0
    assert forward_flops(ours, facts, {"text": 4}) == forward_flops(theirs, floats, {"text": 4})
    assert training_memory(ours, facts, 2) > training_memory(theirs, floats, 2) + 3 * table.nbytes
    weights = attention_maps(ours, batch_of({"text": TEXT}))["text"].weights
    assert weights.shape == (3, 1, 5, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            {"text": {"content": torch.zeros(2, 9)}},
            r"'text'\]\['content'\]: expected tokens of torch.int64, found torch.f",
        ),
        (
            {"text": {"content": torch.zeros(2, 9, dtype=torch.int32)}},
            "expected tokens of torch.int64, found torch.int32",
        ),
        ({"text": {"content": tokens(2, 9, 7)}}, r"'text'\]\['content'\]: expected shape \(B, I0\), found \(2, 9, 7\)"),
        (
            {"text": {"content": tokens(2, 9, 1), "positions": torch.zeros(9, 1)}},
            r"expected shape \(B, M\), found \(2, 9, 1\)",
        ),
        ({"text": {"content": tokens(2, 0)}}, r"expected at least one element .*, found shape \(2, 0\)"),
        (
            {"text": {"content": tokens(2, 9), "mask": torch.ones(2, 8, dtype=torch.bool)}},
            r"'text'\]\['mask'\]: expected shape \(2, 9\) and torch.bool, found \(2, 8\)",
        ),
        (
            {"image": {"content": torch.zeros(2, 4, 5, 3, dtype=torch.int64)}},
            r"'image'\]\['content'\]: expected floating point numbers, found torch.int64",
        ),
    ],
)
def test_content_of_the_other_kind_is_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        Perceiver({"image": IMAGE, "text": TEXT}, 3, **SMALL)(batch)


@pytest.mark.parametrize("vocabulary", [0, -3])
def test_a_vocabulary_below_1_is_refused(vocabulary):
    message = rf"modalities\['text'\]\['vocabulary'\]: expected 1 or more, found {vocabulary}"
    with pytest.raises(ValueError, match=message):
        Perceiver({"text": {"vocabulary": vocabulary, "resolution": [9]}}, 3, **SMALL)
