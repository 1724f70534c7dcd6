"""What a result was measured with."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

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


def commit() -> str | None:
    """The commit that is checked out, and whether its code or configs were changed; None without git."""
    here = Path(__file__).resolve().parents[1]
    code = ["perceiver_lightning", "datamodules", "configs", "benchmarks/*.py"]

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return git("rev-parse", "--short", "HEAD") + (", changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
