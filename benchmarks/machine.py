"""What a result was measured with."""

import os
import platform
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from perceiver_lightning.training.commit import commit

PACKAGES = ["torch", "torchvision", "pytorch-lightning", "perceiver-pytorch", "transformers", "scikit-learn"]


def machine() -> dict[str, Any]:
    """Date, commit, versions and machine, for a results file."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "versions": {one.name: one.version for one in distributions() if one.name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {models[0] if models else platform.processor()}",
    }
