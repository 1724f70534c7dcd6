import math

import pytest
import torch
from attention_oracle import normal, plain_attend
from randomly import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_lightning.analysis.costs import FusedAttention
from perceiver_lightning.kernels import plain_attention
from perceiver_lightning.model.attention import MLP, Attention, CrossAttend, Dense, SelfAttend
from perceiver_lightning.model.inputs import InputArray, Part


@pytest.mark.parametrize(("limit", "plain"), [(2 * 3 * 4 * 5 - 1, False), (2 * 3 * 4 * 5, True)])
@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16), ("meta", torch.float32)])
def test_plain_attention_keeps_its_weights_in_the_dtype_of_its_products(limit, plain, device, dtype, monkeypatch):
    """Under autocast; and on the meta device, which stands for a machine's best: a summary counts them too."""
    monkeypatch.setitem(plain_attention.PLAIN_LOGITS, dtype, limit)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    attention, kept = Attention(6, 6, 3, 24, 24).to(device), []
    q, k = torch.zeros(2, 4, 6, device=device), torch.zeros(2, 5, 6, device=device)
    keep = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append((x.shape, x.dtype)), lambda x: x)
    with keep, FusedAttention(), torch.autocast("cpu", torch.bfloat16):
        attention(q, k)
    assert {kind for shape, kind in kept if shape.numel() == 2 * 3 * 4 * 5} == ({dtype} if plain else set())


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


def test_latents_see_of_each_other_what_a_mask_shows():
    """Under a causal mask a latent depends on itself and on those before it, and on no other."""
    layer = randomise(SelfAttend(8, heads=2).double())
    latents = normal(2, 5, 8).requires_grad_()
    causal = torch.ones(1, 5, 5, dtype=torch.bool).tril()
    out = layer(latents, causal)
    torch.testing.assert_close(out[:, :1], layer(latents[:, :1]))  # the first sees itself alone
    torch.testing.assert_close(out[:, 4], layer(latents)[:, 4])  # and the last sees all
    for row in range(5):
        (gradient,) = torch.autograd.grad(out[:, row].square().sum(), latents, retain_graph=True)
        reached = gradient.abs().amax((0, 2)) > 0
        assert reached.tolist() == [column <= row for column in range(5)]
    torch.testing.assert_close(layer(latents, causal.expand(2, -1, -1)), out)


def test_the_attention_of_a_causal_mask_is_torch_s():
    attention = randomise(Attention(8, 8, 2, 12, 6).double())
    x = normal(3, 5, 8)
    q, k, v = (
        layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (attention.query, attention.key, attention.value)
    )
    expected = attention.output(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
    mask = torch.ones(3, 5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(attention(x, x, mask), expected, rtol=0, atol=1e-12)
