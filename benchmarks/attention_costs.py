"""What a cross-attend costs, dense and separable, over shapes: where the prices in `model/separable.py` are from.

    python -m benchmarks.attention_costs [--out FILE]

Each row is forward and backward of one cross-attend, input array included, in seconds of CPU time of one thread for one
example (the best of several steps), with and without a C++ compiler. Prices are then fitted, none negative, by least
squares of the relative errors, and printed in nanoseconds beside the errors. The prices in `is_cheaper` are of an
earlier fit, from before small and masked grids were made faster. With them it must take the cheaper one wherever the
two differ by a half or more.
"""

import argparse
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
from perceiver_lightning.model.inputs import Inputs
from perceiver_lightning.model.separable import Separable, is_cheaper

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


def seconds(kind: str, batch: int, grid: list[int], channels: int, n: int, heads: int, width: int, bands: int) -> float:
    """CPU seconds of one example's forward and backward pass."""
    inputs = Inputs({"grid": {"channels": channels, "resolution": grid}}, bands=bands)
    cross = CrossAttend(WIDTH, inputs.width, heads, width, width)
    content, latents = torch.randn(batch, *grid, channels), torch.randn(batch, n, WIDTH, requires_grad=True)
    best = float("inf")
    for _ in range(6):
        start = time.process_time()
        array = inputs({"grid": {"content": content}})
        cross(latents, Dense(array) if kind == "dense" else Separable(array)).sum().backward()
        best = min(best, time.process_time() - start)
    return best / batch


def fit(rows: list[dict[str, Any]], kind: str, terms: dict[str, Any]) -> dict[str, float]:
    """Prices in nanoseconds, one for each term of a row's cost."""
    true = np.array([row[kind] * 1e9 for row in rows])
    counts = np.array([[term(row) for term in terms.values()] for row in rows], float)
    prices, _ = nnls(counts / true[:, None], np.ones(len(rows)))
    print(f"{kind}: estimated / measured", np.round(counts @ prices / true, 2))
    return dict(zip(terms, prices.round(4).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attention_costs.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for shape in track(SHAPES, "Measuring"):
        batch, grid, channels, n, heads, width, bands = shape
        array = Inputs({"grid": {"channels": channels, "resolution": grid}}, bands=bands)
        row: dict[str, Any] = {
            "grid": grid, "channels": channels, "latents": n, "heads": heads, "width": 2 * width, "array": array.width,
            "elements": int(np.prod(grid)),
        }  # fmt: skip
        row |= {kind: seconds(kind, *shape) for kind in ("dense", "separable")}
        row["auto"] = is_cheaper(
            array({"grid": {"content": torch.empty(batch, *grid, channels)}}), n, heads, width, width
        )
        compiled, grid_attention.compiled = grid_attention.compiled, lambda queries: None
        row["no_compiler"] = seconds("separable", *shape)
        grid_attention.compiled = compiled
        rows.append(row)
    dense = {
        "array": lambda r: r["elements"] * r["array"],
        "projections": lambda r: r["elements"] * r["array"] * r["width"],
        "products": lambda r: r["elements"] * r["latents"] * r["width"],
        "logits": lambda r: r["elements"] * r["latents"] * r["heads"],
    }
    separable = {
        "absorbing": lambda r: r["latents"] * r["array"] * r["width"],
        "elements": lambda r: r["elements"],
        "content": lambda r: r["elements"] * r["channels"],
        "logits": lambda r: r["elements"] * r["latents"] * r["heads"],
        "logits x channels": lambda r: r["elements"] * r["latents"] * r["heads"] * (r["channels"] + 1),
    }
    few = [row for row in rows if row["channels"] < grid_attention.MOST_COMPILED_CHANNELS]
    prices = {
        "dense": fit(rows, "dense", dense),
        "separable, compiled": fit(few, "separable", separable),
        "separable, torch operations": fit(rows, "no_compiler", separable),
    }
    for name, found in prices.items():
        print(f"{name}, ns: {found}")
    wrong = [row for row in rows if row["auto"] != (row["separable"] < row["dense"])]
    for row in wrong:
        print(f"auto takes the dearer one at {row}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"prices_ns": prices, "rows": rows, **machine()}, indent=1) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
