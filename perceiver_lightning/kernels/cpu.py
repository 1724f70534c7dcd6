"""The walk over a grid in C++ for CPUs (`cpu.cpp`), compiled at first use, in about a second: see `grid_attention.py`.

It is many times faster than torch operations, as a block's logits never leave the cache.
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
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_NAME, *COMPILER_OPTIONS = shlex.split(os.environ.get("CXX") or "c++")
COMPILER = shutil.which(_NAME)
MOST_COMPILED_CHANNELS = 16  # beyond, products of matrices win
LEAST_COMPILED_LOGITS = 2**16  # of a batch: for fewer, C++ saves about a millisecond or less, forward and backward
COMPILED_ROW_BYTES = 2**16  # of content: a block of rows stays in the cache for all queries of a thread


def pays(channels: int, logits: int, device: str, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a batch of so many logits is for C++, where a compiler works.

    For few logits it would take some thousand steps to win the second back that compiling takes.
    """
    known = device == "cpu" and dtype in (torch.float32, torch.float64)
    return known and channels <= MOST_COMPILED_CHANNELS and logits >= LEAST_COMPILED_LOGITS


@functools.cache
def compiled(dtype: torch.dtype, channels: int) -> "Compiled | None":
    """The backend for such queries; None where no compiler works, and one line says so."""
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


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "R", "I", "J", "block")] + [("threads", ctypes.c_int)]


class Compiled:
    """`cpu.cpp`, compiled for one dtype and one number of channels: a `dispatch.Backend`."""

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

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `dispatch.Backend`."""
        return self._four("forward", given)

    def backward(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `dispatch.Backend`."""
        return self._four("backward", given)

    def backward_content(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """See `dispatch.Backend`."""
        content, scale = given[3:5]
        out = content.new_empty(content.shape), scale.new_empty(scale.shape)
        self._run("backward_content", given, out)
        return out

    def _four(self, function: str, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        queries, rows, columns = (x.new_empty(x.shape) for x in given[:3])
        out = queries, rows, columns, queries.new_empty(queries.shape[:2])
        self._run(function, given, out)
        return out

    def _run(self, function: str, given: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> None:
        """Call a function of the library: what it reads, what it writes, the sizes."""
        read, written = [x.contiguous() for x in given], list(out)
        if read[2].shape[-1] == 1:  # the inner loops run along columns: a single one changes places with the rows
            for tensors, place in ((read, 1), (read, 8), (written, 1)):
                tensors[place : place + 2] = tensors[place : place + 2][::-1]
        rows, columns = read[1], read[2]
        batch, count, size_I = rows.shape
        size_J = columns.shape[-1]
        height = max(1, COMPILED_ROW_BYTES // ((self.channels + 1) * size_J * rows.element_size()))
        sizes = _Sizes(batch, count, size_I, size_J, min(height, size_I), torch.get_num_threads())
        pointers = [ctypes.c_void_p(x.data_ptr()) for x in (*read, *written)]
        getattr(self.library, function)(*pointers, ctypes.byref(sizes))
