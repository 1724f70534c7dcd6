import math

import pytest
import torch
from several_modalities import inputs, model
from torch import Tensor

from perceiver_lightning.analysis.attention import rollout as rollout_module
from perceiver_lightning.analysis.attention.maps import attention_maps, record
from perceiver_lightning.analysis.attention.rollout import entropy, rollout, similarity, usage
from perceiver_lightning.analysis.costs import LiveBytes
from perceiver_lightning.model import attention as attention_module

LATENTS, ELEMENTS = 5, 6 * 5 + 8 + 7


def all_weights(perceiver, given, monkeypatch) -> list[Tensor]:
    """The mean weights (B, queries, keys) over the heads of every attention, as the dense model computes them."""
    seen = []
    attend = attention_module.attend

    def spy(q, k, v, mask=None):
        logits = q @ k.mT * q.shape[-1] ** -0.5
        logits = logits if mask is None else logits.masked_fill(~mask[:, None, None], -torch.inf)
        seen.append(logits.softmax(-1).mean(1))
        return attend(q, k, v, mask)

    monkeypatch.setattr(attention_module, "attend", spy)
    perceiver.attention = "dense"
    with torch.no_grad():
        perceiver(given)
    monkeypatch.undo()
    return seen


def brute_force(weights: list[Tensor], decoder: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Rollout by Abnar and Zuidema's product of whole matrices, over the elements and the learned latents as nodes.

    Returns the output's shares (B, M), not scaled, and for each cross-attend the shares of the latents (B, N) after it.
    """
    batch, nodes = len(decoder), ELEMENTS + LATENTS
    identity = torch.eye(nodes, dtype=decoder.dtype).expand(batch, -1, -1)
    layers = []
    for weight in weights:
        layer = identity.clone()
        layer[:, ELEMENTS:, ELEMENTS:] *= 0.5
        layer[:, ELEMENTS:, : weight.shape[2]] += 0.5 * weight if weight.shape[2] == ELEMENTS else 0
        layer[:, ELEMENTS:, ELEMENTS:] += 0.5 * weight if weight.shape[2] == LATENTS else 0
        layers.append(layer)
    to_output = torch.cat([torch.zeros(batch, ELEMENTS, dtype=decoder.dtype), decoder], 1)[:, None]
    used = []
    for layer, weight in reversed(list(zip(layers, weights, strict=True))):
        if weight.shape[2] == ELEMENTS:
            used.append(to_output[:, 0, ELEMENTS:])
        to_output = to_output @ layer
    return to_output[:, 0, :ELEMENTS], used[::-1]


@pytest.mark.parametrize("options", [{}, {"decoder": "query", "decoder_heads": 2, "num_queries": 3}])
@pytest.mark.parametrize("kind", ["dense", "separable"])
def test_rollout_and_usage_are_those_of_whole_matrices(options, kind, monkeypatch):
    perceiver, given = model(**options), inputs()
    weights = all_weights(perceiver, given, monkeypatch)
    uniform = torch.full((3, LATENTS), 1 / LATENTS, dtype=torch.float64)
    decoder = weights.pop().mean(1) if options else uniform
    expected, used = brute_force(weights, decoder)
    perceiver.attention = kind
    monkeypatch.setattr(rollout_module, "CHUNK", 2 * 2 * 3 * ELEMENTS)  # two latents at a time
    seen = record(perceiver, given)

    maps = rollout(seen)
    assert {name: tuple(of.shape) for name, of in maps.items()} == {
        "image": (3, 6, 5),
        "sound": (3, 8),
        "points": (3, 7),
    }
    found = torch.cat([of.flatten(1) for of in maps.values()], 1)
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    assert maps["sound"][2].abs().max() == 0 < maps["sound"][0].min()  # masked; there

    torch.testing.assert_close(usage(seen), torch.stack([of / of.sum(1, keepdim=True) for of in used], 1))

    some = rollout(seen, latents=[3, 1])
    for place, row in enumerate([3, 1]):
        one_hot = torch.zeros(3, LATENTS, dtype=torch.float64)
        one_hot[:, row] = 1
        expected, _ = brute_force(weights, one_hot)
        found = torch.cat([of[:, place].flatten(1) for of in some.values()], 1)
        torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))


def test_entropy_is_that_of_the_maps(monkeypatch):
    perceiver, given = model(), inputs()
    maps = attention_maps(perceiver, given, 2)
    weights = torch.cat([of.weights.flatten(3) for of in maps.values()], -1)
    expected = -torch.where(weights > 0, weights * weights.log2(), 0).sum(-1)
    monkeypatch.setattr(rollout_module, "CHUNK", 1)
    torch.testing.assert_close(entropy(record(perceiver, given), 2), expected)
    even = model({"image": {"channels": 3, "resolution": [4, 4]}})
    for cross in even.cross_attends:
        torch.nn.init.zeros_(cross.attention.query.weight)
        torch.nn.init.zeros_(cross.attention.query.bias)
    bits = entropy(record(even, {"image": {"content": torch.randn(1, 4, 4, 3, dtype=torch.float64)}}))
    torch.testing.assert_close(bits, torch.full((1, 2, LATENTS), 4.0, dtype=torch.float64))


def test_similarity_is_the_cosine():
    latents = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    found = similarity(latents)
    for b, i, j in ((0, 1, 2), (1, 3, 0), (1, 2, 2)):
        x, y = latents[b, i].tolist(), latents[b, j].tolist()
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        assert found[b, i, j].item() == pytest.approx(dot / math.hypot(*x) / math.hypot(*y), abs=1e-5)


def test_an_example_without_elements_gets_nothing():
    perceiver = model({"sound": {"channels": 1, "resolution": [8]}})
    mask = torch.tensor([[True] * 8, [False] * 8])
    given = {"sound": {"content": torch.randn(2, 8, 1, dtype=torch.float64), "mask": mask}}
    found = rollout(record(perceiver, given))["sound"].sum(1)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.xdist_group("memory")
def test_memory_is_bounded_whatever_the_resolution(monkeypatch):
    """64 latents' weights on 256 x 256 pixels are 64 MiB; a few latents' at a time are not."""
    perceiver = model({"image": {"channels": 3, "resolution": [256, 256]}}, num_latents=64, cross_heads=4,
                      cross_qk_width=8, attention="separable")  # fmt: skip
    seen = record(perceiver.float(), {"image": {"content": torch.randn(1, 256, 256, 3)}})
    monkeypatch.setattr(rollout_module, "CHUNK", 2**18)  # one latent's, 1 MiB
    with LiveBytes() as memory:
        rollout(seen)
        entropy(seen)
    assert 2**20 < memory.most < 12 * 2**20


def test_no_latent_of_that_number():
    with pytest.raises(ValueError, match=r"latents is \[5\]: expected rows from 0 to 4"):
        rollout(record(model(), inputs()), latents=[5])
