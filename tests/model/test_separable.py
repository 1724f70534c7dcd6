import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from randomly import randomise
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from perceiver_lightning.kernels import costs, cpu
from perceiver_lightning.kernels.dispatch import use_backend
from perceiver_lightning.model import Perceiver, separable
from perceiver_lightning.model.inputs import InputArray, Part
from perceiver_lightning.model.separable import Separable, is_cheaper, moments, rows_and_columns

pytestmark = pytest.mark.xdist_group("compilers")  # in one process, which compiles each kind once

IMAGE = {"image": {"channels": 3, "resolution": [6, 5]}}


@pytest.fixture(autouse=True, scope="module")
def compiled_at_any_size():
    """C++ for examples too small for it to pay."""
    with use_backend("cpu"):
        yield


def model(modalities=IMAGE, **options) -> Perceiver:
    torch.manual_seed(0)
    small = {
        "num_latents": 5,
        "latent_width": 8,
        "cross_attends": [1, 2],
        "self_attends": 1,
        "self_heads": 2,
        "bands": 3,
    }
    made = Perceiver(modalities, 4, **{**small, **options}).double()
    randomise(made)
    return made


def content(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def outputs_and_gradients(perceiver: Perceiver, kind: str, inputs: dict) -> list[Tensor]:
    """The output, and its gradients to all parameters and all content."""
    perceiver.attention = kind
    out = perceiver(inputs)
    loss = (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()
    asked = [*perceiver.parameters(), *(part["content"] for part in inputs.values())]
    # No gradient at all for the vector of a modality that is not there, and for content of no channels.
    found = torch.autograd.grad(loss, asked, allow_unused=True, materialize_grads=True)
    return [out, *(x for x in found if x.numel())]


def assert_same(perceiver: Perceiver, inputs: dict, tolerance: float = 1e-9) -> None:
    ours, theirs = (outputs_and_gradients(perceiver, kind, inputs) for kind in ("separable", "dense"))
    assert theirs[0].std() > 0.01
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * max(1, other.abs().max().item()))


@st.composite
def grids(draw):
    """Sizes of 1 to 4 axes, channels, and what the grid brings: a mask, positions of its own for all or for each."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return sizes, draw(st.sampled_from([0, 1, 3])), draw(st.booleans()), draw(st.sampled_from([None, "all", "each"]))


def grid_inputs(grid, batch: int, seed: int) -> dict:
    sizes, channels, masked, places = grid
    generator = torch.Generator().manual_seed(seed)
    given: dict = {"content": content(batch, *sizes, channels, seed=seed)}
    if masked:
        given["mask"] = torch.rand(batch, *sizes, generator=generator) > 0.4
        given["mask"][0] = False  # an example with nothing there
    if places:
        shape = (batch,) if places == "each" else ()
        given["positions"] = [torch.rand(*shape, size, generator=generator).double() * 2 - 1 for size in sizes]
    return given


@given(grids(), st.integers(1, 3), st.sampled_from([1, 2]), st.sampled_from(["fourier", "learned_axes", "learned"]),
       st.sampled_from([2, 99]), st.sampled_from([torch.float64, torch.float32]), st.booleans(),
       st.integers(0, 99))  # fmt: skip
def test_it_is_the_dense_attention_over_any_grid(grid, batch, heads, positions, piece, dtype, compiled, seed):
    facts = {"grid": {"channels": grid[1], "resolution": grid[0]}}
    perceiver = model(
        facts, cross_heads=heads, cross_qk_width=6, cross_v_width=4, positions=positions, position_width=3
    ).to(dtype)
    inputs = grid_inputs(grid, batch, seed)
    inputs["content"] = inputs["content"].detach().to(dtype).requires_grad_()
    with pytest.MonkeyPatch.context() as patch, use_backend("cpu" if compiled else "torch"):
        patch.setattr(separable, "PIECE", piece)
        assert_same(perceiver, {"grid": inputs}, 1e-9 if dtype == torch.float64 else 2e-3)


@pytest.mark.slow
@given(grids(), grids(), st.booleans(), st.integers(0, 99))
def test_several_modalities_share_one_softmax_and_one_layernorm(first, second, all_there, seed):
    facts = {
        "first": {"channels": first[1], "resolution": first[0]},
        "second": {"channels": second[1], "resolution": second[0]},
        "points": {"channels": 2, "resolution": [9, 9, 9]},
    }
    inputs = {"first": grid_inputs(first, 3, seed), "second": grid_inputs(second, 3, seed + 1)}
    if all_there:
        generator = torch.Generator().manual_seed(seed)
        inputs["points"] = {
            "content": content(3, 7, 2, seed=seed),
            "positions": torch.rand(3, 7, 3, generator=generator).double() * 2 - 1,
            "mask": torch.rand(3, 7, generator=generator) > 0.3,
        }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separable, "PIECE", 4)
        assert_same(model(facts, cross_qk_width=6), inputs)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_extreme_contents_and_logits(size):
    perceiver = model()
    with torch.no_grad():
        perceiver.cross_attends[0].attention.query.weight *= 30
    assert_same(perceiver, {"image": {"content": (size * content(2, 6, 5, 3)).detach().requires_grad_()}}, 1e-7)


def test_float32_and_bfloat16_autocast_are_near_the_exact_result():
    perceiver = model()
    pixels = content(2, 6, 5, 3).detach()
    perceiver.attention = "dense"
    exact = perceiver({"image": {"content": pixels}})
    perceiver.attention = "separable"
    single = perceiver.float()({"image": {"content": pixels.float()}})
    with torch.autocast("cpu", torch.bfloat16):
        half = perceiver({"image": {"content": pixels.float()}})
    assert (single - exact).abs().max() < 1e-4 * exact.abs().max()
    assert (half - exact).abs().max() < 0.1 * exact.abs().max()


def test_autocast_does_not_reach_the_logits():
    """Read in float32: the very result without autocast."""
    perceiver = model().float()
    array = perceiver.inputs({"image": {"content": content(2, 6, 5, 3).float()}})
    queries, cross = perceiver.latents.expand(2, -1, -1), perceiver.cross_attends[0]
    plain = Separable(array).read(queries, cross.norm_inputs, cross.attention)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain, Separable(array).read(queries, cross.norm_inputs, cross.attention))


def test_bfloat16_parameters_give_bfloat16():
    perceiver = model(attention="separable").bfloat16()
    assert perceiver({"image": {"content": content(2, 6, 5, 3).bfloat16()}}).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-8), (torch.float32, 5e-3)])
def test_it_trains_as_the_dense_attention_does(dtype, tolerance):
    """100 steps of AdamW from one seed, pixels through a learned projection: the same losses, from 21 to 0.6.

    In float32 they differ by 1.4e-3 at most.
    """
    losses = []
    for kind in ("dense", "separable"):
        perceiver = model({"image": {"channels": 2, "resolution": [6, 5]}}, attention=kind).to(dtype)
        project = torch.nn.Linear(3, 2).to(dtype)
        torch.nn.init.constant_(project.weight, 0.3)
        optimizer = torch.optim.AdamW([*perceiver.parameters(), *project.parameters()], lr=3e-3)
        pixels, labels = content(16, 6, 5, 3).detach().to(dtype), torch.arange(16) % 4
        losses.append([])
        for _ in range(100):
            loss = F.cross_entropy(perceiver({"image": {"content": project(pixels)}}), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    dense, separable_ = (torch.tensor(x) for x in losses)
    assert dense[-1] < 0.5 * dense[0]
    assert (dense - separable_).abs().max() < tolerance


def test_the_same_parameters_and_checkpoint():
    dense, other = model(attention="dense"), model(attention="separable", num_latents=5)
    assert [(name, x.shape) for name, x in dense.named_parameters()] == [
        (name, x.shape) for name, x in other.named_parameters()
    ]
    inputs = {"image": {"content": content(2, 6, 5, 3)}}
    randomise(dense, seed=1)
    assert (dense(inputs) - other(inputs)).abs().max() > 0.1
    other.load_state_dict(dense.state_dict())
    torch.testing.assert_close(other(inputs), dense(inputs), rtol=1e-9, atol=1e-9)


def test_the_keys_bias_takes_part_with_a_gradient_of_zero():
    perceiver = model(attention="separable")
    perceiver({"image": {"content": content(2, 6, 5, 3)}}).sum().backward()
    for cross in perceiver.cross_attends:
        assert torch.equal(cross.attention.key.bias.grad, torch.zeros_like(cross.attention.key.bias))
    assert all(parameter.grad is not None for parameter in perceiver.parameters())


def test_activation_checkpointing():
    perceiver = model(attention="separable")
    pixels = content(2, 6, 5, 3)
    plain = torch.autograd.grad(perceiver({"image": {"content": pixels}}).sum(), perceiver.latents)
    again = checkpoint(lambda x: perceiver({"image": {"content": x}}), pixels, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.sum(), perceiver.latents), plain)


@pytest.mark.slow
def test_compiled_by_torch(monkeypatch):
    monkeypatch.setattr(separable, "PIECE", 4)
    perceiver = model()
    pixels = content(2, 6, 5, 3)
    for kind in ("separable", "dense"):
        expected = outputs_and_gradients(perceiver, kind, {"image": {"content": pixels}})
        compiled = copy.deepcopy(perceiver)
        compiled.compile(backend="aot_eager", fullgraph=True)
        found = outputs_and_gradients(compiled, kind, {"image": {"content": pixels}})
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_compiled_by_torchs_own_compiler():
    perceiver = model(cross_attends=[1])
    inputs = {"image": {"content": content(2, 6, 5, 3)}}
    expected = outputs_and_gradients(perceiver, "separable", inputs)
    perceiver.compile()
    torch.testing.assert_close(outputs_and_gradients(perceiver, "separable", inputs), expected)


def test_what_does_not_depend_on_weights_is_computed_once(monkeypatch):
    calls = []
    monkeypatch.setattr(separable, "moments", lambda *args: calls.append(1) or moments(*args))
    model(attention="separable")({"image": {"content": content(2, 6, 5, 3)}})
    assert len(calls) == 1  # for three cross-attends


@pytest.mark.parametrize("positions", ["fourier", "learned"])
def test_of_one_long_axis_nothing_is_kept_that_has_an_entry_for_each_query_and_element(positions, monkeypatch):
    monkeypatch.setattr(separable, "PIECE", 50)
    facts = {"sound": {"channels": 1, "resolution": [1000]}}
    perceiver = model(facts, attention="separable", num_latents=64, positions=positions, position_width=16)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        perceiver({"sound": {"content": content(1, 1000, 1).detach()}})
    assert max(kept) < 64 * 1000 / 2  # the sums of 20 pieces have 22,000


def test_another_eps_of_the_layernorm_is_refused():
    perceiver = model(attention="separable")
    perceiver.cross_attends[0].norm_inputs.eps = 1e-3
    with pytest.raises(ValueError, match=r"eps of the LayerNorm over the inputs: expected 1e-05, found 0\.001"):
        perceiver({"image": {"content": content(2, 6, 5, 3)}})


def test_moments_are_those_of_the_materialised_array_for_large_values_too():
    tables = [content(6, 3, seed=1), content(5, 4, seed=2)]
    part = Part((1e4 + content(2, 6, 5, 3)).detach(), tables, modality=content(2, seed=3))
    array = part.materialised()
    mean, scale = moments(part.content.movedim(-1, 1), part.tables, part.modality, 1e-5)
    torch.testing.assert_close(mean.flatten(1), array.mean(-1), rtol=1e-12, atol=1e-12)
    expected = (array.var(-1, correction=0) + 1e-5).rsqrt()
    torch.testing.assert_close(scale.flatten(1), expected, rtol=1e-12, atol=1e-12)
    assert part.width == array.shape[-1]


@pytest.mark.parametrize("sizes, rows", [((7,), 1), ((224, 224), 1), ((16, 224, 224), 2), ((100, 100, 4), 1)])
def test_axes_are_grouped_so_that_rows_and_columns_are_few(sizes, rows):
    assert rows_and_columns(torch.Size(sizes)) == rows


def array(batch, *sizes, channels=3, bands=64, device="meta") -> InputArray:
    tables = [torch.empty(size, 2 * bands + 1, device=device) for size in sizes]
    return InputArray([Part(torch.empty(batch, *sizes, channels, device=device), tables)])


def measured_costs() -> dict:
    return json.loads(Path("benchmarks/results/attention_costs.json").read_text())


@pytest.fixture
def backend_as_chosen():
    with use_backend(None):
        yield


@pytest.mark.usefixtures("backend_as_chosen")
def test_auto_takes_what_costs_less():
    assert is_cheaper(array(1, 224, 224), 512, 1, 261, 261)  # the paper's
    assert is_cheaper(array(2, 1024, 1024), 128, 1, 64, 64)
    assert not is_cheaper(array(1, 14, 14, channels=768), 512, 8, 1024, 1024)  # patches, many heads
    assert not is_cheaper(array(16, 480, channels=128, bands=16), 64, 4, 64, 64)  # patches of sound
    assert is_cheaper(array(1, 16000, channels=1), 512, 1, 130, 130)  # raw sound
    assert not is_cheaper(array(1, 16000, channels=1), 128, 4, 64, 64)  # its one axis is as long as the grid
    points = InputArray([Part(torch.empty(8, 2000, 0, device="meta"), features=torch.empty(8, 2000, 387))])
    assert not is_cheaper(points, 128, 1, 64, 64)


@pytest.mark.usefixtures("backend_as_chosen")
@pytest.mark.parametrize("dtype", ["", ", bfloat16"])
def test_auto_takes_what_was_measured_to_be_faster_wherever_the_two_differ_by_a_half(dtype, monkeypatch):
    monkeypatch.setattr(cpu, "COMPILER", "c++")  # as it was there
    clear = 0
    for row in measured_costs()["rows"]:
        seconds = [row["seconds"][kind + dtype] for kind in ("separable", "dense")]
        given = array(row["batch"], *row["grid"], channels=row["channels"], bands=row["bands"])
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(dtype)):
            found = is_cheaper(given, row["latents"], row["heads"], row["width"], row["width"])
        if max(seconds) > 1.5 * min(seconds):
            clear += 1
            assert found == (seconds[0] < seconds[1]), row
    assert clear > 15


def test_prices_are_those_that_were_measured():
    assert measured_costs()["prices_ns"] == costs.PRICES["cpu"]


def test_auto_without_a_measurement_is_dense_until_it_would_take_too_much(monkeypatch):
    monkeypatch.setattr(costs, "PRICES", {})
    assert not is_cheaper(array(1, 224, 224), 512, 1, 261, 261)
    batch = math.ceil(costs.DENSE_BYTES / (224 * 224 * 2 * 261 * 4))
    assert is_cheaper(array(batch, 224, 224), 512, 1, 261, 261)


def test_auto_is_what_is_read(monkeypatch):
    perceiver = model(attention="auto")
    for choice in (True, False):
        monkeypatch.setattr("perceiver_lightning.model.perceiver.is_cheaper", lambda *_, choice=choice: choice)
        assert perceiver.is_separable(perceiver.inputs({"image": {"content": content(1, 6, 5, 3)}})) == choice


def test_another_kind_of_attention_is_refused():
    perceiver = model()
    for wrong in (lambda: model(attention="fast"), lambda: setattr(perceiver, "attention", "fast")):
        with pytest.raises(ValueError, match="attention: expected auto, dense or separable, found 'fast'"):
            wrong()


@pytest.mark.parametrize("kind", ["dense", "separable"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_content_is_brought_to_the_dtype_of_the_model(kind, dtype):
    perceiver = model(attention=kind).float()
    given = content(2, 6, 5, 3).detach().half()
    expected = perceiver({"image": {"content": given.float()}})
    torch.testing.assert_close(perceiver({"image": {"content": given.to(dtype)}}), expected, rtol=0, atol=0)
