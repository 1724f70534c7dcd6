"""What a person gains by separable attention: the same model trained for the same minutes, dense and separable.

    python -m benchmarks.same_time [--minutes 20] [--configs FILE ...] [--attention KIND ...] [--jobs 1] [--out FILE]

Each config is trained with `attention: separable` and with `attention: dense`, from one seed. How many epochs fit into
the minutes is computed first, from the time that some steps of each take, so that each one's schedule comes to its end;
what mixes images ends at the same share of it (`mixup_off_epoch`). The checkpoint that validation chose is tested,
once; other rows of the file stay. `--jobs 2` trains two at a time, each on its share of the cores.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from perceiver_lightning.analysis.runs import at_best, read_run
from perceiver_lightning.checkpoint import Opened
from perceiver_lightning.cli import main as run

CONFIGS = ["configs/image/cifar10.yaml", "configs/image/clothing.yaml"]
ATTENTION = ["separable", "dense"]
STEPS = 20  # that the time of a step is computed from, after as many that are not counted


def train(job: tuple[str, str, float, str, int]) -> dict[str, Any]:
    """Train one config with one attention for so many minutes; test what validation chose."""
    config, attention, minutes, runs_dir, threads = job
    torch.set_num_threads(threads)
    shared = [f"--config={config}", f"--model.init_args.attention={attention}", f"--runs_dir={runs_dir}"]
    epochs = epochs_in(minutes * 60, shared)
    recipe: Any = Opened(["fit", *shared])
    if (off := recipe.datamodule.augment.mixup_off_epoch) is not None:
        shared.append(f"--data.init_args.augment.mixup_off_epoch={round(off * epochs / recipe.trainer.max_epochs)}")
    name = f"{Path(config).stem}_{attention}"
    start = time.monotonic()
    fit = run(["fit", *shared, f"--name={name}", f"--trainer.max_epochs={epochs}"])
    seconds = time.monotonic() - start
    test = run(["test", f"--ckpt_path={fit.run}/checkpoints/best.ckpt"])
    return {
        "config": config,
        "attention": attention,
        "epochs": epochs,
        "steps": fit.trainer.global_step,
        "seconds": seconds,
        "validation": at_best(read_run(fit.run), "val/accuracy"),
        "accuracy": float(test.trainer.callback_metrics["test/accuracy"]),
    }


class Clock(Callback):
    """When each step of a training ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Called by Lightning."""
        self.ends.append(time.monotonic())


def epochs_in(seconds: float, arguments: list[str]) -> int:
    """How many epochs a training takes that long for, validations included, to the nearest: 1 at the least."""
    trial = [f"--trainer.max_steps={2 * STEPS}", "--trainer.limit_val_batches=0"]
    trial += ["--trainer.logger=false", "--trainer.enable_checkpointing=false"]
    recipe: Any = Opened(["fit", *arguments, *trial])
    clock, data = Clock(), recipe.datamodule
    recipe.trainer.callbacks.append(clock)
    recipe.trainer.fit(recipe.model, data)
    of_step = statistics.median(end - start for start, end in pairwise(clock.ends[STEPS - 1 :]))
    of_epoch = len(data.train_dataloader()) + len(data.val_dataloader()) / 3  # no backward pass
    return max(1, round(seconds / (of_epoch * of_step)))


def main() -> None:
    """Train all, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="of each training")
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--attention", nargs="+", choices=ATTENTION, default=ATTENTION, help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--runs_dir", default="runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/same_time.json"))
    args = parser.parse_args()
    threads = max(1, torch.get_num_threads() // args.jobs)
    jobs = [
        (config, attention, args.minutes, args.runs_dir, threads)
        for config in args.configs
        for attention in args.attention
    ]
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(train, job) for job in jobs]):
            row = future.result() | {"minutes": args.minutes, "threads": threads, "jobs": args.jobs, **machine()}
            rows = [old for old in rows if any(old[key] != row[key] for key in ("config", "attention"))] + [row]
            args.out.write_text(json.dumps(rows, indent=1) + "\n")  # after each: nothing is lost on Ctrl-C
    table = Table("config", "attention", "epochs", "minutes", "validation", "test accuracy")
    for row in rows:
        table.add_row(
            row["config"], row["attention"], str(row["epochs"]), f"{row['seconds'] / 60:.1f}",
            f"{row['validation']:.4f}", f"{row['accuracy']:.4f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
