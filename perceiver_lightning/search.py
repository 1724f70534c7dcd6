"""Searches for good settings with Optuna, on this machine, from the same file that a sweep of Weights & Biases takes.

    python -m perceiver_lightning.search configs/sweeps/digits.yaml --trials 20 [--name NAME] [--key value ...]

Each trial is a training, `fit` with the file's own arguments, then those given here, then the trial's; it is a run in
`runs/<name>/<number>/version_0`. The search keeps its state beside them, in `runs/<name>/search.journal`: started
again, it goes on, first of all with the training that was cut short.

Of W&B's file it reads `command`, `metric`, `method` (bayes, random) and `parameters` with `value`, `values`, or `min`
and `max` (distribution uniform, int_uniform or log_uniform_values). The best value of the metric counts, not the last.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perceiver_lightning.analysis.runs import as_text, load_metrics, number
from perceiver_lightning.cli import main
from perceiver_lightning.cli.reports import command, path_as_typed
from perceiver_lightning.errors import InputError
from perceiver_lightning.names import print_any_name, quoted
from perceiver_lightning.yaml_text import load

WANDB_OVERLAY = "overlays/wandb.yaml"  # in a sweep's command for W&B alone


class Sweep:
    """What to search for: a file in W&B's form.

    Args:
        file: the YAML file.

    Raises:
        InputError: it cannot be read, or says something that is not understood here; the sentence names file and key.
    """

    def __init__(self, file: str | Path) -> None:
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
            load(text)  # which refuses a key that is there twice
            found = yaml.safe_load(text)  # as W&B reads it
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{file}: expected a sweep in YAML, found {' '.join(str(error).split())}") from error
        self.file = file
        wanted = {"command": list, "metric": dict, "parameters": dict}
        for key, kind in wanted.items():
            part = found.get(key) if isinstance(found, dict) else None
            if not isinstance(part, kind) or not part:
                raise InputError(f"{file}: expected {key}, a {kind.__name__}, found {part!r}")
        self.spaces: dict[str, Any] = found["parameters"]
        self.metric, goal = found["metric"].get("name"), found["metric"].get("goal", "minimize")
        if goal not in ("minimize", "maximize") or not isinstance(self.metric, str):
            raise InputError(
                f"{file}: expected metric with a name and goal minimize or maximize, found {found['metric']}"
            )
        self.direction: Literal["minimize", "maximize"] = goal
        self.method = found.get("method", "bayes")
        if self.method not in ("bayes", "random"):
            raise InputError(f"{file}: expected method bayes or random, found {self.method}")
        words = list(map(str, found["command"]))
        if "fit" not in words or "${args}" not in words:
            raise InputError(f"{file}: expected command with fit and, behind it, ${{args}}, found {' '.join(words)}")
        own = words[words.index("fit") + 1 : words.index("${args}")]
        self.arguments = [word for word in own if not word.endswith(WANDB_OVERLAY)]

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """What proposes the trials."""
        return (optuna.samplers.RandomSampler if self.method == "random" else optuna.samplers.TPESampler)(seed=seed)

    def propose(self, trial: Trial) -> dict[str, Any]:
        """The trial's values."""
        return {key: self._propose(trial, key, space) for key, space in self.spaces.items()}

    def _propose(self, trial: Trial, key: str, space: Any) -> Any:
        where = f"{self.file}, parameters.{key}"
        if not isinstance(space, Mapping) or not ({"value", "values"} & set(space) or {"min", "max"} <= set(space)):
            raise InputError(f"{where}: expected value, values, or min and max, found {space}")
        if "value" in space:
            return space["value"]
        if "values" in space:
            return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in space["values"]]))
        low, high = space["min"], space["max"]
        ints = isinstance(low, int) and isinstance(high, int)
        kind = space.get("distribution", "int_uniform" if ints else "uniform")
        try:
            if kind == "int_uniform":
                return trial.suggest_int(key, low, high)
            if kind in ("uniform", "log_uniform_values"):
                return trial.suggest_float(key, low, high, log=kind != "uniform")
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}: expected numbers with min below max, found {low} and {high}") from error
        raise InputError(f"{where}: expected distribution uniform, int_uniform or log_uniform_values, found {kind}")


def search(sweep: Sweep, folder: Path, trials: int, extra: Sequence[str] = ()) -> optuna.Study:
    """Run trials until there are so many, those of earlier starts included.

    Args:
        folder: `<runs_dir>/<name>`, where the trials' runs and the search's state are kept.
        extra: arguments of `fit`.

    Returns:
        Optuna's study; `user_attrs["arguments"]` of a trial are its own arguments.

    Raises:
        InputError: another process searches in that folder, or no training logs the metric.
        SystemExit: bad input before any trial was completed (2), or an interruption (130).
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "search.lock", timeout=0):
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder / "search.journal"))),
                study_name="search",
                direction=sweep.direction,
                load_if_exists=True,
            )
            study.sampler = sweep.sampler(seed=len(study.trials))  # not the same proposals after each start
            for cut in study.get_trials(states=(TrialState.RUNNING,)):
                train(study, sweep, folder, cut.number, cut.user_attrs.get("arguments"), extra)
            while sum(trial.state.is_finished() for trial in study.trials) < trials:
                trial = study.ask()
                arguments = [f"--{key}={as_text(value)}" for key, value in sweep.propose(trial).items()]
                trial.set_user_attr("arguments", arguments)
                train(study, sweep, folder, trial.number, arguments, extra)
    except Timeout as error:
        raise InputError(f"{folder}: expected no other search in it, found one that runs") from error
    return study


def train(
    study: optuna.Study, sweep: Sweep, folder: Path, trial: int, own: Sequence[str] | None, extra: Sequence[str]
) -> None:
    """Train, or go on with what was cut short, and tell the study."""
    if own is None:  # cut short before it was proposed
        study.tell(trial, state=TrialState.FAIL)
        return
    print(f"\ntrial {trial}: {' '.join(own)}", flush=True)
    kept = sorted((folder / str(trial)).glob("version_*/checkpoints/last.ckpt"))
    where = [f"--runs_dir={folder.parent}", f"--name={folder.name}/{trial}"]
    try:
        main(["fit", f"--ckpt_path={kept[-1]}"] if kept else ["fit", *sweep.arguments, *extra, *where, *own])
    except SystemExit as stop:
        if stop.code != 2:
            raise
        if not kept:  # else it had come to its end, and only the study did not know
            study.tell(trial, state=TrialState.FAIL)
            if not study.get_trials(states=(TrialState.COMPLETE,)) and not run_of(folder, trial).exists():
                raise  # nothing was trained: such input may be wrong for all
            return
    study.tell(trial, best_value(sweep, run_of(folder, trial)))


def run_of(folder: Path, trial: int) -> Path:
    """The folder of a trial's run."""
    return max((folder / str(trial)).glob("version_*"), default=folder / str(trial) / "version_0")


def best_value(sweep: Sweep, run: Path) -> float:
    """The best value of the sweep's metric in a run.

    Raises:
        InputError: the run has not logged it.
    """
    metrics = load_metrics(run)
    values = [value for _, value in metrics.get(sweep.metric, []) if not math.isnan(value)]
    if not values:
        logged = ", ".join(key for key in metrics if key.startswith(("train/", "val/")))
        raise InputError(f"{sweep.file}, metric.name: expected one of {logged}, found {sweep.metric}")
    return min(values) if sweep.direction == "minimize" else max(values)


def table(study: optuna.Study, sweep: Sweep) -> Table:
    """All trials that came to an end, the best first."""
    result = Table()
    result.add_column("trial", justify="right")
    result.add_column(Text(f"best {sweep.metric}"), justify="right")
    result.add_column("arguments", overflow="fold")
    done = study.get_trials(states=(TrialState.COMPLETE,))
    sign = 1 if sweep.direction == "minimize" else -1
    for trial in sorted(done, key=lambda trial: sign * (trial.value or 0)):
        words = "\n".join(trial.user_attrs["arguments"])
        result.add_row(str(trial.number), number(trial.value or 0), Text(words))
    return result


def search_from_command_line(args: Sequence[str] | None = None) -> optuna.Study:
    """The command; the process's own arguments if None.

    Raises:
        SystemExit: with status 2, after one sentence, when the input is wrong; with 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="python -m perceiver_lightning.search",
        description="Search for good settings with Optuna. What is not named here is an argument of fit.",
        allow_abbrev=False,
    )
    parser.add_argument("sweep", metavar="FILE", help="what to search for: configs/sweeps/*.yaml")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trainings in all, earlier ones included")
    parser.add_argument("--name", help="the runs are kept in <runs_dir>/<name>; <FILE>-search if not given")
    parser.add_argument("--runs_dir", default="runs", help="the folder of all runs")
    given, extra = parser.parse_known_args(args)
    print_any_name()
    folder = Path(given.runs_dir) / (given.name or f"{Path(given.sweep).stem}-search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sweep = Sweep(given.sweep)
        study = search(sweep, folder, given.trials, extra)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == 130:
            words = " ".join(map(quoted, sys.argv[1:] if args is None else args))
            print(f"go on    {command('perceiver_lightning.search', words)}", flush=True)
        raise
    Console().print(table(study, sweep))
    if study.get_trials(states=(TrialState.COMPLETE,)):
        best = study.best_trial.number
        print(f"best     trial {best}, {path_as_typed(run_of(folder, best))}")
    print(f"compare  {command('perceiver_lightning.compare', f'{path_as_typed(folder)}/*/version_*')}")
    return study


if __name__ == "__main__":
    search_from_command_line()
