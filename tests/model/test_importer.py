"""The importer, and through it the whole model, against Hugging Face transformers as an independent oracle."""

from copy import deepcopy

import pytest
import torch
from randomly import randomise
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverForImageClassificationFourier

from perceiver_lightning.model import Perceiver, importer
from perceiver_lightning.model.importer import channel_order, load_published, their_name

SIZES = [(6, 9), (16, 5), (1, 7), (12, 12)]  # not square, and other than the 224 x 224 that the bands are made for


@pytest.fixture(scope="module")
def theirs() -> PerceiverForImageClassificationFourier:
    config = PerceiverConfig(
        num_latents=7,
        d_latents=24,
        num_blocks=2,
        num_self_attends_per_block=3,
        num_self_attention_heads=4,
        num_cross_attention_heads=3,
        self_attention_widening_factor=1,
        cross_attention_widening_factor=1,
        num_labels=10,
    )
    model = randomise(PerceiverForImageClassificationFourier(config).double().eval())
    with torch.no_grad():  # logits that spread by about 10: by more, float32 itself comes near the 1e-4
        model.perceiver.decoder.decoder.final_layer.weight /= 4
    return model


def build(**changes) -> Perceiver:
    arguments = {
        "num_latents": 7, "latent_width": 24, "cross_attends": [1, 0], "self_attends": 3, "self_heads": 4,
        "cross_heads": 3, "decoder": "query", "resolution": [224, 224], "num_outputs": 10,
    }  # fmt: skip
    arguments |= changes
    modalities = {"image": {"channels": 3, "resolution": arguments.pop("resolution")}}
    return Perceiver(modalities, arguments.pop("num_outputs"), **arguments).eval()


@pytest.fixture
def ours(theirs) -> Perceiver:
    perceiver = build().double()
    load_published(perceiver, theirs.state_dict())
    return perceiver


def images(size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(4, *size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@torch.no_grad()
def logits_of(perceiver: Perceiver, content: Tensor) -> Tensor:
    return perceiver({"image": {"content": content}})


@torch.no_grad()
def their_logits(model: nn.Module, content: Tensor) -> Tensor:
    return model(content.permute(0, 3, 1, 2)).logits


@pytest.mark.parametrize("attention", ["dense", "separable"])
@pytest.mark.parametrize("size", SIZES)
def test_float64_logits_are_those_of_transformers_within_1e_8(theirs, ours, size, attention):
    ours.attention = attention
    content = images(size)
    expected = their_logits(theirs, content)
    spread_over_classes = expected.amax(1) - expected.amin(1)
    spread_over_examples = expected.amax(0) - expected.amin(0)
    assert spread_over_classes.min() > 1 and spread_over_examples.mean() > 0.2
    torch.testing.assert_close(logits_of(ours, content), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("attention", ["dense", "separable"])
@pytest.mark.parametrize("size", SIZES)
def test_float32_logits_are_those_of_transformers_within_1e_4(theirs, size, attention):
    content = images(size, torch.float32)
    perceiver = build(attention=attention)
    load_published(perceiver, theirs.state_dict())
    expected = their_logits(deepcopy(theirs).float(), content)
    assert expected.std() > 1
    torch.testing.assert_close(logits_of(perceiver, content), expected, rtol=0, atol=1e-4)


def test_parity_sees_a_permutation_in_any_parameter(theirs, ours):
    """Two neighbours swapped along the last axis of any one parameter move the logits far beyond the 1e-8."""
    content = images((6, 9))
    expected = logits_of(ours, content)
    for name, parameter in ours.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(kept.roll(1, -1))
        moved = (logits_of(ours, content) - expected).abs().max()
        if name.endswith("key.bias"):  # adds the same to all logits of a softmax
            assert moved < 1e-12, name
        else:
            assert moved > 1e-3, name
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("columns", [(3, 4), (3, 132), (67, 196), (0, 2)])
def test_parity_sees_two_swapped_columns_of_the_input_s_key_weight(theirs, ours, columns):
    swapped = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    key = swapped["perceiver.encoder.cross_attention.attention.self.key.weight"]
    key[:, list(columns)] = key[:, list(reversed(columns))]
    wrong = build().double()
    load_published(wrong, swapped)
    content = images((6, 9))
    assert (logits_of(wrong, content) - their_logits(theirs, content)).abs().max() > 1e-2


def test_parity_sees_the_channel_order_left_out(theirs, monkeypatch):
    monkeypatch.setattr(importer, "channel_order", lambda channels, axes, bands: torch.arange(261))
    wrong = build().double()
    load_published(wrong, theirs.state_dict())
    content = images((6, 9))
    assert (logits_of(wrong, content) - their_logits(theirs, content)).abs().max() > 0.1


def test_channel_order_of_two_axes_with_two_bands():
    content, y, x = [0, 1, 2], 3, 4
    sines_y, sines_x, cosines_y, cosines_x = [5, 6], [7, 8], [9, 10], [11, 12]
    expected = [*content, y, *sines_y, *cosines_y, x, *sines_x, *cosines_x]
    assert channel_order(3, 2, 2).tolist() == expected


def test_the_prefix_may_be_missing_and_the_dtype_stays(theirs):
    perceiver = build()
    load_published(perceiver, {name.removeprefix("perceiver."): x for name, x in theirs.state_dict().items()})
    assert {parameter.dtype for parameter in perceiver.parameters()} == {torch.float32}
    torch.testing.assert_close(perceiver.latents, theirs.perceiver.embeddings.latents.float())


def test_the_published_model_is_what_the_docstring_builds():
    """Names and shapes of deepmind/vision-perceiver-fourier, with no weights in memory."""
    config = PerceiverConfig(
        num_latents=512, d_latents=1024, num_blocks=8, num_self_attends_per_block=6, num_self_attention_heads=8,
        num_cross_attention_heads=1, num_labels=1000,
    )  # fmt: skip
    with torch.device("meta"):
        published = PerceiverForImageClassificationFourier(config).state_dict()
        modalities = {"image": {"channels": 3, "resolution": [224, 224]}}
        perceiver = Perceiver(modalities, 1000, cross_attends=[1] + [0] * 7, decoder="query")
    shapes = {"perceiver." + their_name(name): x.shape for name, x in perceiver.state_dict().items()}
    assert shapes == {name: x.shape for name, x in published.items()}


def test_missing_and_left_over_weights_are_named_and_nothing_is_changed(theirs):
    perceiver = build().double()
    before = {name: x.clone() for name, x in perceiver.state_dict().items()}
    weights = dict(theirs.state_dict())
    weights["perceiver.embeddings.extra"] = weights.pop("perceiver.embeddings.latents")
    with pytest.raises(ValueError, match=r"missing \['embeddings\.latents'\], left over \['embeddings\.extra'\]"):
        load_published(perceiver, weights)
    for name, x in perceiver.state_dict().items():
        assert torch.equal(x, before[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_latents": 8}, r"embeddings\.latents: expected \(8, 24\), found \(7, 24\)"),
        (
            {"num_outputs": 3},
            r"final_layer\.weight: expected \(3, 24\), found \(10, 24\); .*layer\.bias: .*found \(10,\)",
        ),
        ({"bands": 32, "cross_heads": 1}, r"key\.weight: expected \(133, 133\), found \(261, 261\)"),
        ({"self_attends": 4}, r"missing \['encoder\.self_attends\.3\."),
        ({"self_attends": 2}, r"left over \['encoder\.self_attends\.2\."),
        ({"resolution": [224]}, r"key\.weight: expected \(132, 132\), found \(261, 261\)"),
        (
            {"cross_attends": [1, 1], "sharing": "all"},
            r"cross_attends: expected a single .*, found \[1, 1\] and 1 stacks",
        ),
        ({"sharing": "none"}, r"cross_attends: expected a single one, .*, found \[1, 0\] and 2 stacks"),
        (
            {"positions": "learned", "position_width": 258, "resolution": [4, 4]},
            "modalities: expected one, with Fourier.*, found Learned",
        ),
        ({"decoder": "mean"}, "decoder: expected query, with query_residual, found mean"),
        ({"query_residual": False}, "decoder: expected query, with query_residual, found query without it"),
        ({"query_resolution": [2]}, r"left over \['decoder\.decoder\.output_position_encodings"),
    ],
)
def test_a_perceiver_of_another_build_is_refused_in_words(theirs, changes, message):
    with pytest.raises(ValueError, match=message):
        load_published(build(**changes), theirs.state_dict())


def test_two_modalities_are_refused_in_words(theirs):
    facts = {"channels": 3, "resolution": [4, 4]}
    perceiver = Perceiver({"a": facts, "b": facts}, 10, latent_width=24, cross_attends=[1, 0], decoder="query")
    with pytest.raises(ValueError, match="modalities: expected one, with Fourier positions, found Fourier"):
        load_published(perceiver, theirs.state_dict())
