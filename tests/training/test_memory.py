"""Freed memory is kept for the next step."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from perceiver_lightning.training.memory import keep_freed_memory
for keep in (False, True):
    if keep: keep_freed_memory()
    torch.ones(4 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20): torch.ones(4 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


HAS_GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.slow
@pytest.mark.xdist_group("memory")
@pytest.mark.skipif(not HAS_GLIBC, reason="needs glibc, whose malloc this is about")
def test_the_pages_of_a_freed_tensor_are_those_of_the_next():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10
