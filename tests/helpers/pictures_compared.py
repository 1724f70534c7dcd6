"""Pictures compared with stored ones, in `tests/pictures`: for tests.

`PICTURES=new` writes them again: look at each before it is committed.
"""

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).parent.parent / "pictures"
DPI = 50
TOLERANCE = 4.0  # root of the mean square, of 255: other releases draw letters by a shade otherwise

written: set[str] = set()


def difference(figure: Figure, name: str, folder: Path) -> float:
    """How far a figure is from the stored picture of that name; infinite where their sizes differ."""
    file = folder / f"{name}.png"
    figure.savefig(file, dpi=DPI)
    found = Image.open(file).convert("RGB")
    if os.environ.get("PICTURES") == "new" and name not in written:
        found.quantize(256).save(FOLDER / f"{name}.png", optimize=True)
        written.add(name)
    stored = Image.open(FOLDER / f"{name}.png").convert("RGB")
    if stored.size != found.size:
        return float("inf")
    return float(np.sqrt(np.mean(np.square(np.asarray(stored, float) - np.asarray(found, float)))))
