"""Softmax attention over a grid whose logits are separable: the inner step of `separable.py`.

For every query, with a = softmax over all (i, j) of

    logit(i, j) = queries . content(:, i, j) + scale(i, j) * (rows(i) + columns(j))

it returns the sums that are all that attention needs of a grid, and no array has an entry for each logit (but rows or
columns have where the other is a single one: `separable.py` cuts such grids into pieces):

    sums         sum_ij a(i, j) content(:, i, j)
    row_sums     sum_j  a(i, j) scale(i, j)
    column_sums  sum_i  a(i, j) scale(i, j)
    log_sums     log sum_ij exp(logit(i, j)), to merge parts that share one softmax

Forward, it walks over blocks of rows with the running maximum and sum of flash attention (arXiv 2205.14135). Backward,
it walks again: with g(i, j) = d_sums . content + scale (d_row_sums(i) + d_column_sums(j)), and mean the sum of gradient
times value over all that was returned, d_logit = a (g - mean + d_log_sums); every gradient is a sum like those above.
Where one element has nearly all the weight its g is nearly the mean, and their difference is lost to rounding. But the
sum of all d_logit is d_log_sums, so what is found beyond it is that rounding, and is taken back.

Two implementations of the same walk: torch operations for every device, and C++ for CPUs (`grid_attention.cpp`),
compiled at first use, in about a second, by the compiler that is there. It is many times faster, as a block's logits
never leave the cache. Without a compiler, for more than 16 channels, or for so few logits that it would take some
thousand steps to win that second back, the torch operations run.

Legend of shapes: B batch, R queries (of all heads), K content channels, I rows and J columns of the grid.
"""

import ctypes
import functools
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .attention import first_order, without_autocast

log = logging.getLogger(__name__)

_NAME, *COMPILER_OPTIONS = shlex.split(os.environ.get("CXX") or "c++")
COMPILER = shutil.which(_NAME)
MOST_COMPILED_CHANNELS = 16  # beyond, products of matrices win
LEAST_COMPILED_LOGITS = 2**16  # of a batch: for fewer, C++ saves about a millisecond or less, forward and backward
BLOCK_BYTES = {"cpu": 2**20}  # of logits, in torch operations: what a core's cache holds
OTHER_BLOCK_BYTES = 2**26  # on other devices: enough to fill them
COMPILED_ROW_BYTES = 2**16  # of content, in C++: a block of rows stays in the cache for all queries of a thread


def grid_attention(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend to a grid, as this module's docstring says, with gradients to all five arguments.

    Args:
        queries: (B, R, K), float32 or float64, as all of them.
        rows: (B, R, I).
        columns: (B, R, J).
        content: (B, K, I, J).
        scale: (B, I, J).

    Returns:
        sums (B, R, K), row_sums (B, R, I), column_sums (B, R, J), log_sums (B, R).

    Raises:
        ValueError: dtypes or shapes do not go together.
        NotImplementedError: for gradients of second order, and (by torch) for forward-mode differentiation.
    """
    if queries.ndim != 3 or queries.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"queries are {tuple(queries.shape)} of {queries.dtype}: expected (B, R, K) of float32 or float64"
        )
    given = {"queries": queries, "rows": rows, "columns": columns, "content": content, "scale": scale}
    (batch, count, channels), size_I, size_J = queries.shape, rows.shape[-1], columns.shape[-1]
    shapes = (
        (batch, count, channels), (batch, count, size_I), (batch, count, size_J),
        (batch, channels, size_I, size_J), (batch, size_I, size_J),
    )  # fmt: skip
    for (name, x), shape in zip(given.items(), shapes, strict=True):  # C++ reads what these say is there
        if x.shape != shape or x.dtype != queries.dtype:
            raise ValueError(f"{name} are {tuple(x.shape)} of {x.dtype}: expected {shape} of {queries.dtype}")
    return GridAttention.apply(*given.values())


class GridAttention(torch.autograd.Function):
    """`grid_attention` with its gradients, which are not registered with the operation itself: forward-mode
    differentiation would then find 0 without a word.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Tensor) -> Any:
        """What `grid_attention` returns."""
        return _attend(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the backward pass needs."""
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, d_sums: Tensor, d_row_sums: Tensor, d_column_sums: Tensor, d_log_sums: Tensor) -> Any:
        """The gradients of what was given."""
        *given, sums, row_sums, column_sums, log_sums = ctx.saved_tensors
        results = [sums, row_sums, column_sums]
        d_results = [d_sums, d_row_sums, d_column_sums]
        mean = sum((d * x).sum(-1) for d, x in zip(d_results, results, strict=True)) - d_log_sums
        *gradients, found = first_order(_gradients, *given, log_sums, mean, *d_results)
        excess = found - d_log_sums
        gradients = [x - excess[..., None] * result for x, result in zip(gradients, results, strict=True)]
        if not (ctx.needs_input_grad[3] or ctx.needs_input_grad[4]):
            return *gradients, None, None
        return *gradients, *first_order(_content_gradients, *given, log_sums, mean + excess, *d_results)


@torch.library.custom_op("perceiver::grid_attention", mutates_args=())
def _attend(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if library := compiled(queries, rows, columns):
        out = _empty_results(queries, rows, columns)
        library.run("forward", [queries, rows, columns, content, scale], out)
        return out
    sums, row_sums, column_sums, log_sums = by_examples(attend_by_blocks, (queries, rows, columns, content, scale))
    return sums, row_sums, column_sums, log_sums


@_attend.register_fake
def _empty_results(queries: Tensor, rows: Tensor, columns: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape),
        rows.new_empty(rows.shape),
        columns.new_empty(columns.shape),
        queries.new_empty(queries.shape[:2]),
    )


@torch.library.custom_op("perceiver::grid_attention_backward", mutates_args=())
def _gradients(
    queries: Tensor,
    rows: Tensor,
    columns: Tensor,
    content: Tensor,
    scale: Tensor,
    log_sums: Tensor,
    mean: Tensor,
    d_sums: Tensor,
    d_row_sums: Tensor,
    d_column_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of queries, rows and columns, and the sums (B, R) of those of the logits."""
    given = [queries, rows, columns, content, scale, log_sums, mean, d_sums, d_row_sums, d_column_sums]
    if library := compiled(queries, rows, columns):
        out = _empty_results(queries, rows, columns)
        library.run("backward", given, out)
        return out
    d_queries, d_rows, d_columns, total = by_examples(gradients_by_blocks, given)
    return d_queries, d_rows, d_columns, total


_gradients.register_fake(_empty_results)


@torch.library.custom_op("perceiver::grid_attention_backward_content", mutates_args=())
def _content_gradients(
    queries: Tensor,
    rows: Tensor,
    columns: Tensor,
    content: Tensor,
    scale: Tensor,
    log_sums: Tensor,
    mean: Tensor,
    d_sums: Tensor,
    d_row_sums: Tensor,
    d_column_sums: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients of content and scale."""
    given = [queries, rows, columns, content, scale, log_sums, mean, d_sums, d_row_sums, d_column_sums]
    if library := compiled(queries, rows, columns):
        out = _empty_content_gradients(*given)
        library.run("backward_content", given, out)
        return out
    d_content, d_scale = by_examples(content_gradients_by_blocks, given)
    return d_content, d_scale


@_content_gradients.register_fake
def _empty_content_gradients(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor]:
    return content.new_empty(content.shape), scale.new_empty(scale.shape)


@register_flop_formula(torch.ops.perceiver.grid_attention)
def _flops(queries: Any, rows: Any, columns: Any, *_: Any, **__: Any) -> int:
    """A logit takes K + 1 multiply-adds, and the sums as many; the axes' terms are products outside."""
    batch, count, channels = queries
    return 2 * 2 * (channels + 1) * batch * count * rows[-1] * columns[-1]


@register_flop_formula(torch.ops.perceiver.grid_attention_backward)
def _backward_flops(*given: Any, **__: Any) -> int:
    """The logits and their gradients, and the sums."""
    return _flops(*given) // 2 * 3


@register_flop_formula(torch.ops.perceiver.grid_attention_backward_content)
def _content_backward_flops(*given: Any, **__: Any) -> int:
    """The logits and their gradients again, and a product of each with the queries or their gradients."""
    return _flops(*given) // 2 * 4


def blocks_of(given: Sequence[Tensor]) -> tuple[int, int]:
    """How many examples and how many rows of the grid are worked on at once by torch operations."""
    queries, rows, columns, *_ = given
    (batch, count, size_I), size_J = rows.shape, columns.shape[-1]
    logits = BLOCK_BYTES.get(queries.device.type, OTHER_BLOCK_BYTES) // queries.element_size()
    examples = max(1, min(batch, logits // (count * size_I * size_J)))
    return examples, min(size_I, max(1, logits // (examples * count * size_J)))


def by_examples(function: Callable[..., Sequence[Tensor]], given: Sequence[Tensor]) -> Sequence[Tensor]:
    """What a function gives for as many examples as are worked on at once, one after the other.

    Without autocast, which may be on in the backward pass too, and whose logits would not be those of the forward pass.
    """
    examples, _ = blocks_of(given)
    with without_autocast(given[0].device.type):
        if examples >= len(given[0]):
            return function(*given)
        parts = [function(*part) for part in zip(*(x.split(examples) for x in given), strict=True)]
        return [torch.cat(part) for part in zip(*parts, strict=True)]


def attend_by_blocks(
    queries: Tensor, rows: Tensor, columns: Tensor, content: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`grid_attention` in torch operations, without gradients."""
    _, height = blocks_of((queries, rows, columns))
    top = torch.full_like(queries[..., :1], torch.finfo(queries.dtype).min)
    total, sums = torch.zeros_like(top), torch.zeros_like(queries)
    row_sums, column_sums = torch.zeros_like(rows), torch.zeros_like(columns)
    for begin in range(0, rows.shape[-1], height):
        block = slice(begin, begin + height)
        c, r = content[:, :, block], scale[:, None, block]
        u = (queries @ c.flatten(2)).unflatten(-1, c.shape[2:])
        u += r * (rows[..., block, None] + columns[:, :, None])
        new = torch.maximum(top, u.amax((-2, -1))[..., None])
        decay, top = (top - new).exp_(), new
        a = u.sub_(top[..., None]).exp_()
        total = total * decay + a.sum((-2, -1))[..., None]
        sums = sums * decay + a.flatten(2) @ c.flatten(2).mT
        a *= r
        row_sums *= decay
        row_sums[..., block] = a.sum(-1)
        column_sums = column_sums * decay + a.sum(-2)
    return sums / total, row_sums / total, column_sums / total, (top + total.log())[..., 0]


def gradients_by_blocks(*given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_gradients` gives, in torch operations."""
    queries, rows, columns, content, scale, *_ = given
    d_queries, d_rows, d_columns, total = (torch.zeros_like(x) for x in _empty_results(queries, rows, columns))
    for block, _, d_logit, _, _ in walk_backward(*given):
        total += d_logit.sum((-2, -1))
        d_queries += d_logit.flatten(2) @ content[:, :, block].flatten(2).mT
        d_logit *= scale[:, None, block]
        d_rows[..., block] = d_logit.sum(-1)
        d_columns += d_logit.sum(-2)
    return d_queries, d_rows, d_columns, total


def content_gradients_by_blocks(*given: Tensor) -> tuple[Tensor, Tensor]:
    """What `_content_gradients` gives, in torch operations."""
    queries, _, _, content, scale, _, _, d_sums, *_ = given
    d_content, d_scale = torch.empty_like(content), torch.empty_like(scale)
    for block, a, d_logit, s, t in walk_backward(*given):
        both = queries.mT @ d_logit.flatten(2) + d_sums.mT @ a.flatten(2)
        d_content[:, :, block] = both.unflatten(-1, s.shape[2:])
        d_scale[:, block] = (d_logit * s + a * t).sum(1)
    return d_content, d_scale


def walk_backward(
    queries: Tensor,
    rows: Tensor,
    columns: Tensor,
    content: Tensor,
    scale: Tensor,
    log_sums: Tensor,
    mean: Tensor,
    d_sums: Tensor,
    d_row_sums: Tensor,
    d_column_sums: Tensor,
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """Block by block of rows: which, the weights, the gradients of the logits, and what rows and columns add, before it
    is scaled, to logits and to g."""
    _, height = blocks_of((queries, rows, columns))
    for begin in range(0, rows.shape[-1], height):
        block = slice(begin, begin + height)
        flat, r = content[:, :, block].flatten(2), scale[:, None, block]
        s = rows[..., block, None] + columns[:, :, None]
        t = d_row_sums[..., block, None] + d_column_sums[:, :, None]
        a = ((queries @ flat).view_as(s) + r * s).sub_(log_sums[..., None, None]).exp_()
        d_logit = ((d_sums @ flat).view_as(s) + r * t).sub_(mean[..., None, None]).mul_(a)
        yield block, a, d_logit, s, t


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "R", "I", "J", "block")] + [("threads", ctypes.c_int)]


class Compiled:
    """grid_attention.cpp, compiled for one dtype and one number of channels."""

    def __init__(self, dtype: torch.dtype, channels: int) -> None:
        source = Path(__file__).with_suffix(".cpp")
        options = [
            "-std=c++17", "-O3", "-march=native", "-shared", "-fPIC",
            # What lets sums and maxima become vector instructions; unlike -ffast-math, nothing global changes.
            "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-ffinite-math-only",
            # GCC takes 256 bits on CPUs that have 512: a third slower here.
            *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),
            f"-DREAL={'float' if dtype == torch.float32 else 'double'}", f"-DCHANNELS={channels}",
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "grid_attention.so"
            command = [str(COMPILER), *COMPILER_OPTIONS, *options, str(source), "-o", str(target)]
            try:  # with threads where the compiler knows OpenMP, which is torch's own pool of threads
                subprocess.run([*command, "-fopenmp"], check=True, capture_output=True)
            except subprocess.CalledProcessError:
                subprocess.run(command, check=True, capture_output=True)
                say_once("separable attention's C++ part runs on one core: the compiler knows no OpenMP")
            self.library = ctypes.CDLL(str(target))
        self.channels = channels

    def run(self, function: str, given: list[Tensor], out: tuple[Tensor, ...]) -> None:
        """Call a function of the library: what it reads, what it writes, the sizes."""
        given, written = [x.contiguous() for x in given], list(out)
        if given[2].shape[-1] == 1:  # the inner loops run along columns: a single one changes places with the rows
            for tensors, place in ((given, 1), (given, 8), (written, 1)):
                tensors[place : place + 2] = tensors[place : place + 2][::-1]
        rows, columns = given[1], given[2]
        batch, count, size_I = rows.shape
        size_J = columns.shape[-1]
        height = max(1, COMPILED_ROW_BYTES // ((self.channels + 1) * size_J * rows.element_size()))
        sizes = _Sizes(batch, count, size_I, size_J, min(height, size_I), torch.get_num_threads())
        pointers = [ctypes.c_void_p(x.data_ptr()) for x in (*given, *written)]
        getattr(self.library, function)(*pointers, ctypes.byref(sizes))


def compiled(queries: Tensor, rows: Tensor, columns: Tensor) -> Compiled | None:
    """The compiled implementation for these, if there is one."""
    channels, logits = queries.shape[-1], rows.numel() * columns.shape[-1]
    known = queries.dtype in (torch.float32, torch.float64) and compiling_pays(channels, logits, queries.device.type)
    return _compile(queries.dtype, channels) if known else None


def compiling_pays(channels: int, logits: int, device: str) -> bool:
    """Whether a batch of so many logits is for C++."""
    return device == "cpu" and channels <= MOST_COMPILED_CHANNELS and logits >= LEAST_COMPILED_LOGITS


def is_compiled(channels: int, logits: int, device: str) -> bool:
    """Whether C++ does a batch of so many logits, as far as can be said without compiling."""
    return compiling_pays(channels, logits, device) and COMPILER is not None


@functools.cache
def _compile(dtype: torch.dtype, channels: int) -> Compiled | None:
    """The C++ part for such queries; without a compiler that works None, and one line says so."""
    reason = f"no compiler {_NAME} found; the environment variable CXX names one"
    try:
        if COMPILER is not None:
            return Compiled(dtype, channels)
    except subprocess.CalledProcessError as error:
        reason = f"{COMPILER} says {error.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}"
    except OSError as error:
        reason = str(error)
    say_once(f"separable attention runs without its C++ part, many times slower: {reason}")
    return None


@functools.cache
def say_once(line: str) -> None:
    """Log a line, the first time that there is reason to."""
    log.warning(line)
