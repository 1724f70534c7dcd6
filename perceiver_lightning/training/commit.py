"""Which commit this code is of."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """The commit that this file is of, None where it lies in no git repository or there is no git."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
