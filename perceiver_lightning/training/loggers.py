"""What a run writes down while it trains."""

import csv
import os
from pathlib import Path

from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from perceiver_lightning.errors import InputError
from perceiver_lightning.private import OpenCSVLogger, OpenTensorBoard, OpenWriter


class RunLogger(OpenCSVLogger):
    """`metrics.csv` of a run, which goes on where the run goes on.

    Lightning's own empties the file of a folder that exists. This one keeps its rows, so that a resumed training and
    a later test stand in the same file. Rows of steps that a resumed training takes again are dropped with the first
    new row, not before: a start that fails changes nothing.

    Args:
        run: the run's folder. If None, a new one: `save_dir/name/version_k`.
        last_step: the number of steps taken, for a training that goes on from there: rows of later ones (they are
            numbered from 0) are dropped. None drops none.
    """

    def __init__(self, save_dir: str, name: str, run: Path | None = None, last_step: int | None = None) -> None:
        if run is not None:
            save_dir, name = str(run.parent), ""
        super().__init__(save_dir, name=name, version=run.name if run else None)
        self.last_step = last_step
        self.made: list[Path] = []

    def reserve(self) -> Path:
        """Make the folder of a new run, which is then nobody else's: another start at the same time takes the next.

        `made` are the folders above it that were not there before.

        Raises:
            InputError: it cannot be made there.
        """
        self.made = [folder for folder in Path(self.log_dir).parents[:2] if not os.path.exists(folder)]
        while True:
            try:
                os.makedirs(self.log_dir)
                return Path(self.log_dir)
            except FileExistsError:
                if os.path.isdir(self.log_dir):
                    self.next_version()
                    continue
                raise InputError(f"runs_dir: expected a folder, found a file in the way of {self.log_dir}") from None
            except OSError as error:
                for folder in self.made:  # it may have come half the way
                    if os.path.isdir(folder):
                        folder.rmdir()
                raise InputError(f"runs_dir: expected a folder to write {self.log_dir} in, found {error}") from error

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer of the file; on the first process only."""
        if self.writer is None and getattr(rank_zero_only, "rank", 0) == 0:
            self.writer = MetricsWriter(self.log_dir, self.last_step)
        return super().experiment

    def log_hyperparams(self, params: object = None) -> None:
        """Nothing: config.yaml has them."""


class TensorBoard(OpenTensorBoard):
    """TensorBoard's file beside `metrics.csv`, with the same numbers: `tensorboard --logdir runs` shows all runs."""

    def __init__(self) -> None:
        super().__init__(save_dir=".", name="", version="", default_hp_metric=False)

    def keep_in(self, run: Path, last_step: int | None = None) -> None:
        """Write into the folder of this run; after `last_step` steps, what is there of later ones is out of date."""
        self.write_into(run, purge_step=last_step)

    def log_hyperparams(self, *_: object, **__: object) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def save(self) -> None:
        """Write what waits to be written; Lightning's own adds an empty hparams.yaml."""
        if self.writer is not None:
            self.writer.flush()


class MetricsWriter(OpenWriter):
    """The writer of metrics.csv: see `RunLogger`."""

    def __init__(self, log_dir: str, last_step: int | None) -> None:
        self.last_step = last_step
        super().__init__(log_dir)
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def save(self) -> None:
        """Append the new rows."""
        if self.metrics and self.last_step is not None and os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < self.last_step]
            temporary = f"{self.metrics_file_path}.new"
            with open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, self.metrics_keys)
                writer.writeheader()
                writer.writerows(rows)
            os.replace(temporary, self.metrics_file_path)
        if self.metrics:
            self.last_step = None
        super().save()
