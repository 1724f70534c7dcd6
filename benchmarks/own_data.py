"""What the configs for any folder reach in ten minutes on data that they were not tuned to, beside simple models.

    python -m benchmarks.own_data [SET ...] [--minutes 10] [--jobs 1] [--out FILE]

Each set is linked into a folder <split>/<class>/*, as a person's own files would lie. The config of its kind trains on
it as it stands; the checkpoint that validation chose is tested, once. Beside it stand `baseline`'s models on the same
splits.

A row is written as soon as it is there; what the file has already is measured again. `--jobs 2` trains two at a time,
each on its share of the cores.
"""

import argparse
import csv
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from datamodules import ESC, FSDD, GRID
from datamodules.base import located
from perceiver_lightning.cli import main as run

FIVE_SECONDS = "--data.init_args.seconds=5"

# Name of a set -> the config of its kind; what has its files, if they do not lie in folders already; more arguments.
SETS: dict[str, tuple[str, Any, list[str]]] = {
    "clothing photos": ("image", "images/clothing-small-128", []),
    "FSDD": ("audio", FSDD, []),
    "ESC-10, fold 5": (
        "audio",
        partial(ESC, root="audio/esc10", classes=10, test_fold=5),
        ["--data.init_args.seconds=5"],
    ),
    "LDraw meshes": ("points", "pointcloud/ldraw-off-sample", []),
    "GRID colours, pictures": ("video", partial(GRID, label="color"), []),
    "GRID colours, both": ("audio_visual", partial(GRID, label="color"), []),
}


def link(data: Any, folder: Path) -> Path:
    """The files of a datamodule's train and test, by links in <split>/<class>/*."""
    for name, split in {"train": data.find_train()[0], "test": data.find_test()}.items():
        for item, label in zip(split.items, split.labels, strict=True):
            place = folder / name / data.class_names[label] / Path(item).name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(Path(item).resolve(), place)
    return folder


def measure(name: str, minutes: float, threads: int) -> dict[str, Any]:
    """The row of one set."""
    torch.set_num_threads(threads)
    kind, source, more = SETS[name]
    config = f"configs/{kind}/folder.yaml"
    with TemporaryDirectory() as folder:
        root = located(source) if isinstance(source, str) else link(source(), Path(folder) / "files")
        data = [
            f"--config={config}",
            f"--data.init_args.root={root}",
            f"--data.init_args.cache_dir={folder}/cache",
            *more,
        ]
        kept = [f"--runs_dir={folder}/runs", "--name=one"]
        start = time.monotonic()
        limit = f"00:00:{int(minutes):02}:{round(60 * minutes) % 60:02}"
        fit = run(["fit", *data, *kept, f"--trainer.max_time={limit}"])
        took = (time.monotonic() - start) / 60
        test = run(["test", f"--ckpt_path={fit.run}/checkpoints/best.ckpt"]).trainer.callback_metrics
        run(["baseline", *data, *kept])
        with open(f"{folder}/runs/baseline/one/metrics.csv") as file:
            simple = {row["model"]: float(row["test/accuracy"]) for row in csv.DictReader(file)}
        steps, epochs = fit.trainer.global_step, fit.trainer.current_epoch
    accuracy = float(test["test/accuracy"])
    row = {"set": name, "config": config, "more": more, "minutes": took, "epochs": epochs, "steps": steps}
    return {**row, "accuracy": accuracy, "baseline": simple, "threads": threads, **machine()}


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as a table."""
    table = Table("set", "config", "epochs", "test", *(models := list(rows[0]["baseline"])))
    for row in rows:
        cells = [f"{100 * value:.1f}" for value in (row["accuracy"], *(row["baseline"][model] for model in models))]
        table.add_row(row["set"], row["config"], str(row["epochs"]), *cells)
    Console(width=120).print(table)


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all if not given")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=1, choices=range(1, 65), metavar="N", help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/own_data.json"))
    args = parser.parse_args()
    if unknown := set(args.sets) - set(SETS):
        parser.error(f"expected some of {', '.join(SETS)}, found {', '.join(sorted(unknown))}")
    threads = max(1, torch.get_num_threads() // args.jobs)
    rows = {row["set"]: row for row in (json.loads(args.out.read_text()) if args.out.exists() else [])}
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(measure, name, args.minutes, threads) for name in args.sets or SETS]):
            row = future.result()
            rows[row["set"]] = row
            # After each: nothing is lost on Ctrl-C.
            args.out.write_text(json.dumps([rows[name] for name in SETS if name in rows], indent=1) + "\n")
    show(list(rows.values()))


if __name__ == "__main__":
    main()
