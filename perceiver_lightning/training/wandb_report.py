"""What a run of Weights & Biases has beside its metrics: configuration, pictures, the worst examples.

W&B itself is imported where it is needed: it is slow to load.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from perceiver_lightning.names import shown
from perceiver_lightning.training.explain import figures, first_rows
from perceiver_lightning.training.gather import gather
from perceiver_lightning.training.measures import FACTS_FILE
from perceiver_lightning.training.wandb_logger import Wandb, logger_of
from perceiver_lightning.yaml_text import load

log = logging.getLogger(__name__)


class WandbReport(Callback):
    """What a run of Weights & Biases has beside its metrics.

    In its config: the run's whole config.yaml, and under `facts` its facts.json. After each validation, as far as the
    task has them (`tasks/base.py`):

        val/<name>             pictures of the task's `tally`, of all devices, such as confusion_matrix
        val/worst_mistakes     a table of the task's `worst` examples, pictures beside them where the data are pictures;
                               of the first device
        val/attention/<name>   where the model looks in the first examples, the same each time, by modality
                               (`analysis.attention.drawing.draw`); of an ensemble's first member

    Args:
        worst: rows of that table.
        looks: examples of which the attention is drawn.
    """

    def __init__(self, worst: int = 16, looks: int = 2) -> None:
        self.worst = worst
        self.looks = looks
        self.told = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The run's folder has its files by now."""
        logger, folder = logger_of(trainer), trainer.log_dir
        if logger is None or self.told or not trainer.is_global_zero or not folder:
            return
        config = load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
        facts = json.loads((Path(folder) / FACTS_FILE).read_text())
        logger.experiment.config.update({**config, "facts": facts}, allow_val_change=True)
        self.told = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the validation before."""
        self.tally: Tensor | None = None
        self.rows: list[dict[str, Any]] = []
        self.drawn: list[dict[str, Any]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count, keep the worst examples so far, and draw the attention in the first examples."""
        if logger_of(trainer) is None or trainer.sanity_checking:
            return
        is_first = trainer.is_global_zero and batch_idx == dataloader_idx == 0
        task: Any = pl_module
        if is_first and self.looks and hasattr(task, "perceiver"):
            rows = first_rows(batch)[: self.looks]
            try:
                self.drawn = figures(task.perceiver, batch, rows, getattr(trainer, "datamodule", None))
            except ValueError as error:  # of more axes than can be drawn: a training is not to end for that
                self.looks = 0
                log.warning("Attention is not logged to W&B: %s", error)
        if not hasattr(task, "tally"):
            return
        counts = task.tally(outputs)
        if counts is not None:
            self.tally = counts if self.tally is None else self.tally + counts
        if trainer.is_global_zero:
            found = [with_picture(row, batch) for row in task.worst(outputs, batch, batch_idx, self.worst)]
            self.rows = sorted(self.rows + found, key=lambda row: -row["loss"])[: self.worst]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log pictures and table."""
        logger = logger_of(trainer)
        if logger is None or trainer.sanity_checking:
            return
        step = max(trainer.global_step - 1, 0)  # as Lightning counts the metrics of this validation
        task: Any = pl_module
        tallies = [tally for tally in gather(None if self.tally is None else self.tally.cpu()) if tally is not None]
        if tallies and trainer.is_global_zero:
            log_figures(logger, task.draw_tally(sum(tallies)), step)
        if trainer.is_global_zero and self.rows:
            log_worst(logger, self.rows, step)
        if self.drawn:
            log_attention(logger, self.drawn, step)


def with_picture(row: Mapping[str, Any], batch: Any) -> dict[str, Any]:
    """A row of the table: name, picture, whatever the task says, and the loss; `row` is the example's in the batch."""
    rest = {key: value for key, value in row.items() if key not in ("name", "row", "loss")}
    return {"name": row["name"], "picture": picture(batch["inputs"], row["row"]), **rest, "loss": row["loss"]}


def picture(inputs: Any, row: int) -> Any:
    """The first modality that is a picture, (H, W, 1 or 3), as bytes from 0 to 255, its range stretched to that."""
    for part in inputs.values():
        content = part["content"][row]
        if content.ndim == 3 and content.shape[-1] in (1, 3):
            if "mask" in part:
                content = content.masked_fill(~part["mask"][row][..., None], 0)
            content = content.float() - content.min()
            return (255 * content / content.max().clamp_min(1e-12)).byte().cpu().numpy()
    return None


def log_figures(logger: Wandb, figures: Mapping[str, Figure], step: int) -> None:
    """As pictures."""
    import wandb

    pictures = {f"val/{name}": wandb.Image(figure) for name, figure in figures.items()}
    logger.experiment.log({**pictures, "trainer/global_step": step})


def log_attention(logger: Wandb, drawn: list[dict[str, Any]], step: int) -> None:
    """As pictures, those of all examples by modality."""
    import wandb

    names = dict.fromkeys(name for example in drawn for name in example)
    pictures = {
        f"val/attention/{name}": [wandb.Image(example[name]) for example in drawn if name in example] for name in names
    }
    logger.experiment.log({**pictures, "trainer/global_step": step})


def log_worst(logger: Wandb, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """As a table, the worst first."""
    import wandb

    def cell(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return wandb.Image(value)
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        return shown(text) if isinstance(text, str) else text

    columns: Any = list(rows[0])
    table = wandb.Table(columns=columns, data=[[cell(row[key]) for key in columns] for row in rows])
    logger.experiment.log({"val/worst_mistakes": table, "trainer/global_step": step})
