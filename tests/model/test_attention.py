import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from randomly import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_lightning.analysis.costs import FusedAttention
from perceiver_lightning.kernels import plain_attention as attention_module
from perceiver_lightning.kernels.plain_attention import attend, to_multiple_of_8
from perceiver_lightning.model.attention import MLP, Attention, CrossAttend, Dense, SelfAttend
from perceiver_lightning.model.inputs import InputArray, Part

sizes = st.integers(1, 4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention by its definition, one query at a time, over the elements that are there."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b in range(q.shape[0]):
        there = torch.ones(k.shape[2], dtype=torch.bool) if mask is None else mask[b]
        if not there.any():
            continue
        for h in range(q.shape[1]):
            for n in range(q.shape[2]):
                logits = k[b, h][there] @ q[b, h, n] / math.sqrt(q.shape[-1])
                weights = (logits - logits.max()).exp()
                out[b, h, n] = (weights / weights.sum()) @ v[b, h][there]
    return out


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(1, 19), st.integers(1, 19), st.booleans(), st.integers(0, 99))
def test_attend_is_softmax_attention(batch, heads, queries, elements, width, value_width, masked, seed):
    """In float64, which a CPU gives to the fused kernel, and in float32, of which so few are plain."""
    q, k = normal(batch, heads, queries, width, seed=seed), 2 * normal(batch, heads, elements, width, seed=seed + 1)
    v = normal(batch, heads, elements, value_width, seed=seed + 2)
    mask = normal(batch, elements, seed=seed + 3) > 0 if masked else None
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        q, k, v = (x.to(dtype) for x in (q, k, v))
        out = attend(q, k, v, mask)
        assert out.dtype == dtype
        expected = plain_attend(q.double(), k.double(), v.double(), mask)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("masked", [False, True])
def test_plain_and_fused_attention_have_the_same_gradients(masked, monkeypatch):
    mask = torch.tensor([[True, False, True, True, True], [False] * 5]) if masked else None
    given = [normal(2, 3, rows, 9, seed=rows).float().requires_grad_() for rows in (4, 5, 5)]
    found = []
    for limit in (0, 2 * 3 * 4 * 5):
        monkeypatch.setitem(attention_module.PLAIN_LOGITS, torch.float32, limit)
        found.append(torch.autograd.grad(attend(*given, mask).square().sum(), given))
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_bfloat16_costs_attention_half_a_percent_and_no_more(limit, monkeypatch):
    """Fused or plain; logits of some tens rounded to bfloat16 would cost 1.3 % of the result, 2.5 of gradients."""
    monkeypatch.setitem(attention_module.PLAIN_LOGITS, torch.bfloat16, limit)
    given = [(3 * normal(2, 2, 128, 64, seed=seed)).bfloat16().requires_grad_() for seed in range(3)]
    weight = normal(2, 2, 128, 64, seed=3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*given)
    found = [out, *torch.autograd.grad(out, given, weight)]
    exact = [x.detach().double().requires_grad_() for x in given]
    out = torch.softmax(exact[0] @ exact[1].mT / 8, -1) @ exact[2]
    for ours, true in zip(found, [out, *torch.autograd.grad(out, exact, weight.double())], strict=True):
        assert (ours - true).norm() < 0.007 * true.norm()


@pytest.mark.parametrize(("limit", "plain"), [(2 * 3 * 4 * 5 - 1, False), (2 * 3 * 4 * 5, True)])
@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16), ("meta", torch.float32)])
def test_plain_attention_keeps_its_weights_in_the_dtype_of_its_products(limit, plain, device, dtype, monkeypatch):
    """Under autocast; and on the meta device, which stands for a machine's best: a summary counts them too."""
    monkeypatch.setitem(attention_module.PLAIN_LOGITS, dtype, limit)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    attention, kept = Attention(6, 6, 3, 24, 24).to(device), []
    q, k = torch.zeros(2, 4, 6, device=device), torch.zeros(2, 5, 6, device=device)
    keep = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append((x.shape, x.dtype)), lambda x: x)
    with keep, FusedAttention(), torch.autocast("cpu", torch.bfloat16):
        attention(q, k)
    assert {of for shape, of in kept if shape.numel() == 2 * 3 * 4 * 5} == ({dtype} if plain else set())


def test_plain_attention_refuses_second_order_gradients_in_words():
    given = [normal(1, 1, 3, 4, seed=seed).float().requires_grad_() for seed in range(3)]
    gradients = torch.autograd.grad(attend(*given).sum(), given[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second-order gradients: expected a first-order"):
        gradients[0].sum().backward()


def test_what_is_masked_cannot_be_seen():
    q, k, v = normal(2, 1, 3, 4), normal(2, 1, 5, 4, seed=1), normal(2, 1, 5, 4, seed=2)
    mask = torch.tensor([[True, True, False, True, False]] * 2)
    other_k, other_v = k.clone(), v.clone()
    other_k[:, :, ~mask[0]], other_v[:, :, ~mask[0]] = 1e3, -1e3
    assert torch.equal(attend(q, k, v, mask), attend(q, other_k, other_v, mask))
    assert not torch.allclose(attend(q, k, v), attend(q, other_k, other_v))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_row_with_nothing_to_attend_to_gives_zeros_and_no_gradient(dtype):
    q, k, v = (normal(2, 2, 3, 5, seed=seed).to(dtype).requires_grad_() for seed in range(3))
    mask = torch.tensor([[False] * 3, [True, False, True]])
    out = attend(q, k, v, mask)
    assert out.dtype == dtype
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    out.square().sum().backward()
    for x in (q, k, v):
        assert x.grad.isfinite().all()
        assert torch.equal(x.grad[0], torch.zeros_like(x.grad[0]))
        assert x.grad[1].abs().sum() > 0


def test_width_261_reaches_the_kernel_as_264_with_the_scale_of_261(monkeypatch):
    seen = []
    kernel = F.scaled_dot_product_attention

    def spy(q, k, v, mask=None, **options):
        seen.append((q.shape[-1], k.shape[-1], v.shape[-1], options))
        return kernel(q, k, v, mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    q, k, v = normal(1, 2, 3, 261), normal(1, 2, 7, 261, seed=1), normal(1, 2, 7, 261, seed=2)
    out = attend(q, k, v)
    assert seen == [(264, 264, 264, {"scale": 261**-0.5})]
    torch.testing.assert_close(out, plain_attend(q, k, v), rtol=0, atol=1e-12)
    assert attend(*(x.to("meta") for x in (q, k, v))).shape == (1, 2, 3, 261)


@pytest.mark.parametrize(("width", "filled"), [(1, 8), (8, 8), (9, 16), (261, 264)])
def test_widths_are_filled_up_with_zeros_to_a_multiple_of_8(width, filled):
    x = normal(2, width)
    out = to_multiple_of_8(x)
    assert out.shape == (2, filled)
    assert torch.equal(out[:, :width], x) and not out[:, width:].any()


@pytest.mark.parametrize(("heads", "qk_width", "v_width"), [(1, 6, 6), (2, 6, 10), (3, 12, 3)])
def test_each_head_has_its_slice_of_the_widths(heads, qk_width, v_width):
    attention = randomise(Attention(4, 5, heads, qk_width, v_width).double())
    queries, inputs = normal(2, 3, 4), normal(2, 6, 5, seed=1)
    q, k, v = attention.query(queries), attention.key(inputs), attention.value(inputs)
    found = []
    for head in range(heads):
        qk = slice(head * qk_width // heads, (head + 1) * qk_width // heads)
        of_v = slice(head * v_width // heads, (head + 1) * v_width // heads)
        found.append(plain_attend(q[:, None, :, qk], k[:, None, :, qk], v[:, None, :, of_v])[:, 0])
    torch.testing.assert_close(attention(queries, inputs), attention.output(torch.cat(found, -1)), rtol=0, atol=1e-12)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    return scaled * norm.weight + norm.bias


def mlp(layers: MLP, x: Tensor) -> Tensor:
    hidden = x @ layers[0].weight.T + layers[0].bias
    return hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2 @ layers[2].weight.T + layers[2].bias


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_cross_attend_by_its_formula(residual, masked):
    cross = randomise(CrossAttend(4, 6, heads=2, widening=3, residual=residual).double())
    queries, content = normal(2, 3, 4), normal(2, 5, 6, seed=1)
    mask = torch.tensor([[True, False, True, True, False], [False] * 5]) if masked else None
    found = cross.attention(layer_norm(cross.norm_queries, queries), layer_norm(cross.norm_inputs, content), mask)
    x = queries + found if residual else found
    expected = x + mlp(cross.mlp, layer_norm(cross.norm_mlp, x))
    out = cross(queries, Dense(InputArray([Part(content, mask=mask)])))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    if masked and residual:  # a query that finds nothing keeps what it is, but for the output's bias and the MLP
        x = queries[1] + cross.attention.output.bias
        torch.testing.assert_close(out[1], x + cross.mlp(cross.norm_mlp(x)), rtol=0, atol=1e-12)


def test_self_attend_by_its_formula():
    layer = randomise(SelfAttend(8, heads=2, widening=2).double())
    latents = normal(2, 3, 8)
    normed = layer_norm(layer.norm, latents)
    x = latents + layer.attention(normed, normed)
    expected = x + mlp(layer.mlp, layer_norm(layer.norm_mlp, x))
    torch.testing.assert_close(layer(latents), expected, rtol=0, atol=1e-12)


def test_widths_follow_from_the_input_or_are_given():
    cross = CrossAttend(4, 6)
    assert cross.attention.key.weight.shape == (6, 6) and cross.attention.value.weight.shape == (6, 6)
    cross = CrossAttend(4, 6, qk_width=10)
    assert cross.attention.key.weight.shape == (10, 6) and cross.attention.value.weight.shape == (10, 6)
    layer = SelfAttend(8, qk_width=16, v_width=24)
    assert layer.attention.query.weight.shape == (16, 8) and layer.attention.value.weight.shape == (24, 8)
    assert layer.attention.output.weight.shape == (8, 24)


def test_dropout_is_in_training_only_and_on_both_branches():
    cross, layer = CrossAttend(8, 6, dropout=1.0).double(), SelfAttend(8, dropout=1.0).double()
    queries, inputs = normal(2, 3, 8), Dense(InputArray([Part(normal(2, 5, 6, seed=1))]))
    assert torch.equal(cross(queries, inputs), queries) and torch.equal(layer(queries), queries)
    cross.eval(), layer.eval()
    assert not torch.allclose(cross(queries, inputs), queries) and not torch.allclose(layer(queries), queries)
