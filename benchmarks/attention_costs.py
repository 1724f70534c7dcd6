"""What a cross-attend costs, dense and separable, over shapes: where the prices in `kernels/costs.py` are from.

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
from perceiver_lightning.kernels.costs import PRICES, CrossAttendSize, dense_work, is_compiled, separable_work
from perceiver_lightning.kernels.cpu import COMPILER
from perceiver_lightning.kernels.dispatch import use_backend
from perceiver_lightning.model.attention import CrossAttend, Dense
from perceiver_lightning.model.inputs import InputArray, Inputs
from perceiver_lightning.model.separable import Separable, is_cheaper, size_of

FORM = ("batch", "grid", "channels", "latents", "heads", "width", "bands")  # width: of keys, and of values
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


def inputs_of(form: dict[str, Any]) -> Inputs:
    """What builds the input array of a form."""
    return Inputs({"grid": {"channels": form["channels"], "resolution": form["grid"]}}, bands=form["bands"])


def input_array(form: dict[str, Any]) -> InputArray:
    """The input array of a form, without values."""
    return inputs_of(form)({"grid": {"content": torch.empty(form["batch"], *form["grid"], form["channels"])}})


def seconds_of(kind: str, bf16: bool, form: dict[str, Any]) -> float:
    """CPU seconds of one example's forward and backward pass."""
    content = torch.randn(form["batch"], *form["grid"], form["channels"])
    latents = torch.randn(form["batch"], form["latents"], WIDTH, requires_grad=True)
    inputs = inputs_of(form)
    cross = CrossAttend(WIDTH, inputs.width, form["heads"], form["width"], form["width"])
    best = float("inf")
    for _ in range(6):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            array = inputs({"grid": {"content": content}})
            found = cross(latents, Dense(array) if kind == "dense" else Separable(array))
        found.sum().backward()
        best = min(best, time.process_time() - start)
    return best / form["batch"]


def fit(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Prices in nanoseconds of each unit of a row's work, and of what all cross-attends do for each latent."""
    true = np.array([row["seconds"][name] * 1e9 for row in rows])
    work = [row["work"][name.split(",")[0]] | {"latents": row["latents"]} for row in rows]
    counts = np.array([list(one.values()) for one in work], float)
    prices, _ = nnls(counts / true[:, None], np.ones(len(rows)))
    print(f"{name}: estimated / measured", np.round(counts @ prices / true, 2))
    return dict(zip(work[0], prices.round(4).tolist(), strict=True))


def choices(rows: list[dict[str, Any]]) -> None:
    """Write into the rows what `auto` takes, and print where that is the dearer one."""
    for row, dtype in itertools.product(rows, ("", ", bfloat16")):
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(dtype)):
            found = is_cheaper(input_array(row), row["latents"], row["heads"], row["width"], row["width"])
        row["auto" + dtype] = "separable" if found else "dense"
        separable, dense = (row["seconds"][kind + dtype] for kind in ("separable", "dense"))
        if found != (separable < dense):
            ratio = max(separable, dense) / min(separable, dense)
            print(f"auto{dtype} takes the one that is {ratio:.2f} times as dear: {[row[key] for key in FORM]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attention_costs.json"))
    args = parser.parse_args()
    if COMPILER is None:
        parser.error("expected a C++ compiler, found none: prices are with and without one")
    torch.set_num_threads(1)
    about = machine()
    rows: list[dict[str, Any]] = [dict(zip(FORM, shape, strict=True)) for shape in SHAPES]
    for row in track(rows, "Measuring"):
        part = size_of(input_array(row).parts[0])
        cross = CrossAttendSize(row["batch"], row["latents"], row["heads"], 2 * row["width"])
        row["work"] = {"dense": dense_work(part, cross), "separable": separable_work(part, cross)}
        row["compiled"] = is_compiled(part, cross, "cpu")
        row["seconds"] = {
            kind + dtype: seconds_of(kind, bf16, row)
            for kind, (dtype, bf16) in itertools.product(("dense", "separable"), (("", False), (", bfloat16", True)))
        }
        with use_backend("torch"):
            row["seconds"]["separable, no compiler"] = seconds_of("separable", False, row)
    compiled_rows = [row for row in rows if row["compiled"]]
    prices = {name: fit(compiled_rows if name == "separable" else rows, name) for name in PRICES["cpu"]}
    of_latents = {name: found.pop("latents") for name, found in prices.items()}
    for name, found in prices.items():
        print(f"{name}, ns: {found}; for each latent {of_latents[name]}")
    PRICES["cpu"] = prices
    choices(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps({"prices_ns": prices, "of_latents_ns": of_latents, "rows": rows, **about}, indent=1) + "\n"
    )
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
