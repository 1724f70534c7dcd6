"""What every task shares: the model, training and evaluation steps, optimiser, schedule, checks of a checkpoint.

A task is one file with a subclass of `PerceiverTask`. It says

    which facts it needs of the data    `facts`, names of its own arguments, which the command line fills in
    what is best                        `monitor`, `mode`, and `headline` for the line of each validation
    its targets                         `targets`, `check_targets`
    its loss and its metrics            `loss`, `training_metrics`, `make_metrics`
    what it predicts                    `predictions`, `prediction_columns`, `prediction_rows`

and what it leaves out is done here. `classification.py` and `regression.py` are two examples.

Legend of shapes: B rows of a batch, E examples among them (E = B unless rows share an example), K outputs, L members
of an ensemble (L = 1 unless there is one).
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection

from perceiver_lightning.clock import time_limit, time_spent
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Model
from perceiver_lightning.private import attached_trainer
from perceiver_lightning.tasks.examples import Batch, by_example, name_of
from perceiver_lightning.tasks.loading import check_shapes, fact_difference
from perceiver_lightning.tasks.models import Fusion, make_model, untouched
from perceiver_lightning.training.gather import gather_states
from perceiver_lightning.training.optim import (
    OptimizerName,
    ScheduleName,
    check_optimizer,
    check_schedule,
    make_optimizer,
    make_scheduler,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PerceiverTask(LightningModule, ABC):
    """Trains a Perceiver and evaluates it; a subclass says for what: see this module's docstring.

    Rows of a batch that carry the same `example` (crops, clips) are evaluated and predicted as one, by the mean of
    their predictions; all rows of an example must therefore be in one batch. In training each row stands for itself.

    Logged: `train/loss` and `train/<name>` of `training_metrics`; under `val/` and `test/` the `loss` and the metrics.

    Args:
        modalities: the data's fact `{name: {"channels": C, "resolution": [places per axis]}}`.
        num_outputs: width of the model's output.
        learning_rate: the highest of the training.
        optimizer: "adamw" or "lamb".
        weight_decay: of the weights of linear layers; nothing else decays.
        schedule: of the learning rate after the warm-up, over the steps of the training, or over the time where that
            ends it before (`max_time`): "cosine" to 0; "step", a tenth after each of the milestones;
            "flat_cosine", flat and then a cosine to 0; "constant".
        warmup: share of all steps over which the learning rate rises.
        flat: for "flat_cosine": share of all steps at which the cosine begins.
        milestones: for "step": shares of all steps.
        fusion: of several modalities: "early", in one input array of one Perceiver; "late", the baseline, a
            Perceiver for each and the mean of their outputs.
        members: independently initialised Perceivers that are trained side by side, each by its own loss; the mean of
            their outputs is evaluated and predicted (a deep ensemble). L times the work.
        compile: run the core through torch.compile; checkpoints stay the same.
        perceiver: the arguments of `Perceiver`.

    Raises:
        InputError: an argument is out of its range; the sentence names it.
    """

    facts: ClassVar[tuple[str, ...]] = ("modalities",)
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    headline: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        num_outputs: int,
        *,
        learning_rate: float = 1e-3,
        optimizer: OptimizerName = "adamw",
        weight_decay: float = 0.1,
        schedule: ScheduleName = "cosine",
        warmup: float = 0.05,
        flat: float = 0.5,
        milestones: Sequence[float] = (0.7, 0.85, 0.95),
        fusion: Fusion = "early",
        members: int = 1,
        compile: bool = False,
        **perceiver: Any,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["num_outputs"], logger=False)  # the run's config.yaml says them already
        check_optimizer(learning_rate, weight_decay)
        check_schedule(schedule, warmup, flat, milestones)
        self.perceiver: Model = make_model(modalities, num_outputs, fusion, members, **perceiver)
        self.num_outputs = num_outputs
        self.losses: Any = nn.ModuleDict({split: MeanMetric(nan_strategy=math.nan) for split in ("val", "test")})
        self.metrics: Any = nn.ModuleDict({split: self.make_metrics() for split in ("val", "test")})
        self._checked: set[Any] = set()

    # ---- what a task says

    @abstractmethod
    def targets(self, batch: Batch) -> Tensor:
        """What the outputs of a batch are to be, (B, ...)."""

    def check_targets(self, batch: Batch) -> None:
        """Raise an InputError that names what is wrong with a batch's targets; asked of the first of each stage."""

    @abstractmethod
    def loss(self, outputs_BK: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch."""

    def predictions(self, outputs_BK: Tensor) -> Tensor:
        """What is evaluated and written, (B, K), made of the outputs."""
        return outputs_BK

    def make_metrics(self) -> MetricCollection:
        """Of predictions (E, K) and targets (E, ...); called while the task is being made, after the model."""
        return MetricCollection({})

    def training_metrics(self, outputs_BK: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Numbers of a training batch, whose means over an epoch are logged under `train/`."""
        return {}

    @property
    def target_summary(self) -> str:
        """What the targets are, in a few words, for the first line of a run."""
        return ""

    @property
    def prediction_columns(self) -> list[str]:
        """Names of the columns of predictions.csv."""
        return ["file", *(f"output {k}" for k in range(self.num_outputs))]

    def prediction_rows(self, outputs: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of predictions.csv, of what `predict_step` returned."""
        rows = outputs["predictions"].float().tolist()
        return [(name, *(f"{value:.6g}" for value in row)) for name, row in zip(outputs["name"], rows, strict=True)]

    def captions(self, outputs: Mapping[str, Any]) -> list[str]:
        """What is said of each example that `predict_step` returned, above pictures of where the model looked."""
        return list(outputs["name"])

    def tally(self, outputs: Mapping[str, Any]) -> Tensor | None:
        """Counts of what `validation_step` returned, which add up over batches and devices; None if there are none."""
        return None

    def draw_tally(self, total: Tensor) -> "dict[str, Figure]":
        """Pictures of the sum of all `tally`, by name, for a logger that shows pictures."""
        return {}

    def worst(self, outputs: Mapping[str, Any], batch: Batch, batch_idx: int, most: int) -> list[dict[str, Any]]:
        """The worst examples of what `validation_step` returned: a row of a table each, with its `loss`."""
        return []

    def takes_over(self, fact: str, found: Any) -> bool:
        """Whether the fact `found` in a checkpoint is taken in the place of the data's, where they differ."""
        return False

    # ---- what is done with it

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """Outputs (B, K), float32 or wider, of a batch's `inputs`."""
        return self.member_outputs(inputs).mean(0)

    def member_outputs(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """The outputs (L, B, K) of each member of the ensemble, or of the one model; float32 or wider."""
        outputs = self.perceiver(inputs)
        outputs_LBK = outputs if self.hparams["members"] > 1 else outputs[None]
        if outputs_LBK.ndim != 3:
            raise InputError(
                f"model: num_queries or query_resolution: expected one query, whose output is (B, K), "
                f"for {type(self).__name__}, found outputs of shape {tuple(outputs_LBK.shape[1:])}"
            )
        return outputs_LBK.to(torch.promote_types(outputs_LBK.dtype, torch.float32))

    def setup(self, stage: str) -> None:
        """Compile the core, where wanted; let metrics be computed over all processes."""
        if self.hparams["compile"]:
            self.perceiver.compile()  # in place: the names in the checkpoint stay
        for module in self.modules():
            if isinstance(module, Metric):
                module.dist_sync_fn = gather_states

    def on_fit_start(self) -> None:
        """Let no process wait for another in a validation: one may have a batch less, and no buffer ever changes."""
        if isinstance(self.trainer.model, DistributedDataParallel):
            self.trainer.model.broadcast_buffers = False

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch: the sum of the members', so that each learns as it would alone; their mean is logged."""
        targets = self.targets(batch)
        outputs_LBK = self.member_outputs(batch["inputs"])
        if len(batch["inputs"]) < len(self.hparams["modalities"]):  # a modality left out is one masked: see `untouched`
            outputs_LBK = outputs_LBK + untouched(self.perceiver)
        members, outputs_BK = len(outputs_LBK), outputs_LBK.mean(0)
        loss = self.loss(outputs_LBK.flatten(0, 1), targets.repeat(members, *[1] * (targets.ndim - 1)))
        size = len(outputs_BK)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        for name, value in self.training_metrics(outputs_BK, targets).items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return members * loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and metrics of a batch, under `val/`; returns what was evaluated, for callbacks: see `evaluate`."""
        return self.evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and metrics of a batch, under `test/`; returns what `evaluate` does."""
        return self.evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """`{"name": E names, "predictions": (E, K)}` of a batch without targets; rows without names get numbers."""
        predictions_EK, first_E = by_example(self.predictions(self(batch["inputs"])), batch.get("example"))
        trainer = attached_trainer(self)
        if trainer is not None:  # processes have the batches in turn
            batch_idx = batch_idx * trainer.world_size + trainer.global_rank
        return {"name": [name_of(batch, batch_idx, row) for row in first_E.tolist()], "predictions": predictions_EK}

    def evaluate(self, batch: Batch, split: str) -> dict[str, Tensor]:
        """Count a batch in the loss and metrics of a split, "val" or "test"; return what was evaluated.

        That is `predictions` (E, K), `targets` (E, ...), and `row` (E,), the first row of each example.
        Nothing here may wait for other processes: they have other numbers of batches.
        """
        targets, outputs_BK = self.targets(batch), self(batch["inputs"])
        self.losses[split].update(self.loss(outputs_BK, targets), len(outputs_BK))
        predictions_EK, first_E = by_example(self.predictions(outputs_BK), batch.get("example"))
        targets = self.metric_targets(targets)[first_E]
        self.metrics[split].update(predictions_EK, targets)
        return {"predictions": predictions_EK, "targets": targets, "row": first_E}

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._begin("val")

    def on_validation_epoch_end(self) -> None:
        """Log the loss and metrics over all batches and processes."""
        self._log_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Begin to count."""
        self._begin("test")

    def on_test_epoch_end(self) -> None:
        """Log the loss and metrics over all batches and processes."""
        self._log_evaluation("test")

    def _begin(self, split: str) -> None:
        for counted in (self.losses[split], self.metrics[split]):
            counted.reset()

    def _log_evaluation(self, split: str) -> None:
        values = {"loss": self.losses[split].compute(), **self.metrics[split].compute()}
        self.log_dict({f"{split}/{name}": value for name, value in values.items()}, batch_size=1)

    def metric_targets(self, targets: Tensor) -> Tensor:
        """Targets as the metrics take them."""
        return targets

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Check the first batch's targets."""
        self._check_first(batch)

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Check the first batch's targets."""
        self._check_first(batch)

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Check the first batch's targets."""
        self._check_first(batch)

    def _check_first(self, batch: Batch) -> None:
        if (stage := self.trainer.state.stage) not in self._checked:
            self.check_targets(batch)
            self._checked.add(stage)

    # ---- how it is trained

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and its learning rate over the steps of the whole training."""
        given, mixed = self.hparams, isinstance(self.trainer.precision_plugin, MixedPrecision)
        optimizer = make_optimizer(
            self.perceiver, given["optimizer"], given["learning_rate"], given["weight_decay"], mixed
        )
        scheduler = make_scheduler(
            optimizer,
            self.trainer.estimated_stepping_batches,
            given["schedule"],
            given["warmup"],
            given["flat"],
            given["milestones"],
            time_spent=self._time_spent if time_limit(self.trainer) else None,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _time_spent(self) -> float:
        """Share of the limit of time, the same in all processes."""
        return self.trainer.strategy.broadcast(time_spent(self.trainer))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does it, but the norm of each member of an ensemble by itself."""
        if self.hparams["members"] > 1 and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            for member in self.perceiver.members:
                clip_grad_norm_(member.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # ---- how it is loaded

    @property
    def predicts(self) -> bool:
        """Whether a Trainer predicts with it just now."""
        trainer = attached_trainer(self)
        return trainer is not None and trainer.state.fn == TrainerFn.PREDICTING

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint from other data or of another architecture.

        Raises:
            InputError: naming the fact, or the first few weights with both shapes.
        """
        trainer = attached_trainer(self)
        where = f"checkpoint {trainer.ckpt_path}" if trainer is not None and trainer.ckpt_path else "checkpoint"
        theirs = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        for fact in self.facts:
            found, expected = theirs.get(fact), self.hparams[fact]
            if found is None or expected is None or json.dumps(found) == json.dumps(expected):
                continue
            if not self.takes_over(fact, found):
                raise InputError(f"{where}: {fact_difference(fact, expected, found)}")
            self.hparams[fact] = found
        check_shapes(self.state_dict(), checkpoint["state_dict"], where)
