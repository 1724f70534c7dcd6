"""Whether the data keep the model fed: examples per second of a datamodule alone, and of training end to end.

    python -m benchmarks.data [CONFIG ...] [--seconds 20] [--workers N] [--out FILE]

For each config whose data are at hand, in a process of its own:

    data        batches read, finished and thrown away
    end to end  the config's own training, by the Trainer
    in memory   the same on a few batches that were kept as the loader gave them (several, as a batch is as long as the
                longest example in it); a step makes spectrograms and the like of them, as it does with every batch
    finished    the same on these batches, kept finished
    share       end to end / in memory: 1 where it costs nothing to read the data
    of finished end to end / finished: 1 where it costs nothing to make spectrograms and the like, either

The trainings take turns, and each has the middle one of its speeds: a machine is not equally fast all the time.

What is done once, as reading files into a cache, is not counted. Workers are the config's own unless given. Results are
a list of rows in `benchmarks/results/data.json`; rows of other configs stay.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from perceiver_lightning.checkpoint import Opened
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.training.measures import rows as rows_of

WARM_UP = 5  # steps that are not counted
ROUNDS = 3
KEPT = 8  # batches


class Clock(Callback):
    """Ends a training after so many seconds; tells its examples per second since the warm-up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.examples = seconds, 0.0, 0
        self.speed = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the batch."""
        if trainer.global_step == WARM_UP:
            self.start = time.monotonic()
        elif trainer.global_step > WARM_UP:
            self.examples += rows_of(batch)
            self.speed = self.examples / (time.monotonic() - self.start)
            trainer.should_stop = time.monotonic() - self.start > self.seconds


class Batches:
    """The same batches, again and again, as a loader of the given length."""

    def __init__(self, batches: list[Any], length: int) -> None:
        self.batches, self.length = batches, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        return islice(cycle(self.batches), self.length)


def measure(job: tuple[str, float, int | None]) -> dict[str, Any] | None:
    """The row of one config; None where its data are not at hand."""
    config, seconds, workers = job
    given = [] if workers is None else [f"--data.init_args.num_workers={workers}"]
    try:
        data: Any = Opened(["fit", f"--config={config}", *given]).datamodule
        data.prepare_data()
        data.setup("fit")
    except InputError as error:
        print(f"passed over {config}: {error}", flush=True)
        return None
    row: dict[str, Any] = {"config": config, "batch_size": data.batch_size, "workers": data.num_workers}
    loader = data.train_dataloader()
    row["data"] = alone(data, loader, seconds)
    kept, length = list(islice(loader, KEPT)), len(loader)
    finished = Batches([data.finish(batch, training=True) for batch in kept], length)
    jobs = {
        "end_to_end": lambda: training(config, given, seconds / ROUNDS),
        "in_memory": lambda: training(config, given, seconds / ROUNDS, Batches(kept, length)),
        "finished": lambda: training(config, given, seconds / ROUNDS, finished, finished=True),
    }
    speeds = [{name: job() for name, job in jobs.items()} for _ in range(ROUNDS)]
    row |= {name: median(speed[name] for speed in speeds) for name in jobs}
    row["share"] = row["end_to_end"] / row["in_memory"]
    row["share_of_finished"] = row["end_to_end"] / row["finished"]
    return {**row, **machine()}


def alone(data: Any, loader: Any, seconds: float) -> float:
    """Examples per second of reading and finishing batches, from the second batch on."""
    examples, start = 0, 0.0
    while True:
        for batch in loader:
            batch = data.finish(batch, training=True)
            if not start:
                start = time.monotonic()
                continue
            examples += rows_of(batch)
            if time.monotonic() - start > seconds:
                return examples / (time.monotonic() - start)


def training(
    config: str, given: list[str], seconds: float, batches: Batches | None = None, finished: bool = False
) -> float:
    """Examples per second of a training, on these batches in place of its own if there are any."""
    import perceiver_lightning.cli as cli

    clock, made = Clock(seconds), cli.CLI.make_trainer

    def with_clock(self: Any, config: Any, callbacks: list[Callback]) -> Trainer:
        if batches is not None:
            self.datamodule.train_dataloader = lambda: batches
        if finished:
            self.datamodule.on_after_batch_transfer = lambda batch, _: batch
        return made(self, config, [clock, *callbacks])

    cli.CLI.make_trainer = with_clock  # type: ignore[method-assign]
    try:
        with TemporaryDirectory() as runs:
            main([
                "fit", f"--config={config}", *given, f"--runs_dir={runs}", "--trainer.limit_val_batches=0",
                "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false",
            ])  # fmt: skip
    finally:
        cli.CLI.make_trainer = made  # type: ignore[method-assign]
    return clock.speed


def command() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="all recipes but the papers' if not given")
    parser.add_argument("--seconds", type=float, default=20, help="of each of the four, in all")
    parser.add_argument("--workers", type=int, help="in the place of the configs' own")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data.json"))
    args = parser.parse_args()
    skipped = ("overlays", "sweeps", "paper")
    found = [str(file) for file in sorted(Path("configs").glob("*/*.yaml")) if file.parent.name not in skipped]
    configs = args.configs or found
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in pool.map(measure, [(config, args.seconds, args.workers) for config in configs]):
            if row is not None:
                rows = [other for other in rows if other["config"] != row["config"]] + [row]
                args.out.write_text(json.dumps(rows, indent=1) + "\n")  # after each: nothing is lost on Ctrl-C
    names = {"data": "data alone", "end_to_end": "end to end", "in_memory": "in memory", "finished": "finished"}
    table = Table("config", "batch", "workers", *names.values(), "share", "of finished", title="examples/s")
    for row in rows:
        shares = [f"{row[key]:.2f}" for key in ("share", "share_of_finished")]
        found = [f"{row[key]:,.0f}" for key in names]
        table.add_row(row["config"], str(row["batch_size"]), str(row["workers"]), *found, *shares)
    Console().print(table)


if __name__ == "__main__":
    command()
