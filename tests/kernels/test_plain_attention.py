import pytest
import torch
from attention_oracle import normal, plain_attend
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from perceiver_lightning.kernels import plain_attention
from perceiver_lightning.kernels.plain_attention import attend, to_multiple_of_8

sizes = st.integers(1, 4)


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
        monkeypatch.setitem(plain_attention.PLAIN_LOGITS, torch.float32, limit)
        found.append(torch.autograd.grad(attend(*given, mask).square().sum(), given))
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_bfloat16_costs_attention_half_a_percent_and_no_more(limit, monkeypatch):
    """Fused or plain; logits of some tens rounded to bfloat16 would cost 1.3 % of the result, 2.5 of gradients."""
    monkeypatch.setitem(plain_attention.PLAIN_LOGITS, torch.bfloat16, limit)
    given = [(3 * normal(2, 2, 128, 64, seed=seed)).bfloat16().requires_grad_() for seed in range(3)]
    weight = normal(2, 2, 128, 64, seed=3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*given)
    found = [out, *torch.autograd.grad(out, given, weight)]
    exact = [x.detach().double().requires_grad_() for x in given]
    out = torch.softmax(exact[0] @ exact[1].mT / 8, -1) @ exact[2]
    for ours, true in zip(found, [out, *torch.autograd.grad(out, exact, weight.double())], strict=True):
        assert (ours - true).norm() < 0.007 * true.norm()


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


# Masks for each query


@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize("batch_of_mask", [1, 2])
def test_a_causal_mask_is_that_of_torch_with_its_gradients(batch_of_mask, limit, monkeypatch):
    """By the fused kernel and by the plain one; against torch's own causal attention."""
    monkeypatch.setitem(plain_attention.PLAIN_LOGITS, torch.float32, limit)
    given = [normal(2, 3, 7, 9, seed=seed).float().requires_grad_() for seed in range(3)]
    mask = torch.ones(batch_of_mask, 7, 7, dtype=torch.bool).tril()
    weight = normal(2, 3, 7, 9, seed=3).float()
    ours, theirs = attend(*given, mask), F.scaled_dot_product_attention(*given, is_causal=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(*(torch.autograd.grad(x, given, weight) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@given(sizes, sizes, sizes, sizes, st.integers(0, 99))
def test_each_query_sees_what_its_mask_shows(batch, heads, queries, elements, seed):
    """Queries that may see nothing give zeros; the same for all queries is what a mask of two axes says."""
    q, k = normal(batch, heads, queries, 3, seed=seed), normal(batch, heads, elements, 3, seed=seed + 1)
    v = normal(batch, heads, elements, 5, seed=seed + 2)
    mask = normal(batch, queries, elements, seed=seed + 3) > 0.3
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        q, k, v = (x.to(dtype) for x in (q, k, v))
        expected = plain_attend(q.double(), k.double(), v.double(), mask)
        torch.testing.assert_close(attend(q, k, v, mask).double(), expected, rtol=0, atol=atol)
        torch.testing.assert_close(
            attend(q, k, v, mask[:1]), attend(q, k, v, mask[:1].expand_as(mask)), rtol=0, atol=atol
        )
        same = mask[:, :1].expand_as(mask)
        torch.testing.assert_close(attend(q, k, v, mask[:, 0]), attend(q, k, v, same), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_query_that_may_see_nothing_gives_zeros_and_no_gradient(dtype):
    q, k, v = (normal(1, 2, 3, 5, seed=seed).to(dtype).requires_grad_() for seed in range(3))
    mask = torch.tensor([[[False, False, False], [True, False, True], [False, True, False]]])
    out = attend(q, k, v, mask)
    assert not out[:, :, 0].any() and out[:, :, 1:].abs().min() > 0
    out.square().sum().backward()
    for x in (q, k, v):
        assert x.grad.isfinite().all()
    assert not q.grad[:, :, 0].any() and q.grad[:, :, 1].abs().sum() > 0


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (torch.ones(3, 5, dtype=torch.bool), r"\(3, 5\) of torch.bool"),  # of the queries: one axis too few
        (torch.ones(2, 5), r"\(2, 5\) of torch.float32"),
        (torch.ones(2, 1, 5, dtype=torch.bool), r"\(2, 1, 5\)"),
        (torch.ones(2, 4, 3, 5, dtype=torch.bool), r"\(2, 4, 3, 5\)"),
    ],
)
def test_another_mask_is_refused(mask, found):
    expected = r"mask: expected \(2, 5\), \(2, 3, 5\) or \(1, 3, 5\) of torch.bool"
    with pytest.raises(ValueError, match=f"{expected}, found {found}"):
        attend(*(torch.zeros(2, 4, rows, 6) for rows in (3, 5, 5)), mask)
