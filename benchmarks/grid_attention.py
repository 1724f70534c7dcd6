"""Separable attention against its rivals: time and memory of one training step.

    python -m benchmarks.grid_attention [--quick] [--rounds 3] [--only WORK ...] [--out FILE] [--threads N]

Every rival runs in a process of its own, all of a work in turn, for several rounds; a row holds the medians. A step is
forward, cross-entropy, backward and AdamW; the one cross-attend is forward and backward, or forward alone. The first
step of a process, with any compiling, is not counted but told apart; at least three others are, and up to eleven within
45 seconds. The allocator keeps freed memory, as the command line has it. Memory is the peak above what the imported
libraries hold, seen in another process in which freed memory goes back to the system at once: else the gaps in the
allocator's heap, a fifth of all and other ones each time, would count as well. What torch imports only with the first
optimizer, some 65 MiB, counts for all of them. `--quick` measures the first two works once, over two counted steps at
the least, and takes their memory from the same processes.

Rivals: the same model with dense attention, as it comes or everywhere fused or plain, heads padded to a multiple of 8
or not; perceiver-pytorch with the same N, D, heads, depth and widths (its MLPs are wider and cannot be set
otherwise); transformers' Perceiver IO; our own without a C++ compiler; for the one cross-attend, the floor of what
torch operations can do; the ImageNet model's latent stacks alone, which no attention to the input can make cheaper,
and the products of matrices in them alone. The products are no rival but a part of our step: they are timed in its
process, a step of each in turn.

The results are a list of rows, in `benchmarks/results/grid_attention.json`, and a plot beside it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.grid_rivals import OURS, PRODUCTS, build
from benchmarks.machine import machine
from perceiver_lightning.training.memory import keep_freed_memory

DENSE = ["dense, fused", "dense, fused, not padded", "dense, plain"]
SIDES = [64, 128, 256, 512, 1024, 2048]

SMALL = {"model": "small", "frames": 0}
# work: what to build, and the rivals measured beside ours.
WORKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one cross-attend, 224": ({"model": "cross-attend", "side": 224, "batch": 1}, [*DENSE, "no compiler", "floor"]),
    "one cross-attend, 224, forward": (
        {"model": "cross-attend", "side": 224, "batch": 1, "backward": False},
        [*DENSE, "no compiler", "floor"],
    ),
    "small, 224": ({**SMALL, "side": 224, "batch": 2}, ["perceiver-pytorch", *DENSE, "no compiler"]),
    "small, 1024": ({**SMALL, "side": 1024, "batch": 1}, ["perceiver-pytorch", "dense, fused", "no compiler"]),
    "paper's ImageNet": ({"model": "imagenet", "side": 224, "batch": 1}, [PRODUCTS, "latent stacks alone", *DENSE]),
    "paper's ImageNet, bfloat16": (
        {"model": "imagenet", "side": 224, "batch": 1, "bf16": True},
        ["dense, fused", "dense, plain", "dense, plain, float32"],
    ),
    "Perceiver IO, ImageNet": ({"model": "io", "side": 224, "batch": 1}, ["transformers", "dense"]),
    "small, 2048": ({**SMALL, "side": 2048, "batch": 1}, ["separable at 1024"]),
    "small, 16 frames of 224": ({"model": "small", "frames": 16, "side": 224, "batch": 1}, []),
    "16x16 patches, auto": ({"model": "patches", "side": 224, "batch": 4}, ["separable", "dense"]),
    "8 cross heads, auto": ({"model": "heads", "side": 224, "batch": 1}, ["separable", "dense"]),
    **{f"resolution {side}": ({**SMALL, "side": side, "batch": 1}, ["dense, fused"] * (side <= 512)) for side in SIDES},
}  # fmt: skip
QUICK = ["one cross-attend, 224", "small, 224"]


def measure(rival: str, given: dict[str, Any], for_memory: bool, quick: bool) -> dict[str, Any]:
    """Seconds of a step in this process (median of all but the first), seconds that the first takes more, peak bytes
    above the imports; of ours with the latents' products beside it, their seconds too."""
    import perceiver_lightning.model  # noqa: F401

    if rival == "perceiver-pytorch":
        import perceiver_pytorch  # noqa: F401
    if rival == "transformers":
        from transformers import PerceiverForImageClassificationFourier  # noqa: F401
    if not for_memory:
        keep_freed_memory()  # as the command line does, and for all rivals
    torch.randn(64, 64) @ torch.randn(64, 64)
    before = peak_bytes()
    step, parameters = build(rival, **given)
    with_products = rival == OURS and given["model"] == "imagenet" and "bf16" not in given and not for_memory
    products, _ = build(PRODUCTS, **given) if with_products else (None, 0)
    least, enough = (2, 0) if for_memory else (3, 2) if quick else (4, 45)  # steps, seconds
    seconds: list[float] = []
    of_products: list[float] = []
    while len(seconds) < least or (len(seconds) < 12 and sum(seconds) < enough):
        for function, into in ((step, seconds), (products, of_products)):
            if function is not None:
                start = time.perf_counter()
                function()
                into.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    return {
        "seconds": median,
        "first": seconds[0] - median,
        "bytes": peak_bytes() - before,
        "parameters": parameters,
        "products": statistics.median(of_products[1:]) if of_products else None,
    }


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_its_own_process(work: str, rival: str, threads: int, *flags: str) -> dict[str, Any]:
    """What `measure` finds in a new process; flags: --for_memory, --quick.

    Its peak begins with what this process holds, on Linux: so this one imports no more than torch.
    """
    command = [sys.executable, "-m", "benchmarks.grid_attention", "--one", work, rival, "--threads", str(threads)]
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if "--for_memory" in flags else {})
    done = subprocess.run([*command, *flags], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(work: str, rounds: int, threads: int, quick: bool, about: dict[str, Any]) -> list[dict[str, Any]]:
    """All rivals of a work in turn, several rounds; a row for each, with the medians and what is told `about` all."""
    rivals = WORKS[work][1]
    ours = "auto" if work.endswith("auto") else OURS
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (ours, *rivals)}
    for number in range(rounds):
        for rival in found:
            if rival == PRODUCTS:
                found[rival].append({"seconds": found[ours][-1]["products"], "first": 0.0, "parameters": 0})
                continue
            found[rival].append(in_its_own_process(work, rival, threads, *(["--quick"] if quick else [])))
            last = found[rival][-1]
            print(f"{work:28} {rival:26} {last['seconds']:9.4f} s   round {number + 1} of {rounds}", flush=True)
    peak = {
        rival: runs[0]["bytes"] if quick else in_its_own_process(work, rival, threads, "--for_memory")["bytes"]
        for rival, runs in found.items()
    }

    def middle(rival: str, key: str) -> float:
        return statistics.median(one[key] for one in found[rival])

    rows = []
    for rival in rivals or [ours]:
        rows.append(
            {
                "work": work,
                "rival": rival if rivals else None,
                "ours": ours,
                "ours_s": middle(ours, "seconds"),
                "rival_s": middle(rival, "seconds"),
                "ratio": middle(rival, "seconds") / middle(ours, "seconds"),
                "ours_bytes": peak[ours],
                "rival_bytes": peak[rival],
                "ours_first_s": middle(ours, "first"),
                "rival_first_s": middle(rival, "first"),
                "parameters": int(middle(ours, "parameters")),
                "rival_parameters": int(middle(rival, "parameters")),
                "rounds": rounds,
                "threads": threads,
                **about,
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("work", "rival", "ours", "rival", "ratio", "ours", "rival")
    for row in rows:
        memory = [f"{row[key] / 2**20:,.0f} MiB" for key in ("ours_bytes", "rival_bytes")]
        times = [f"{row[key]:.4f} s" for key in ("ours_s", "rival_s")]
        table.add_row(row["work"], row["rival"] or "-", *times, f"{row['ratio']:.2f}", *memory)
    Console(width=140).print(table)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Time and memory of the small model's step against the resolution."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    sweep = [row for row in rows if row["work"].startswith("resolution")]
    ours = {int(row["work"].split()[-1]): (row["ours_s"], row["ours_bytes"] / 2**30) for row in sweep}
    dense = {int(r["work"].split()[-1]): (r["rival_s"], r["rival_bytes"] / 2**30) for r in sweep if r["rival"]}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for place, (ax, title) in enumerate(zip(axes, ("seconds a training step", "GiB of memory"), strict=True)):
        ax.plot(list(ours), [value[place] for value in ours.values()], "o-", label="separable")
        ax.plot(list(dense), [value[place] for value in dense.values()], "s--", label="dense, fused")
        ax.set(xscale="log", yscale="log", xlabel="pixels a side", title=title)
        ax.set_xticks(SIDES, [str(side) for side in SIDES])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="only the first two works, once, in two minutes or so")
    which.add_argument("--only", nargs="+", choices=WORKS, help="only these works; other rows of the file stay")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/grid_attention.json"))
    parser.add_argument("--for_memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, metavar=("WORK", "RIVAL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        from perceiver_lightning.kernels.dispatch import use_backend

        work, rival = args.one
        with use_backend("torch" if rival == "no compiler" else None):
            print(json.dumps(measure(rival, WORKS[work][0], args.for_memory, args.quick)))
        return
    about = machine()  # before results are written, for these are changes too
    works = QUICK if args.quick else args.only or list(WORKS)
    rows = [row for row in (json.loads(args.out.read_text()) if args.out.exists() else []) if row["work"] in WORKS]
    for work in works:
        measured = rows_of(work, 1 if args.quick else args.rounds, args.threads, args.quick, about)
        rows = [row for row in rows if row["work"] != work] + measured
        rows.sort(key=lambda row: list(WORKS).index(row["work"]))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")  # after each work: nothing is lost on Ctrl-C
    show(rows)
    if any(row["work"].startswith("resolution") for row in rows):
        plot(rows, args.out.with_suffix(".svg"))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
