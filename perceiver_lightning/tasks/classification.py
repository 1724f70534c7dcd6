"""Classification: from a batch through the Perceiver to loss, metrics and optimiser.

Legend of shapes: B rows of a batch, E examples among them (E = B unless rows share an example), K classes, L members
of an ensemble (L = 1 unless there is one).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelAveragePrecision,
    MultilabelConfusionMatrix,
    MultilabelF1Score,
)

from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Ensemble, LateFusion, Model, Perceiver
from perceiver_lightning.training.optim import (
    OptimizerName,
    ScheduleName,
    check_optimizer,
    check_schedule,
    make_optimizer,
    make_scheduler,
)

Batch = Mapping[str, Any]
FACTS = ("modalities", "num_classes", "multilabel", "class_names")


class ClassificationTask(LightningModule):
    """Trains and judges a Perceiver that tells classes, one per example or several (`multilabel`).

    Rows of a batch that carry the same `example` (crops, clips) are judged and predicted as one, by the mean of their
    probabilities; all rows of an example must therefore be in one batch. In training each row stands for itself.

    Logged: `train/loss`, `train/accuracy` (hard labels only), and under `val/` and `test/`: `loss`, `accuracy`, `f1`
    (macro), with one label also `top5` (more than five classes) and `calibration_error`, with several `map` (macro
    mean average precision; accuracy is then the share of right yes-or-noes). After a test `confusion_matrix` holds the
    counts, (K, K) with a row for each true class, or (K, 2, 2) with several labels.

    Args:
        modalities: the data's fact `{name: {"channels": C, "resolution": [places per axis]}}`.
        num_classes: the data's fact K.
        class_names: the data's fact, K names.
        multilabel: the data's fact: any number of classes per example, judged each by a sigmoid.
        learning_rate: the highest of the training.
        optimizer: "adamw" or "lamb".
        weight_decay: of the weights of linear layers; nothing else decays.
        schedule: of the learning rate after the warm-up: "cosine" to 0; "step", a tenth after each of the milestones;
            "flat_cosine", flat and then a cosine to 0; "constant".
        warmup: share of all steps over which the learning rate rises.
        flat: for "flat_cosine": share of all steps at which the cosine begins.
        milestones: for "step": shares of all steps.
        label_smoothing: of the training loss, for one label per example.
        class_weights: weigh classes in the training loss by their inverse frequency in the train split.
        fusion: of several modalities: "early", in one input array of one Perceiver; "late", the baseline, a
            Perceiver for each and the mean of their logits.
        members: how many Perceivers, which differ in their weights alone, are trained side by side, each by its own
            loss; the mean of their logits is judged and predicted (a deep ensemble). L times the work.
        compile: run the core through torch.compile; checkpoints stay the same.
        perceiver: the arguments of `Perceiver`.

    Raises:
        InputError: when an argument cannot be; the sentence names it.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        num_classes: int,
        class_names: Sequence[str] | None = None,
        multilabel: bool = False,
        *,
        learning_rate: float = 1e-3,
        optimizer: OptimizerName = "adamw",
        weight_decay: float = 0.1,
        schedule: ScheduleName = "cosine",
        warmup: float = 0.05,
        flat: float = 0.5,
        milestones: Sequence[float] = (0.7, 0.85, 0.95),
        label_smoothing: float = 0.0,
        class_weights: bool = False,
        fusion: Literal["early", "late"] = "early",
        members: int = 1,
        compile: bool = False,
        **perceiver: Any,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False)  # the run's config.yaml says them already
        check_optimizer(learning_rate, weight_decay)
        check_schedule(schedule, warmup, flat, milestones)
        if fusion not in ("early", "late"):
            raise InputError(f"fusion is {fusion!r}: expected early or late")
        if members < 1 or (members > 1 and fusion == "late"):
            expected = "1, as fusion is late" if fusion == "late" else "1 or more"
            raise InputError(f"members is {members}: expected {expected}")
        if num_classes < 2:
            raise InputError(f"num_classes is {num_classes}: expected 2 or more")
        if class_names is not None and len(class_names) != num_classes:
            raise InputError(f"class_names has {len(class_names)} names: expected num_classes, {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}: expected 0 or more and below 1")
        if label_smoothing and multilabel:
            raise InputError(
                f"label_smoothing is {label_smoothing}: expected 0 for data with several labels per example"
            )
        try:
            self.perceiver: Model
            if fusion == "late":
                self.perceiver = LateFusion(modalities, num_classes, **perceiver)
            elif members > 1:
                self.perceiver = Ensemble(members, modalities, num_classes, **perceiver)
            else:
                self.perceiver = Perceiver(modalities, num_classes, **perceiver)
        except ValueError as error:
            raise InputError(f"model: {error}") from error
        self.multilabel = multilabel
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weight", None, persistent=False)
        self.val_metrics = make_metrics(num_classes, multilabel).clone(prefix="val/")
        self.test_metrics = make_metrics(num_classes, multilabel).clone(prefix="test/")
        self.test_confusion = (MultilabelConfusionMatrix if multilabel else MulticlassConfusionMatrix)(num_classes)
        self.confusion_matrix: Tensor | None = None

    def setup(self, stage: str) -> None:
        """Compile the core, and ask the datamodule for the frequencies of the classes, where wanted."""
        if self.hparams["compile"]:
            self.perceiver.compile()  # in place: the names in the checkpoint stay
        if self.hparams["class_weights"] and stage == "fit":
            datamodule: Any = getattr(self.trainer, "datamodule", None)
            if not hasattr(datamodule, "class_counts"):
                found = "no datamodule" if datamodule is None else f"{type(datamodule).__name__}, which has none"
                raise InputError(f"class_weights is true: expected a datamodule with class_counts(), found {found}")
            self.class_weight = class_weights(datamodule.class_counts(), self.multilabel).to(self.device)

    def forward(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """Logits (B, K), float32 at the least, of a batch's `inputs`."""
        return self.member_logits(inputs).mean(0)

    def member_logits(self, inputs: Mapping[str, Mapping[str, Any]]) -> Tensor:
        """What each member of the ensemble says, or the one Perceiver: logits (L, B, K), float32 at the least."""
        logits_LBK = self.perceiver(inputs)
        if not isinstance(self.perceiver, Ensemble):
            logits_LBK = logits_LBK[None]
        if logits_LBK.ndim != 3:
            raise InputError(
                f"model: num_queries or query_resolution gives outputs of shape {tuple(logits_LBK.shape[1:])}: "
                "expected one query, (B, K), for classification"
            )
        return logits_LBK.to(torch.promote_types(logits_LBK.dtype, torch.float32))

    def loss(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy with labels (B,) or shares (B, K), or, for several labels, of a sigmoid for each class.

        Smoothed and weighted by class in training; plain in evaluation, so that runs which differ in that compare.
        """
        weight = self.class_weight.to(logits_BK.dtype) if self.class_weight is not None and self.training else None
        if labels.ndim == 2:
            labels = labels.to(logits_BK.dtype)
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(logits_BK, labels, weight)
        return F.cross_entropy(
            logits_BK, labels, weight, label_smoothing=self.label_smoothing if self.training else 0.0
        )

    def probabilities(self, logits_BK: Tensor) -> Tensor:
        """Probabilities (B, K): they add up to 1, or stand for themselves with several labels."""
        return logits_BK.sigmoid() if self.multilabel else logits_BK.softmax(-1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch: the sum of the members', so that each learns as it would alone; their mean is logged."""
        labels = labels_of(batch)
        logits_LBK = self.member_logits(batch["inputs"])
        members, logits_BK = len(logits_LBK), logits_LBK.mean(0)
        loss = self.loss(logits_LBK.flatten(0, 1), labels.repeat(members, *[1] * (labels.ndim - 1)))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(logits_BK))
        if labels.ndim == 1:
            accuracy = (logits_BK.argmax(-1) == labels).float().mean()
            self.log(
                "train/accuracy", accuracy, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(logits_BK)
            )
        return members * loss

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does it, but the norm of each member of an ensemble by itself."""
        if isinstance(self.perceiver, Ensemble) and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            for member in self.perceiver.members:
                clip_grad_norm_(member.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and metrics of a batch, under `val/`; returns what they judged, for callbacks: see `_evaluate`."""
        return self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss, metrics and confusion matrix of a batch, under `test/`."""
        judged = self._evaluate(batch, self.test_metrics)
        self.test_confusion.update(judged["probabilities"], judged["labels"])

    def on_test_epoch_start(self) -> None:
        """Begin a new confusion matrix."""
        self.test_confusion.reset()

    def on_test_epoch_end(self) -> None:
        """Keep the confusion matrix, of all devices together."""
        self.confusion_matrix = self.test_confusion.compute().cpu()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """`{"name": E names, "probabilities": (E, K)}` of a batch without labels; rows without names get numbers."""
        probabilities_EK, first_E = by_example(self.probabilities(self(batch["inputs"])), batch.get("example"))
        name = batch.get("name") or [f"batch {batch_idx} row {row}" for row in range(int(first_E.max()) + 1)]
        return {"name": [name[row] for row in first_E.tolist()], "probabilities": probabilities_EK}

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        """Log loss and metrics; return what they judged.

        That is `probabilities` (E, K), hard `labels`, (E,) or (E, K), and `row` (E,), the first of each example.
        """
        labels = labels_of(batch)
        logits_BK = self(batch["inputs"])
        self.log(f"{metrics.prefix}loss", self.loss(logits_BK, labels), sync_dist=True, batch_size=len(logits_BK))
        probabilities_EK, first_E = by_example(self.probabilities(logits_BK), batch.get("example"))
        if self.multilabel:
            labels = (labels > 0.5).long()
        elif labels.ndim == 2:
            labels = labels.argmax(-1)
        metrics.update(probabilities_EK, labels[first_E])
        self.log_dict(metrics, batch_size=len(first_E))
        return {"probabilities": probabilities_EK, "labels": labels[first_E], "row": first_E}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and its learning rate over the steps of the whole training."""
        of, mixed = self.hparams, isinstance(self.trainer.precision_plugin, MixedPrecision)
        optimizer = make_optimizer(self.perceiver, of["optimizer"], of["learning_rate"], of["weight_decay"], mixed)
        total = self.trainer.estimated_stepping_batches
        scheduler = make_scheduler(optimizer, total, of["schedule"], of["warmup"], of["flat"], of["milestones"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint from other data or of another architecture.

        Raises:
            InputError: naming the fact, or the first few weights with both shapes.
        """
        path = self._trainer.ckpt_path if self._trainer is not None else None
        where = f"checkpoint {path}" if path else "checkpoint"
        theirs = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        for fact in FACTS:
            found, expected = theirs.get(fact), self.hparams[fact]
            predicts = self._trainer is not None and self._trainer.state.fn == TrainerFn.PREDICTING
            if fact == "class_names" and predicts and found and expected == [str(k) for k in range(len(found))]:
                self.hparams[fact] = expected = found  # the training's folder is gone, and has but numbers to tell
            if found is not None and expected is not None and json.dumps(found) != json.dumps(expected):
                if fact == "class_names":
                    fact, found, expected = first_difference(found, expected)
                raise InputError(f"{where}: expected {fact} {expected!r} as the data has it, found {found!r}")
        differences = shape_differences(self.state_dict(), checkpoint["state_dict"])
        if differences:
            more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise InputError(f"{where} is of another model: {'; '.join(differences[:3])}{more}")


def make_metrics(num_classes: int, multilabel: bool) -> MetricCollection:
    """What is logged of probabilities (E, K) and labels, (E,) or (E, K), over all batches and devices."""
    chosen: dict[str, Any]
    if multilabel:
        chosen = {
            "map": MultilabelAveragePrecision(num_classes, average="macro"),
            "f1": MultilabelF1Score(num_classes, average="macro"),
            "accuracy": MultilabelAccuracy(num_classes, average="micro"),
        }
    else:
        chosen = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "f1": MulticlassF1Score(num_classes, average="macro"),
            "calibration_error": MulticlassCalibrationError(num_classes),
        }
        if num_classes > 5:
            chosen["top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
    # Compute groups are found by comparing states after the first batch: accuracy and top5, equal there by chance,
    # would be taken for one metric for good.
    return MetricCollection(chosen, compute_groups=False)


def labels_of(batch: Batch) -> Tensor:
    """The batch's labels, (B,) or (B, K); InputError when it has none."""
    if "labels" not in batch:
        raise InputError(
            f"the batch has no labels, only {', '.join(batch)}: fit, validate and test need a datamodule with labels"
        )
    return batch["labels"]


def by_example(probabilities_BK: Tensor, example_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean probabilities (E, K) of the rows of each example, by rising `example`, and the first row (E,) of each."""
    rows_B = torch.arange(len(probabilities_BK), device=probabilities_BK.device)
    if example_B is None:
        return probabilities_BK, rows_B
    examples_E, index_B, counts_E = example_B.unique(return_inverse=True, return_counts=True)
    sums_EK = probabilities_BK.new_zeros(len(examples_E), probabilities_BK.shape[1])
    sums_EK.index_add_(0, index_B, probabilities_BK)
    first_E = torch.full_like(examples_E, len(rows_B)).scatter_reduce_(0, index_B, rows_B, "amin")
    return sums_EK / counts_E[:, None], first_E


def class_weights(counts: Sequence[int], multilabel: bool = False) -> Tensor:
    """Weights (K,) of the classes: the inverse of their counts, with a mean of 1 over what the loss averages over.

    That is over the examples with one label (scikit-learn's "balanced"), and over the classes with several.
    """
    if min(counts) < 1:
        raise InputError(
            f"class_weights is true: expected examples of every class, found none of class {counts.index(0)}"
        )
    counts_K = torch.tensor(counts, dtype=torch.float32)
    mean = (1 / counts_K).mean() if multilabel else len(counts) / counts_K.sum()
    return 1 / counts_K / mean


def first_difference(found: Sequence[str], expected: Sequence[str]) -> tuple[str, str, str]:
    """Where two equally long lists of class names differ first: the place, and the name in each."""
    place = next(i for i, names in enumerate(zip(found, expected, strict=True)) if names[0] != names[1])
    return f"class_names[{place}]", found[place], expected[place]


def shape_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """A phrase for each name whose shape differs between two state dicts, or which only one of them has."""
    phrases = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        shapes = [tuple(state[name].shape) if name in state else "nothing" for state in (expected, found)]
        if shapes[0] != shapes[1]:
            phrases.append(f"{name}: expected {shapes[0]}, found {shapes[1]}")
    return phrases
