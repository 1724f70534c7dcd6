"""The walk over a grid in C++ for CPUs (`cpu.cpp`), compiled at first use: see `grid_attention.py`."""

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
COMPILED_ROW_BYTES = 2**16  # of content, in C++: a block of rows stays in the cache for all queries of a thread


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
