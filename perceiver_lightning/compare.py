"""Compares runs: a table of what they reached and how they differ, and a picture or a page of their curves.

    python -m perceiver_lightning.compare RUN [RUN ...] [--output curves.png] [--html page.html]

A RUN is the folder of a training, with config.yaml and metrics.csv, or what Weights & Biases keeps of a run on this
machine: a folder `wandb/offline-run-*`, or the `.wandb` file in it. With an account or without, nothing is fetched.
What `python -m perceiver_lightning baseline` wrote for the same name stands beside.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from perceiver_lightning.analysis.baselines import baselines
from perceiver_lightning.analysis.runs import Incomplete, Run, differences, read_run, results, table
from perceiver_lightning.errors import InputError
from perceiver_lightning.names import print_any_name


def compare(runs: Sequence[Run | str | Path], curves: str | Path | None = None) -> dict[str, list[str]]:
    """What runs, or those in these folders, reached and where they differ, as text: `{row: [one cell a run]}`.

    Args:
        runs: or folders, those of W&B too.
        curves: a file for the picture of their curves.
    """
    loaded = [run if isinstance(run, Run) else read_run(run) for run in runs]
    if curves is not None:
        from perceiver_lightning.analysis import plots  # here, as drawing is slow to load

        plots.plot(loaded, curves)
    return results(loaded) | differences(loaded)


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in these folders, each once, under different names.

    Those of several that are not runs, or not yet, are passed over with a line on stderr.

    Raises:
        InputError: there is no such folder, one of its files is broken, or no run is left.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        try:
            run = read_run(folder)
        except Incomplete as error:
            if len(folders) == 1:
                raise
            print(f"passed over {error}", file=sys.stderr)
        else:
            runs[run.folder.resolve()] = run
    if not runs:
        raise InputError(f"expected a run among {len(folders)} folders, found none")
    names = [run.name for run in runs.values()]
    return [run if names.count(run.name) == 1 else replace(run, name=str(run.folder)) for run in runs.values()]


def main(args: Sequence[str] | None = None) -> None:
    """The command; the process's own arguments if None.

    Raises:
        SystemExit: with status 2, after one sentence, when the input is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m perceiver_lightning.compare", description="Compare runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, runs/<name>/version_<k>, or W&B's")
    parser.add_argument("--output", metavar="FILE", help="the picture; curves.png of the first run if not given")
    parser.add_argument("--html", metavar="FILE", help="a page with table and curves, complete in itself")
    given = parser.parse_args(args)
    print_any_name()
    try:
        runs = read_runs(given.runs)
        beside = baselines(runs)
        from perceiver_lightning.analysis import page, plots  # here, as drawing is slow to load

        file = Path(given.output or runs[0].folder / "curves.png")
        plots.plot(runs, file)
        if given.html:
            page.write(runs, given.html, beside)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    Console().print(table([*runs, *beside]))
    print(f"curves   {file}")
    if given.html:
        print(f"page     {given.html}")


if __name__ == "__main__":
    main()
