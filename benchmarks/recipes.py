"""What the recipes reach: each is trained as it stands, and what validation chose is tested, once.

    python -m benchmarks.recipes [CONFIG ...] [--arms NAME ...] [--seeds N] [--jobs 1] [--again] [--out FILE]

A config has arms: splits, folds, modalities alone and together. Where several seeds are due, each arm is trained with
each; where the recipe adds noise, its checkpoint is tested with the noise and without. Some have a baseline beside
them (`benchmarks/ridge.py`): ridge classifiers on pooled spectra of sound, a ridge regression on pooled statistics of
points.

A row is written as soon as it is there. What the file has already is not trained again unless `--again` asks for it, or
the config has changed: then its rows are dropped. `--jobs 2` trains two at a time, each on its share of the cores.
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.ridge import ridge_on_points, ridge_on_spectra
from perceiver_lightning.analysis.runs import at_best, read_run
from perceiver_lightning.cli import main as run

WITHOUT_NOISE = "--data.init_args.noise=null"
SPEAKERS = {"official split": [], "two speakers unheard": ["--data.init_args.test_speakers=[theo, yweweler]"]}
FOLDS = {f"fold {fold}": [f"--data.init_args.test_fold={fold}"] for fold in range(1, 6)}
TOGETHER = {"both": [], "both, late fusion": ["--model.init_args.fusion=late"]}
CLIPS = {name: [f"--data.init_args.modalities=[{name}]"] for name in ("video", "audio")} | {
    name: ["--data.init_args.modalities=[video, audio]", *given] for name, given in TOGETHER.items()
}
PAIRS = {
    "image": ["--data.init_args.hide=[audio]"],
    "audio": ["--data.init_args.hide=[image]"],
    **TOGETHER,
}


class Recipe(NamedTuple):
    """A config's arms with what each gives to the command line, its seeds, whether it has noise, its baseline, and the
    metrics that are reported, the most telling one first.
    """

    arms: dict[str, list[str]]
    seeds: int = 1
    noise: bool = False
    baseline: Callable[[Sequence[str]], dict[str, float]] | None = None
    metrics: tuple[str, ...] = ("accuracy",)


RECIPES = {
    "configs/image/digits.yaml": Recipe({"test split": []}, seeds=5),
    "configs/audio/fsdd.yaml": Recipe(SPEAKERS, seeds=3, baseline=partial(ridge_on_spectra, parts=8)),
    "configs/audio/fsdd_waveform.yaml": Recipe({"official split": []}),
    "configs/audio/esc10.yaml": Recipe(FOLDS, baseline=partial(ridge_on_spectra, parts=1)),
    "configs/points/ldraw.yaml": Recipe({"test split": []}, seeds=3),
    "configs/points/ldraw_features.yaml": Recipe({"test split": []}, seeds=3),
    "configs/points/ldraw_size.yaml": Recipe(
        {"test split": []}, seeds=3, baseline=ridge_on_points, metrics=("r2", "rmse", "mae")
    ),
    "configs/video/grid_color.yaml": Recipe(CLIPS, seeds=3, noise=True),
    "configs/audio_visual/grid_letter.yaml": Recipe(CLIPS, seeds=3, noise=True),
    "configs/multimodal/av_digits.yaml": Recipe(PAIRS, seeds=3, noise=True),
    **{
        f"configs/synthetic/{name}.yaml": Recipe({"test split": []}) for name in ["shapes", "tones", "solids", "moving"]
    },
}


class Job(NamedTuple):
    """One row to come: `seed` None for the baseline, which needs none."""

    config: str
    arm: str
    seed: int | None
    runs_dir: str
    threads: int


def measure(job: Job) -> dict[str, Any]:
    """The row of one arm with one seed."""
    torch.set_num_threads(job.threads)
    recipe = RECIPES[job.config]
    given = [f"--config={job.config}", *recipe.arms[job.arm]]
    row: dict[str, Any] = {"config": job.config, "config_hash": hash_of(job.config), "arm": job.arm}
    start = time.monotonic()
    if job.seed is None:
        assert recipe.baseline is not None
        row |= {"method": "ridge", **recipe.baseline(given)}
    else:
        fit = run(["fit", *given, f"--seed_everything={job.seed}", f"--runs_dir={job.runs_dir}"])
        row |= {"method": "Perceiver", "seed": job.seed, "minutes": (time.monotonic() - start) / 60}
        checkpoint = f"--ckpt_path={fit.run}/checkpoints/best.ckpt"
        validation = at_best(read_run(fit.run), f"val/{recipe.metrics[0]}")
        row |= {"steps": fit.trainer.global_step, "validation": validation, **tested(recipe, checkpoint)}
        if recipe.noise:
            row["accuracy_without_noise"] = tested(recipe, checkpoint, WITHOUT_NOISE)["accuracy"]
    return {**row, "threads": job.threads, **machine()}


def tested(recipe: Recipe, *given: str) -> dict[str, float]:
    """The recipe's metrics on the test split."""
    found = run(["test", *given]).trainer.callback_metrics
    return {name: float(found[f"test/{name}"]) for name in recipe.metrics}


def hash_of(config: str) -> str:
    """Tells whether a config is what it was; comments, which say the result, do not count, nor who reads the files and
    where what was read is kept.
    """
    lines = (line.split("#")[0].rstrip() for line in Path(config).read_text().splitlines())
    kept = "\n".join(line for line in lines if line and not line.lstrip().startswith(("num_workers:", "cache:")))
    return hashlib.sha256(kept.encode()).hexdigest()[:12]


def spread_of(values: Sequence[float]) -> str:
    """Mean and standard error, of shares in percent."""
    scale = 100 if all(abs(value) <= 1 for value in values) else 1
    mean = f"{scale * statistics.mean(values):.1f}"
    return f"{mean} ± {scale * statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else mean


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as a table: a line for each arm, and one for the mean over folds."""
    table = Table("config", "arm", "method", "seeds", "minutes", "validation", "test", "without noise")
    for config in dict.fromkeys(row["config"] for row in rows):
        for method in ("Perceiver", "ridge"):
            own = [row for row in rows if row["config"] == config and row["method"] == method]
            arms = dict.fromkeys(row["arm"] for row in own)
            groups = {arm: [row for row in own if row["arm"] == arm] for arm in arms}
            if len(groups) > 1 and set(groups) <= set(FOLDS):
                groups["mean of folds"] = own
            for arm, group in groups.items():
                cells = [
                    spread_of([row[key] for row in group]) if all(row.get(key) is not None for row in group) else ""
                    for key in ("validation", RECIPES[config].metrics[0], "accuracy_without_noise")
                ]
                minutes = f"{max(row['minutes'] for row in group):.1f}" if method == "Perceiver" else ""
                table.add_row(config, arm, method, str(len(group)), minutes, *cells)
    Console(width=140).print(table)


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a results file, none if it is not there; those of configs that have changed since are gone."""
    rows = json.loads(file.read_text()) if file.exists() else []
    return [row for row in rows if row["config_hash"] == hash_of(row["config"])]


def write(rows: list[dict[str, Any]], file: Path) -> None:
    """Write the rows, sorted."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(sorted(rows, key=lambda row: str(key(row))), indent=1) + "\n")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is of: there is one of each."""
    return row["config"], row["arm"], row["method"], row.get("seed")


def main() -> None:
    """Train what is missing, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=f"of {', '.join(RECIPES)}; all if not given")
    parser.add_argument("--arms", nargs="+", help="only these; all if not given")
    parser.add_argument("--seeds", type=int, help="in the place of the recipes' own number")
    parser.add_argument("--jobs", type=int, default=1, choices=range(1, 65), metavar="N", help="trainings side by side")
    parser.add_argument("--again", action="store_true", help="train also what the file has already")
    parser.add_argument("--runs_dir", default="runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recipes.json"))
    args = parser.parse_args()
    for config in args.configs:
        if config not in RECIPES:
            parser.error(f"{config}: expected one of {', '.join(RECIPES)}")
    known = {arm for config in args.configs or RECIPES for arm in RECIPES[config].arms}
    if unknown := set(args.arms or []) - known:
        parser.error(f"--arms: expected some of {', '.join(sorted(known))}, found {', '.join(sorted(unknown))}")
    threads = max(1, torch.get_num_threads() // args.jobs)
    there = set() if args.again else {key(row) for row in read(args.out)}
    jobs = [
        Job(config, arm, seed, args.runs_dir, threads)
        for config in args.configs or RECIPES
        for arm in RECIPES[config].arms
        for seed in [
            *range(args.seeds if args.seeds is not None else RECIPES[config].seeds),
            *[None] * (RECIPES[config].baseline is not None),
        ]
        if (not args.arms or arm in args.arms)
        and (config, arm, "ridge" if seed is None else "Perceiver", seed) not in there
    ]
    write(read(args.out), args.out)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(measure, job) for job in jobs]):
            row = future.result()
            # After each: nothing is lost on Ctrl-C.
            write([*(other for other in read(args.out) if key(other) != key(row)), row], args.out)
    show(read(args.out))


if __name__ == "__main__":
    main()
