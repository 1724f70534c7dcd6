"""What lies under a mask may be anything: it reaches neither outputs nor gradients nor maps of attention."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from randomly import randomise
from torch import Tensor, nn

from perceiver_lightning.analysis.attention.drawing import draw
from perceiver_lightning.analysis.attention.maps import attention_maps, record
from perceiver_lightning.analysis.attention.rollout import rollout
from perceiver_lightning.kernels.dispatch import use_backend
from perceiver_lightning.model import Ensemble, LateFusion, Perceiver

pytestmark = pytest.mark.xdist_group("compilers")  # in one process, which compiles each kind once

SMALL = {
    "num_latents": 3, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2, "bands": 2,
    "position_width": 3, "token_width": 4,
}  # fmt: skip
FACTS = {
    "grid": {"channels": 2, "resolution": [3, 4]},
    "places": {"channels": 1, "resolution": [5]},
    "points": {"channels": 0, "resolution": [4, 4, 4]},
    "shared": {"channels": 1, "resolution": [4, 4]},
    "tokens": {"vocabulary": 5, "resolution": [6]},
}
JUNK = [math.nan, math.inf, -math.inf, 1e30]


def batch(seed: int, names: list[str], junk: float) -> tuple[dict, dict]:
    """A batch with masks, zeros under them, and the same batch with junk under them: in content and positions."""
    torch.manual_seed(seed)
    mask = torch.rand(2, 3, 4) > 0.4
    mask[:, 1] = False  # a row that is nowhere
    clean, odd = {}, {}
    for name in names:
        if name == "grid":
            there, places = mask, [torch.rand(3), torch.rand(2, 4)]
            full = [there.any(2).any(0), there.any(1)]
        elif name == "places":
            there, places = torch.arange(5) < torch.tensor([[3], [0]]), [torch.rand(2, 5)]
            full = [there]
        elif name == "tokens":
            there, places, full = torch.rand(2, 6) > 0.5, None, None
        else:
            there = torch.rand(2, 7) > 0.5
            there[0] = True
            each = name == "points"
            places = torch.rand(*([2] if each else []), 7, len(FACTS[name]["resolution"]))
            full = there if each else there.any(0)
        if name == "tokens":
            content = torch.randint(5, (2, 6)) * there
            other = torch.where(there, content, -100)
        else:
            content = torch.randn(*there.shape, FACTS[name]["channels"], dtype=torch.float64) * there[..., None]
            other = torch.where(there[..., None], content, junk)
        clean[name], odd[name] = {"content": content, "mask": there}, {"content": other, "mask": there}
        if isinstance(places, Tensor):
            clean[name]["positions"] = places
            odd[name]["positions"] = torch.where(full[..., None], places, junk)
        elif places is not None:
            clean[name]["positions"] = places
            odd[name]["positions"] = [torch.where(own, along, junk) for own, along in zip(full, places, strict=True)]
    return clean, odd


def outcome(model: nn.Module, inputs: dict) -> list[Tensor]:
    """Output, and the gradients of all parameters and contents."""
    contents = [part["content"] for part in inputs.values() if part["content"].is_floating_point()]
    for content in contents:
        content.requires_grad_()
    output = model(inputs)
    wanted = [*model.parameters(), *contents]
    found = torch.autograd.grad(output.square().sum(), wanted, allow_unused=True)
    return [output, *(torch.zeros(()) if one is None else one for one in found)]


some_names = st.lists(st.sampled_from(list(FACTS)), min_size=1, unique=True)


@pytest.mark.slow
@given(some_names, st.sampled_from(JUNK), st.sampled_from(["dense", "separable", "auto"]),
       st.sampled_from(["fourier", "learned", "learned_axes"]), st.sampled_from(["one", "late", "ensemble"]),
       st.booleans(), st.integers(0, 99))  # fmt: skip
def test_no_junk_reaches_outputs_and_gradients(names, junk, attention, positions, kind, compiled, seed):
    facts = {name: FACTS[name] for name in names}
    options = {**SMALL, "attention": attention, "positions": positions}
    with use_backend("cpu" if compiled else "torch"):
        torch.manual_seed(0)
        model: nn.Module
        if kind == "one":
            model = Perceiver(facts, 2, **options)
        else:
            model = LateFusion(facts, 2, **options) if kind == "late" else Ensemble(2, facts, 2, **options)
        model = randomise(model.double())
        clean, odd = (outcome(model, inputs) for inputs in batch(seed, names, junk))
    for expected, found in zip(clean, odd, strict=True):
        assert torch.equal(expected, found) and found.isfinite().all()


@pytest.mark.parametrize("attention", ["dense", "separable"])
def test_no_junk_reaches_the_sum_of_all_modalities(attention):
    model = randomise(Perceiver(FACTS, 2, **SMALL, attention=attention).double())
    clean, odd = (outcome(model, inputs) for inputs in batch(1, list(FACTS), math.nan))
    for expected, found in zip(clean, odd, strict=True):
        assert torch.equal(expected, found) and found.isfinite().all()


@settings(max_examples=5)
@given(some_names, st.sampled_from(JUNK), st.integers(0, 99))
def test_no_junk_reaches_maps_of_attention(names, junk, seed):
    model = randomise(Perceiver({name: FACTS[name] for name in names}, 2, **SMALL).double())
    clean, odd = batch(seed, names, junk)
    seen = [rollout(record(model, inputs)) for inputs in (clean, odd)]
    maps = [attention_maps(model, inputs) for inputs in (clean, odd)]
    for name in names:
        pairs = [[one[name] for one in seen]]
        pairs += [[getattr(one[name], key) for one in maps] for key in ("weights", "content", "position")]
        for expected, found in pairs:
            assert torch.equal(expected, found) and found.isfinite().all()


@pytest.mark.parametrize("junk", [math.nan, math.inf])
def test_what_is_drawn_shows_no_junk(junk):
    model = randomise(Perceiver({"grid": {"channels": 3, "resolution": [3, 4]}}, 2, **SMALL).double())
    pixels, mask = torch.rand(1, 3, 4, 3, dtype=torch.float64), torch.ones(1, 3, 4, dtype=torch.bool)
    mask[0, 1, 2] = False
    pictures = []
    for under in (0, junk):
        figure = draw(model, {"grid": {"content": torch.where(mask[..., None], pixels, under), "mask": mask}})["grid"]
        pictures.append([image.get_array() for axes in figure.axes for image in axes.images])
    for expected, found in zip(*pictures, strict=True):
        assert (expected == found).all()


def test_without_a_mask_nothing_is_copied():
    model = Perceiver({"wave": {"channels": 1, "resolution": [4]}}, 2, **SMALL)
    content = torch.randn(2, 4, 1)
    assert model.inputs({"wave": {"content": content}}).parts[0].content is content
