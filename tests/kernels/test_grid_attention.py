import functools
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad, gradcheck
from torch.utils.flop_counter import FlopCounterMode

from perceiver_lightning.kernels import cpu, dispatch, torch_blocks
from perceiver_lightning.kernels.dispatch import use_backend
from perceiver_lightning.kernels.grid_attention import grid_attention

pytestmark = pytest.mark.xdist_group("compilers")  # in one process, which compiles each kind once

BACKENDS = ["cpu", "torch"]
sizes = st.integers(1, 6)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Each backend, in blocks so small that there are many."""
    monkeypatch.setattr(torch_blocks, "BLOCK_BYTES", {"cpu": 256})
    monkeypatch.setattr(cpu, "COMPILED_ROW_BYTES", 256)
    with use_backend(request.param):
        yield request.param


def example(batch, queries, channels, rows, columns, seed=0, spread=1.0, dtype=torch.float64) -> list[Tensor]:
    """Queries, rows, columns, content, scale."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, queries, channels), (batch, queries, rows), (batch, queries, columns)]
    given = [spread * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    given.append(torch.randn(batch, channels, rows, columns, generator=generator, dtype=torch.float64))
    given.append(torch.rand(batch, rows, columns, generator=generator, dtype=torch.float64) + 0.5)
    return [x.to(dtype).requires_grad_() for x in given]


def materialised(queries, rows, columns, content, scale) -> tuple[Tensor, ...]:
    """The same by its definition, with all logits at once."""
    axes = scale[:, None] * (rows[..., None] + columns[:, :, None])
    logits = torch.einsum("brk,bkij->brij", queries, content) + axes
    weights = logits.flatten(2).softmax(-1).view_as(logits)
    scaled = weights * scale[:, None]
    sums = torch.einsum("brij,bkij->brk", weights, content)
    return sums, scaled.sum(-1), scaled.sum(-2), logits.flatten(2).logsumexp(-1)


def results_and_gradients(function, given: list[Tensor]) -> list[Tensor]:
    results = function(*given)
    weights = [torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x) for x in results]
    loss = sum((x * weight).sum() for x, weight in zip(results, weights, strict=True))
    return [*results, *torch.autograd.grad(loss, given)]


@given(
    sizes, sizes, st.sampled_from([1, 2, 3, 17]), sizes, sizes, st.sampled_from([0.1, 1.0, 300.0]), st.integers(0, 999)
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_softmax_over_the_materialised_logits(backend, batch, queries, channels, rows, columns, spread, seed):
    with pytest.MonkeyPatch.context() as patch, use_backend(backend):
        patch.setattr(torch_blocks, "BLOCK_BYTES", {"cpu": 256})
        patch.setattr(cpu, "COMPILED_ROW_BYTES", 256)
        given = example(batch, queries, channels, rows, columns, seed, spread)
        found = results_and_gradients(grid_attention, given)
    expected = results_and_gradients(materialised, given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spread", [1, 30, 3000])
def test_float32_is_as_good_as_the_materialised_one(backend, spread):
    """Where one element has all the weight too: each of its gradients is the small difference of two large terms."""
    exact = results_and_gradients(materialised, example(2, 40, 3, 33, 70, spread=spread))
    ours = results_and_gradients(grid_attention, example(2, 40, 3, 33, 70, spread=spread, dtype=torch.float32))
    theirs = results_and_gradients(materialised, example(2, 40, 3, 33, 70, spread=spread, dtype=torch.float32))
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert (mine - true).abs().max() < 4 * (other - true).abs().max() + 1e-6


def test_the_compiled_exponential_is_right_to_the_last_places():
    """Of two elements, the second's weight is 1 / (1 + e^-x): the exponential shows in it for all x."""
    x = torch.linspace(-87, 0, 100_001)
    one = torch.ones(1, len(x), 1)
    content, scale = torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1, 1, 2)
    with use_backend("cpu"):
        sums, *_ = grid_attention(x[None, :, None], one * 0, torch.zeros(1, len(x), 2), content, scale)
    expected = x.double().exp() / (1 + x.double().exp())
    assert ((sums[0, :, 0] - expected) / expected).abs().max() < 1e-6


def test_any_number_of_threads_gives_the_same():
    given = example(3, 37, 3, 9, 20)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 4):
            torch.set_num_threads(count)
            with use_backend("cpu"):
                found.append(results_and_gradients(grid_attention, given))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, four) for one, four in zip(*found, strict=True))


def test_gradcheck(backend):
    given = example(2, 3, 2, 3, 4)
    assert gradcheck(grid_attention, given)
    assert gradcheck(grid_attention, [*given[:3], *(x.detach() for x in given[3:])])  # without those to the content
    assert gradcheck(grid_attention, example(1, 2, 17, 3, 1))  # more channels than C++ pays for


def test_second_order_gradients_are_refused_in_words(backend):
    given = example(1, 2, 2, 3, 3)
    gradients = torch.autograd.grad(grid_attention(*given)[0].sum(), given[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second-order gradients: expected a first-order"):
        gradients[0].sum().backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own forward mode uses it
def test_forward_mode_is_refused_where_it_would_find_nothing(backend):
    given = example(1, 2, 2, 3, 3)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        grid_attention(*given[:3], forward_ad.make_dual(given[3], given[3]), given[4])


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap runs our operation once for each example
def test_each_example_s_own_gradients_by_torch_func(backend):
    given = example(3, 2, 2, 3, 4)

    def loss(*of_one: Tensor) -> Tensor:
        return sum(x.square().sum() for x in grid_attention(*(x[None] for x in of_one)))

    for count in (5, 3):  # without gradients to the content too
        found = torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(count))))(*(x.detach() for x in given))
        expected = torch.autograd.grad(sum(x.square().sum() for x in grid_attention(*given)), given[:count])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_not_even_around_the_backward_pass(backend, dtype):
    given = example(2, 3, 3, 5, 6, dtype=torch.float32)
    expected = results_and_gradients(grid_attention, given)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(results_and_gradients(grid_attention, given), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rows", torch.zeros(2, 3, 4)),
        ("columns", torch.zeros(2, 2, 5, dtype=torch.float64)),
        ("content", torch.zeros(2, 4, 4, 6, dtype=torch.float64)),
        ("scale", torch.zeros(2, 4, 6, dtype=torch.float64)),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(name, wrong):
    names = ["queries", "rows", "columns", "content", "scale"]
    given = dict(zip(names, example(2, 3, 3, 4, 5), strict=True)) | {name: wrong}
    with pytest.raises(ValueError, match=rf"{name}: expected \(2, .*float64, found \(2, .*\) of {wrong.dtype}"):
        grid_attention(*given.values())


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4, dtype=torch.float16), torch.zeros(3, 4)])
def test_other_queries_are_refused_in_words(wrong):
    found = rf"found \({'2, ' if wrong.ndim == 3 else ''}3, 4\) of {wrong.dtype}"
    with pytest.raises(ValueError, match=rf"queries: expected \(B, R, K\) of float32 or float64, {found}"):
        grid_attention(wrong, *example(2, 3, 3, 4, 5)[1:])


def test_what_does_not_lie_in_a_row_in_memory_gives_the_same(backend):
    given = example(2, 3, 3, 5, 6)
    expected = results_and_gradients(grid_attention, given)
    strided = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in given]
    assert not any(x.is_contiguous() for x in strided)
    torch.testing.assert_close(results_and_gradients(grid_attention, strided), expected)


def test_a_batch_of_none_is_one_of_none(backend):
    assert [x.shape[0] for x in results_and_gradients(grid_attention, example(0, 2, 3, 4, 5))] == [0] * 9


def test_torch_knows_shapes_of_the_operations(backend):
    tests = ("test_schema", "test_faketensor")
    given = tuple(x.detach() for x in example(2, 3, 2, 4, 5))
    torch.library.opcheck(torch.ops.perceiver.grid_attention, given, test_utils=tests)
    *results, log_sums = grid_attention(*given)
    more = (*given, log_sums, log_sums, *results)
    for operation in (torch.ops.perceiver.grid_attention_backward, torch.ops.perceiver.grid_attention_backward_content):
        torch.library.opcheck(operation, more, test_utils=tests)


@pytest.mark.slow
def test_it_can_be_compiled_into_one_graph(backend):
    given = example(1, 3, 2, 4, 5)
    whole = torch.compile(lambda *x: grid_attention(*x)[0] * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(*given), grid_attention(*given)[0] * 2)


def test_no_array_has_an_entry_for_each_logit(backend):
    """What is kept between the passes is what goes in and what comes out."""
    given = example(1, 50, 3, 30, 40)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        grid_attention(*given)
    assert kept and max(kept) < 50 * 30 * 40 / 8


def test_flops_are_counted():
    given = [x.detach().to("meta").requires_grad_() for x in example(2, 3, 3, 5, 6)]
    logits = 2 * 3 * 5 * 6
    with FlopCounterMode(display=False) as counter:
        results = grid_attention(*given)
        assert counter.get_total_flops() == logits * 2 * (2 * (3 + 1))  # K + 1 multiply-adds in, and as many out
        sum(x.sum() for x in results).backward()
    assert counter.get_total_flops() == logits * 2 * (2 + 3 + 4) * (3 + 1)


# The choice of a backend


def asked_of_the_compiler(monkeypatch) -> list[int]:
    """The channels for which C++ is asked, while there is none: torch operations run."""
    asked: list[int] = []
    monkeypatch.setattr(cpu, "compiled", lambda dtype, channels: asked.append(channels))
    return asked


def test_it_is_compiled_only_for_so_many_logits_and_so_few_channels_that_it_pays(monkeypatch):
    monkeypatch.setattr(cpu, "LEAST_COMPILED_LOGITS", 1200)
    asked = asked_of_the_compiler(monkeypatch)
    for channels, columns in ((1, 19), (2, 20), (17, 20), (16, 20)):
        sum(x.sum() for x in grid_attention(*example(1, 3, channels, 20, columns))).backward()
    assert asked == [2, 2, 2, 16, 16, 16]  # forward, and backward twice; not for 1,140 logits, not for 17 channels


def test_the_choice_can_be_overridden_and_is_free_again_after_that(monkeypatch):
    asked = asked_of_the_compiler(monkeypatch)
    monkeypatch.setattr(cpu, "LEAST_COMPILED_LOGITS", 1)
    with use_backend("torch"):
        grid_attention(*example(1, 3, 2, 4, 5))
        with use_backend(None):
            assert dispatch.choose(2, 60, "cpu") == "cpu" and dispatch.choose(2, 60, "cuda") == "torch"
        assert dispatch.choose(2, 60, "cpu") == "torch"
    assert not asked
    grid_attention(*example(1, 3, 2, 4, 5))
    assert asked == [2]
    with use_backend("cpu"), pytest.raises(RuntimeError, match="backend: expected a compiler that works for 'cpu'"):
        grid_attention(*example(1, 3, 2, 4, 5))
    with pytest.raises(ValueError, match="backend: expected torch, cpu or None, found 'gpu'"), use_backend("gpu"):
        pass
    assert dispatch.choose(2, 0, "cpu") == "torch"


@pytest.mark.parametrize(
    ("compiler", "options", "found"),
    [
        (None, [], "found; the environment variable CXX names one"),
        ("/no/such", [], "No such file or directory: '/no/such'"),
        ("sh", ["-c", "echo no room >&2; exit 1"], "sh says no room"),
    ],
)
def test_without_a_compiler_one_line_says_so_and_it_runs(compiler, options, found, monkeypatch, caplog):
    monkeypatch.setattr(cpu, "COMPILER", compiler)
    monkeypatch.setattr(cpu, "COMPILER_OPTIONS", options)
    monkeypatch.setattr(cpu, "LEAST_COMPILED_LOGITS", 0)
    for name in ("compiled", "say_once"):  # with nothing remembered
        monkeypatch.setattr(cpu, name, functools.cache(getattr(cpu, name).__wrapped__))
    with caplog.at_level(logging.WARNING):
        for channels in (2, 2, 3):
            given = example(1, 3, channels, 4, 5)
            torch.testing.assert_close(grid_attention(*given), materialised(*given))
    assert caplog.text.count("without its C++ part") == 1
    assert found in caplog.text


def test_without_openmp_one_line_says_that_it_runs_on_one_core(monkeypatch, caplog):
    """A compiler that refuses the option, as Apple's does, but compiles all else."""
    monkeypatch.setattr(cpu, "COMPILER", "sh")
    script = 'for x; do [ "$x" = -fopenmp ] && exit 1; done; exec c++ "$@"'
    monkeypatch.setattr(cpu, "COMPILER_OPTIONS", ["-c", script, "sh"])
    cpu.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        library = cpu.Compiled(torch.float64, 2)
    assert caplog.text.count("runs on one core: the compiler knows no OpenMP") == 1
    given = example(1, 3, 2, 4, 5)
    monkeypatch.setattr(cpu, "compiled", lambda *_: library)
    with use_backend("cpu"):
        torch.testing.assert_close(grid_attention(*given), materialised(*given))
