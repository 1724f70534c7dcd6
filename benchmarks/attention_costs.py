"""What a cross-attend costs, dense and separable, over shapes: where the prices in `model/separable.py` are from.

    python -m benchmarks.attention_costs [--out FILE]

Each row is forward and backward of one cross-attend, input array included, in seconds of CPU time of one thread for one
example (the best of several steps), in float32 and under autocast to bfloat16, and with and without a C++ compiler.
Prices are then fitted, none negative, by least squares of the relative errors, and printed in nanoseconds beside the
errors.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from scipy.optimize import nnls

from benchmarks.machine import machine
from perceiver_lightning.model import grid_attention
from perceiver_lightning.model.attention import CrossAttend, Dense
from perceiver_lightning.model.grid_attention import is_compiled
from perceiver_lightning.model.inputs import Inputs
from perceiver_lightning.model.separable import PRICES, Separable, dense_work, is_cheaper, separable_work

# batch, grid, channels, N, heads, width of keys and values, bands
SHAPES: list[tuple[int, list[int], int, int, int, int, int]] = [
    (64, [8, 8], 1, 16, 1, 32, 4),
    (64, [8, 8], 1, 32, 4, 64, 4),
    (64, [50, 10], 1, 32, 4, 64, 8),
    (64, [10, 50], 1, 32, 4, 64, 8),
    (64, [100, 20], 1, 64, 1, 32, 8),
    (64, [32, 32], 3, 64, 1, 32, 8),
    (64, [32, 32], 3, 32, 4, 64, 8),
    (64, [32, 32], 3, 64, 8, 64, 8),
    (16, [64, 64], 3, 64, 1, 32, 16),
    (2, [224, 224], 3, 128, 1, 64, 64),
    (1, [224, 224], 3, 512, 1, 264, 64),
    (1, [224, 224], 3, 128, 8, 264, 64),
    (1, [224, 224], 3, 128, 8, 64, 64),
    (4, [14, 14], 768, 128, 1, 64, 7),
    (4, [14, 14], 768, 128, 1, 800, 7),
    (8, [14, 14], 768, 128, 1, 800, 7),
    (4, [14, 14], 768, 128, 8, 800, 7),
    (2, [14, 14], 768, 512, 1, 1026, 64),
    (16, [28, 28], 48, 64, 1, 64, 14),
    (16, [28, 28], 48, 64, 4, 64, 14),
    (16, [56, 56], 12, 64, 4, 64, 14),
    (16, [56, 56], 17, 64, 4, 64, 14),
    (16, [64, 100], 1, 64, 4, 64, 16),
    (16, [480], 128, 64, 1, 64, 16),
    (4, [8000], 1, 64, 1, 64, 32),
]
WIDTH = 128  # of the latents


def seconds_of(
    kind: str, bf16: bool, batch: int, grid: list[int], channels: int, n: int, heads: int, width: int, bands: int
) -> float:
    """CPU seconds of one example's forward and backward pass."""
    inputs = Inputs({"grid": {"channels": channels, "resolution": grid}}, bands=bands)
    cross = CrossAttend(WIDTH, inputs.width, heads, width, width)
    content, latents = torch.randn(batch, *grid, channels), torch.randn(batch, n, WIDTH, requires_grad=True)
    best = float("inf")
    for _ in range(6):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            array = inputs({"grid": {"content": content}})
            found = cross(latents, Dense(array) if kind == "dense" else Separable(array))
        found.sum().backward()
        best = min(best, time.process_time() - start)
    return best / batch


def fit(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Prices in nanoseconds of each unit of a row's work, and of what all cross-attends do for each latent."""
    true = np.array([row["seconds"][name] * 1e9 for row in rows])
    work = [row["work"][name.split(",")[0]] | {"latents": row["latents"]} for row in rows]
    counts = np.array([list(one.values()) for one in work], float)
    prices, _ = nnls(counts / true[:, None], np.ones(len(rows)))
    print(f"{name}: estimated / measured", np.round(counts @ prices / true, 2))
    return dict(zip(work[0], prices.round(4).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attention_costs.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for shape in track(SHAPES, "Measuring"):
        batch, grid, channels, n, heads, width, bands = shape
        inputs = Inputs({"grid": {"channels": channels, "resolution": grid}}, bands=bands)
        array = inputs({"grid": {"content": torch.empty(batch, *grid, channels)}})
        (part,) = array.parts
        seconds: dict[str, float] = {}
        auto = {}
        for dtype, bf16 in {"": False, ", bfloat16": True}.items():
            seconds |= {kind + dtype: seconds_of(kind, bf16, *shape) for kind in ("dense", "separable")}
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                auto["auto" + dtype] = is_cheaper(array, n, heads, width, width)
        compiled, grid_attention.compiled = grid_attention.compiled, lambda *_: None
        seconds["separable, no compiler"] = seconds_of("separable", False, *shape)
        grid_attention.compiled = compiled
        work = {"dense": dense_work(part, n, heads, 2 * width), "separable": separable_work(part, n, heads, 2 * width)}
        form = {"batch": batch, "grid": grid, "channels": channels, "latents": n, "heads": heads, "width": width}
        rows.append({**form, "bands": bands, "seconds": seconds, "work": work, **auto})
    few = [
        row for row in rows if is_compiled(row["channels"] + 1, row["batch"] * row["work"]["dense"]["logits"], "cpu")
    ]
    prices = {name: fit(few if name == "separable" else rows, name) for name in PRICES["cpu"]}
    of_latents = {name: found.pop("latents") for name, found in prices.items()}
    for name, found in prices.items():
        print(f"{name}, ns: {found}; of the rest, for each latent: {of_latents[name]}")
    for row, dtype in itertools.product(rows, ("", ", bfloat16")):
        seconds = row["seconds"]
        if row["auto" + dtype] != (seconds["separable" + dtype] < seconds["dense" + dtype]):
            print(f"auto{dtype} takes the dearer one at {row}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"prices_ns": prices, "rows": rows, **machine()}, indent=1) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
