"""What `predict` writes."""

import csv
import os
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter

from perceiver_lightning.errors import require
from perceiver_lightning.names import ERRORS, shown
from perceiver_lightning.training.gather import gather


def check_output(output: Path) -> None:
    """Raise an InputError, before the work, where no file can be written."""
    above = next(folder for folder in output.absolute().parents if os.path.exists(folder))
    is_place = os.path.isdir(above) and os.access(above, os.W_OK)
    require(is_place, "--output", "a folder to write in", f"{above} above {output}")
    require(not os.path.isdir(output), "--output", "a CSV file", f"the folder {output}")


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as the task has them in rows and columns (`tasks/base.py`), the first column a file.

    Args:
        output: the CSV file in UTF-8; it appears when it is complete. Names of files that are not UTF-8 keep their own
            bytes (`names.py`): one line on stderr then says how to read it.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(write_interval="epoch")
        self.output = output

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write what all processes predicted."""
        task: Any = pl_module
        ranks = gather([task.prediction_rows(outputs) for outputs in predictions])
        # In the order of the data: ranks have the batches in turn (`datamodules.common.whole_batches`).
        rows = [row for batches in zip_longest(*ranks, fillvalue=[]) for batch in batches for row in batch]
        if trainer.is_global_zero:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.output.with_name(f"{self.output.name}.new")
            with open(temporary, "w", newline="", encoding="utf-8", errors=ERRORS) as file:
                writer = csv.writer(file)
                writer.writerow(task.prediction_columns)
                writer.writerows(rows)
            os.replace(temporary, self.output)
            odd = list(dict.fromkeys(row[0] for row in rows if shown(row[0]) != row[0]))
            if odd:
                print(
                    f"{self.output}: {len(odd)} names of files are not UTF-8, as {shown(odd[0])}: read it with "
                    f'errors="{ERRORS}", pandas with encoding_errors',
                    file=sys.stderr,
                )
