"""What a result was measured with."""

import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Date, versions and machine, for a results file."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return {
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "pytorch-lightning")},
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {models[0] if models else platform.processor()}",
    }
