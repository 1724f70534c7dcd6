"""Runs in Weights & Biases: one for each run's folder, with its configuration, pictures and worst mistakes.

W&B itself is imported where it is needed: it is slow to load.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from perceiver_lightning.errors import InputError
from perceiver_lightning.training.explain import figures, first_rows
from perceiver_lightning.training.measures import FACTS

log = logging.getLogger(__name__)
ID = "wandb_id"  # file in a run's folder
REMEDY = "run `wandb login` once, or set WANDB_MODE=offline, which needs no account"


class Wandb(WandbLogger):
    """Lightning's logger of Weights & Biases, for a run with a folder of its own.

    W&B's files lie in that folder, and so does the id of its run, so that a training which goes on in the folder goes
    on in the same run of W&B. That run ends with the command, not with the process, which may train more than once.

    `WANDB_MODE=offline` in the environment needs no account; `wandb sync RUN/wandb/offline-run-*` uploads it later.
    `log_model: true` keeps the checkpoints as artifacts.
    """

    run: Path | None = None

    def __init__(self, **options: Any) -> None:
        offline = options.pop("offline", False)  # Lightning refuses it together with log_model; W&B does not
        super().__init__(**options)
        if offline:
            self._wandb_init["mode"] = "offline"
        self._wandb_init.pop("anonymous", None)  # Lightning's, makes every run begin with a warning
        if not (options.get("project") or os.environ.get("WANDB_PROJECT")):
            self._project = self._wandb_init["project"] = "perceiver"

    def keep_in(self, run: Path) -> None:
        """Keep W&B's run in the folder of this one, as far as the logger's own arguments leave that open."""
        self.run = run
        if self._wandb_init["dir"] in (None, "."):
            self._save_dir = self._wandb_init["dir"] = str(run)
        if self._wandb_init["name"] is None:
            self._name = self._wandb_init["name"] = "/".join(run.absolute().parts[-2:])
        if self._wandb_init["id"] is None and (run / ID).is_file():
            self._id = self._wandb_init["id"] = (run / ID).read_text().strip()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun when it is first asked for.

        Raises:
            InputError: W&B does not begin it: nobody is logged in, it cannot be reached, a setting is wrong.
        """
        if self._experiment is None:
            from pydantic import ValidationError
            from wandb import Error

            try:
                experiment: Any = super().experiment
            except ValidationError as error:  # of a setting
                of = error.errors()[0]
                wanted = of["msg"].removeprefix("Input should be ")
                setting = f"WANDB_{'_'.join(map(str, of['loc'])).upper()}"
                raise InputError(f"{setting}: expected {wanted}, found {of['input']!r}; {REMEDY}") from error
            except Error as error:
                said = " ".join(str(error).split()).removesuffix(".")
                raise InputError(
                    f"trainer.logger Wandb: expected W&B to begin a run, found: {said}; {REMEDY}"
                ) from error
            if self.run is not None and not getattr(experiment, "disabled", False):
                (self.run / ID).write_text(f"{experiment.id}\n")
        return self._experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the checkpoints as artifacts, where asked for, and end W&B's run."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


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


def logger_of(trainer: Trainer) -> Wandb | None:
    """The trainer's logger to W&B."""
    return next((logger for logger in trainer.loggers if isinstance(logger, Wandb)), None)


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

    from perceiver_lightning.analysis.plots import draw_confusion_matrix

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
