import subprocess
import sys

import pytest

CODE = """
import sys
import torch, torch.utils.checkpoint, torch.utils.flop_counter
before = set(sys.modules)
import {name}
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print(*sorted(loaded - {{"torch"}}))
print(*sorted(name for name in sys.modules if name.startswith("perceiver_lightning.")))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("name", ["model", "kernels.grid_attention", "kernels.plain_attention", "kernels.costs"])
def test_the_model_loads_torch_and_nothing_else_and_kernels_know_no_model(name):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(name=f"perceiver_lightning.{name}")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    libraries, ours = done.stdout.splitlines()
    assert libraries == "perceiver_lightning"
    packages = {module.split(".")[1] for module in ours.split()}
    assert packages == ({"model", "kernels"} if name == "model" else {"kernels"})
