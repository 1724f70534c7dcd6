"""Runs in Weights & Biases: one for each run's folder, with its configuration, pictures and worst mistakes.

W&B itself is imported where it is needed: it is slow to load.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from perceiver_lightning.training.explain import figures, first_rows
from perceiver_lightning.training.measures import FACTS
from perceiver_lightning.training.wandb_logger import Wandb, logger_of

log = logging.getLogger(__name__)


class WandbReport(Callback):
    """What a run of Weights & Biases has beside its metrics.

    In its config: the run's whole config.yaml, and under `facts` its facts.json. After each validation, as far as the
    task's `validation_step` returns what it judged, as ClassificationTask's does:

        val/confusion_matrix   a picture, a row for each true class; of all devices; for one label per example
        val/worst_mistakes     a table of the wrong examples with the highest losses, pictures beside them where the
                               data are pictures; of the first device
        val/attention/<name>   where the model looks in the first examples, the same each time, by modality
                               (`analysis.drawing.draw`); of any task that has a Perceiver as `.perceiver`, of an
                               ensemble's first member

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
        config = yaml.safe_load((Path(folder) / "config.yaml").read_text())
        facts = json.loads((Path(folder) / FACTS).read_text())
        logger.experiment.config.update({**config, "facts": facts}, allow_val_change=True)
        self.told = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the validation before."""
        self.confusion: Tensor | None = None
        self.mistakes: list[dict[str, Any]] = []
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
        """Count, keep the worst mistakes so far, and draw the attention in the first examples."""
        if logger_of(trainer) is None or trainer.sanity_checking:
            return
        is_first = trainer.is_global_zero and batch_idx == dataloader_idx == 0
        if is_first and self.looks and hasattr(pl_module, "perceiver"):
            perceiver: Any = pl_module.perceiver
            rows = first_rows(batch)[: self.looks]
            try:
                self.drawn = figures(perceiver, batch, rows, getattr(trainer, "datamodule", None))
            except ValueError as error:  # of more axes than can be drawn: a training is not to end for that
                self.looks = 0
                log.warning("Attention is not logged to W&B: %s", error)
        if not isinstance(outputs, dict) or "probabilities" not in outputs:
            return
        probabilities_EK, labels = outputs["probabilities"].float(), outputs["labels"]
        if labels.ndim == 1:
            counts_KK = confusion_matrix(probabilities_EK, labels)
            self.confusion = counts_KK if self.confusion is None else self.confusion + counts_KK
        if trainer.is_global_zero:
            found = mistakes(probabilities_EK, labels, outputs["row"], batch, batch_idx, self.worst)
            self.mistakes = sorted(self.mistakes + found, key=lambda row: -row["loss"])[: self.worst]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log pictures and table."""
        logger = logger_of(trainer)
        if logger is None or trainer.sanity_checking:
            return
        step = max(trainer.global_step - 1, 0)  # as Lightning counts the metrics of this validation
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        if self.confusion is not None:
            counts_KK = trainer.strategy.reduce(self.confusion, reduce_op="sum")
            if trainer.is_global_zero:
                log_confusion_matrix(logger, counts_KK.cpu(), names, step)
        if trainer.is_global_zero and self.mistakes:
            log_mistakes(logger, self.mistakes, names, step)
        if self.drawn:
            log_attention(logger, self.drawn, step)


def confusion_matrix(probabilities_EK: Tensor, labels_E: Tensor) -> Tensor:
    """How often an example of one class, the row, was taken for another, the column: counts (K, K)."""
    K = probabilities_EK.shape[1]
    pairs = labels_E * K + probabilities_EK.argmax(-1)
    return torch.bincount(pairs, minlength=K * K).reshape(K, K)


def mistakes(
    probabilities_EK: Tensor, labels: Tensor, row_E: Tensor, batch: Any, batch_idx: int, most: int
) -> list[dict[str, Any]]:
    """The wrong examples of a batch with the highest losses, `most` at most.

    Returns:
        for each: name, picture (H, W, C) or None, true and predicted classes, their probabilities, loss.
    """
    if labels.ndim == 1:
        loss_E = F.nll_loss(probabilities_EK.clamp_min(1e-12).log(), labels, reduction="none")
        wrong_E = probabilities_EK.argmax(-1) != labels
    else:
        loss_E = F.binary_cross_entropy(probabilities_EK, labels.to(probabilities_EK), reduction="none").mean(-1)
        wrong_E = ((probabilities_EK > 0.5) != labels.bool()).any(-1)
    found = []
    for index in loss_E.where(wrong_E, -1).argsort(descending=True)[: min(most, int(wrong_E.sum()))].tolist():
        row = int(row_E[index])
        probabilities_K = probabilities_EK[index]
        if labels.ndim == 1:
            true, predicted = [int(labels[index])], [int(probabilities_K.argmax())]
        else:
            true, predicted = (
                labels[index].nonzero().flatten().tolist(),
                (probabilities_K > 0.5).nonzero().flatten().tolist(),
            )
        found.append(
            {
                "name": batch["name"][row] if batch.get("name") else f"batch {batch_idx} row {row}",
                "picture": picture(batch["inputs"], row),
                "true": true,
                "predicted": predicted,
                "probability of true": [round(float(probabilities_K[k]), 4) for k in true],
                "probability of predicted": [round(float(probabilities_K[k]), 4) for k in predicted],
                "loss": float(loss_E[index]),
            }
        )
    return found


def picture(inputs: Any, row: int) -> Any:
    """The first modality that is a picture, (H, W, 1 or 3), as bytes from 0 to 255, its range stretched to that."""
    for part in inputs.values():
        content = part["content"][row]
        if content.ndim == 3 and content.shape[-1] in (1, 3):
            content = content.float() - content.min()
            return (255 * content / content.max().clamp_min(1e-12)).byte().cpu().numpy()
    return None


def log_confusion_matrix(logger: Wandb, counts_KK: Tensor, names: list[str] | None, step: int) -> None:
    """As a picture."""
    import wandb

    from perceiver_lightning.analysis.confusion import draw_confusion_matrix

    figure = draw_confusion_matrix(counts_KK.tolist(), names)
    logger.experiment.log({"val/confusion_matrix": wandb.Image(figure), "trainer/global_step": step})


def log_attention(logger: Wandb, drawn: list[dict[str, Any]], step: int) -> None:
    """As pictures, those of all examples by modality."""
    import wandb

    names = dict.fromkeys(name for example in drawn for name in example)
    pictures = {
        f"val/attention/{name}": [wandb.Image(example[name]) for example in drawn if name in example] for name in names
    }
    logger.experiment.log({**pictures, "trainer/global_step": step})


def log_mistakes(logger: Wandb, found: list[dict[str, Any]], names: list[str] | None, step: int) -> None:
    """As a table, the worst first."""
    import wandb

    def cell(key: str, value: Any) -> Any:
        if key == "picture":
            return None if value is None else wandb.Image(value)
        if key in ("true", "predicted"):
            value = [names[k] if names else k for k in value]
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    columns: Any = list(found[0])
    table = wandb.Table(columns=columns, data=[[cell(key, row[key]) for key in columns] for row in found])
    logger.experiment.log({"val/worst_mistakes": table, "trainer/global_step": step})
