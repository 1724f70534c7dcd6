"""Classification: which class an example has, or which of several.

Legend of shapes: B rows of a batch, E examples among them, K classes; `tasks/base.py` has the rest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
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

from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import composed
from perceiver_lightning.tasks.base import PerceiverTask
from perceiver_lightning.tasks.examples import Batch, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ClassificationTask(PerceiverTask):
    """Trains a Perceiver that tells classes, one per example or several (`multilabel`).

    A batch has `labels`, int64 (B,), or float (B, K) for several labels or soft ones (MixUp).

    Logged beside the losses: `train/accuracy` (hard labels only), and under `val/` and `test/`: `accuracy`, `f1`
    (macro), with one label also `top5` (more than five classes) and `calibration_error`, with several `map` (macro
    mean average precision; accuracy is then the share of right yes-or-noes). After a test `confusion_matrix` holds the
    counts, (K, K) with a row for each true class, or (K, 2, 2) with several labels.

    Args:
        modalities: the data's fact `{name: {"channels": C, "resolution": [places per axis]}}`.
        num_classes: the data's fact K.
        class_names: the data's fact, K names.
        multilabel: the data's fact: any number of classes per example, each predicted by a sigmoid.
        label_smoothing: of the training loss, for one label per example.
        class_weights: weigh classes in the training loss by their inverse frequency in the train split.
        options: as all tasks have them (`PerceiverTask`), and the arguments of `Perceiver`.

    Raises:
        InputError: an argument is out of its range; the sentence names it.
    """

    facts = ("modalities", "num_classes", "multilabel", "class_names")
    monitor = "val/accuracy"
    mode = "max"
    headline = ("val/accuracy",)
    class_weight: Tensor | None

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        num_classes: int,
        class_names: Sequence[str] | None = None,
        multilabel: bool = False,
        *,
        label_smoothing: float = 0.0,
        class_weights: bool = False,
        **options: Any,
    ):
        one = f"{num_classes}, {class_names[0]!r}: if it holds the classes, name it as the root" if class_names else ""
        require(num_classes >= 2, "num_classes", "2 or more", one or num_classes)
        if class_names is not None:
            expected = f"{num_classes} names (num_classes)"
            require(len(class_names) == num_classes, "class_names", expected, len(class_names))
        require(0 <= label_smoothing < 1, "label_smoothing", "0 or more and below 1", label_smoothing)
        if multilabel:
            expected = "0 for data with several labels per example"
            require(label_smoothing == 0, "label_smoothing", expected, label_smoothing)
        super().__init__(modalities, num_classes, **options)
        self.multilabel = multilabel
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weight", None, persistent=False)
        self.test_confusion = (MultilabelConfusionMatrix if multilabel else MulticlassConfusionMatrix)(num_classes)
        self.confusion_matrix: Tensor | None = None

    def setup(self, stage: str) -> None:
        """Ask the datamodule for the frequencies of the classes, where wanted."""
        super().setup(stage)
        if self.hparams["class_weights"] and stage == "fit":
            datamodule: Any = getattr(self.trainer, "datamodule", None)
            found = "no datamodule" if datamodule is None else f"{type(datamodule).__name__}, which has none"
            expected = "a datamodule with class_counts(), as it is true"
            require(hasattr(datamodule, "class_counts"), "class_weights", expected, found)
            self.class_weight = class_weights(datamodule.class_counts(), self.multilabel).to(self.device)

    def targets(self, batch: Batch) -> Tensor:
        """The batch's labels, (B,) or (B, K)."""
        require("labels" in batch, "batch['labels']", "a label for each example", f"only {', '.join(batch)}")
        return batch["labels"]

    def check_targets(self, batch: Batch) -> None:
        """Raise an InputError unless the labels are classes of the data, or shares of them."""
        size = len(next(iter(batch["inputs"].values()))["content"])
        check_labels(self.targets(batch), size, self.num_outputs, self.multilabel)

    def loss(self, outputs_BK: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy with labels (B,) or shares (B, K), or, for several labels, of a sigmoid for each class.

        Smoothed and weighted by class in training; plain in evaluation, so that runs which differ in that compare.
        """
        weight = self.class_weight.to(outputs_BK.dtype) if self.class_weight is not None and self.training else None
        if targets.ndim == 2:
            targets = targets.to(outputs_BK.dtype)
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(outputs_BK, targets, weight)
        return F.cross_entropy(
            outputs_BK, targets, weight, label_smoothing=self.label_smoothing if self.training else 0.0
        )

    def predictions(self, outputs_BK: Tensor) -> Tensor:
        """Probabilities (B, K) of logits: they add up to 1, or stand for themselves with several labels."""
        return outputs_BK.sigmoid() if self.multilabel else outputs_BK.softmax(-1)

    def metric_targets(self, targets: Tensor) -> Tensor:
        """Hard labels, (B,), or (B, K) with several."""
        if self.multilabel:
            return (targets > 0.5).long()
        return targets.argmax(-1) if targets.ndim == 2 else targets

    def training_metrics(self, outputs_BK: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The accuracy, where labels are hard."""
        return {"accuracy": (outputs_BK.argmax(-1) == targets).float().mean()} if targets.ndim == 1 else {}

    def make_metrics(self) -> MetricCollection:
        """Of probabilities (E, K) and labels, (E,) or (E, K)."""
        return make_metrics(self.hparams["num_classes"], self.hparams["multilabel"])

    # ---- test

    def on_test_epoch_start(self) -> None:
        """Begin to count, and a new confusion matrix."""
        super().on_test_epoch_start()
        self.test_confusion.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss, metrics and confusion matrix of a batch, under `test/`."""
        found = super().test_step(batch, batch_idx)
        self.test_confusion.update(found["predictions"], found["targets"])
        return found

    def on_test_epoch_end(self) -> None:
        """Log loss and metrics; keep the confusion matrix, of all devices together."""
        super().on_test_epoch_end()
        self.confusion_matrix = self.test_confusion.compute().cpu()

    # ---- what a person is shown

    @property
    def class_names(self) -> list[str]:
        """The names of the classes; numbers where the data have none."""
        return list(self.hparams["class_names"] or map(str, range(self.num_outputs)))

    @property
    def target_summary(self) -> str:
        """As "10 classes"."""
        return f"{self.num_outputs} classes"

    @property
    def prediction_columns(self) -> list[str]:
        """A row for each example, with its most probable class; with several labels a row for each class."""
        return ["file", "class", "probability"]

    def prediction_rows(self, outputs: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of predictions.csv: name, class, probability."""
        rows = []
        for name, values in zip(outputs["name"], outputs["predictions"].float().cpu(), strict=True):
            classes = range(len(values)) if self.multilabel else [int(values.argmax())]
            rows += [(name, self.class_names[k], f"{values[k]:.6f}") for k in classes]
        return rows

    def captions(self, outputs: Mapping[str, Any]) -> list[str]:
        """As "7.png: seven (98%)"."""
        return [
            f"{name}: {most_probable(values.float().tolist(), self.class_names, self.multilabel)}"
            for name, values in zip(outputs["name"], outputs["predictions"], strict=True)
        ]

    def tally(self, outputs: Mapping[str, Any]) -> Tensor | None:
        """How often a class, the row, was taken for another, the column: counts (K, K); None with several labels."""
        return None if self.multilabel else confusion_matrix(outputs["predictions"].float(), outputs["targets"])

    def draw_tally(self, total: Tensor) -> "dict[str, Figure]":
        """The confusion matrix."""
        from perceiver_lightning.analysis.confusion import draw_confusion_matrix  # matplotlib is slow to load

        return {"confusion_matrix": draw_confusion_matrix(total.tolist(), self.hparams["class_names"])}

    def worst(self, outputs: Mapping[str, Any], batch: Batch, batch_idx: int, most: int) -> list[dict[str, Any]]:
        """The wrong examples with the highest losses, with what was taken for what."""
        rows = mistakes(outputs["predictions"].float(), outputs["targets"], most)
        for row in rows:
            number = int(outputs["row"][row.pop("example")])
            for key in ("true", "predicted"):
                row[key] = [self.class_names[k] for k in row[key]]
            row |= {"name": name_of(batch, batch_idx, number), "row": number}
        return rows

    def takes_over(self, fact: str, found: Any) -> bool:
        """Class names of an earlier version that differ in their Unicode form alone.

        In a prediction also where the data, whose training folder is gone, have only numbers to tell.
        """
        if fact != "class_names":
            return False
        numbers = [str(k) for k in range(self.num_outputs)]
        same = list(map(composed, found)) == list(map(composed, self.hparams[fact]))
        return same or (self.predicts and self.hparams[fact] == numbers)


def check_labels(labels: Any, batch_size: int, num_classes: int, multilabel: bool) -> None:
    """Raise an InputError unless labels are int64 (B,), or float (B, K) for several or soft ones, in their range."""
    where = "batch['labels']"
    require(isinstance(labels, Tensor), where, "a tensor", type(labels).__name__)
    hard = labels.ndim == 1 and not multilabel
    kind, shape = ("int64", (batch_size,)) if hard else ("float", (batch_size, num_classes))
    is_kind = labels.dtype == torch.int64 if hard else labels.is_floating_point()
    require(is_kind, where, f"{'an' if hard else 'a'} {kind} tensor", labels.dtype)
    require(tuple(labels.shape) == shape, where, f"the shape {shape}", tuple(labels.shape))
    low, high = labels.min().item(), labels.max().item()
    found = f"{low:g} to {high:g}"
    if hard:
        in_range = low >= 0 and high < num_classes
        require(in_range, where, f"classes from 0 to {num_classes - 1} (num_classes)", found)
        return
    require(bool(torch.isfinite(labels).all()), where, "finite values", "NaN or infinity")
    require(low >= 0 and high <= 1.001, where, "values in [0, 1]", found)
    if not multilabel:
        worst = (labels.float().sum(1) - 1).abs().max().item()
        require(worst < 1e-2, where, "rows that sum to 1 (multilabel is false)", f"a row that is off by {worst:g}")


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


def class_weights(counts: Sequence[int], multilabel: bool = False) -> Tensor:
    """Weights (K,) of the classes: the inverse of their counts, with a mean of 1 over what the loss averages over.

    That is over the examples with one label (scikit-learn's "balanced"), and over the classes with several.
    """
    if min(counts) < 1:
        raise InputError(f"class_weights: expected examples of every class, found none of class {counts.index(0)}")
    counts_K = torch.tensor(counts, dtype=torch.float32)
    mean = (1 / counts_K).mean() if multilabel else len(counts) / counts_K.sum()
    return 1 / counts_K / mean


def confusion_matrix(probabilities_EK: Tensor, labels_E: Tensor) -> Tensor:
    """How often an example of one class, the row, was taken for another, the column: counts (K, K)."""
    K = probabilities_EK.shape[1]
    pairs = labels_E * K + probabilities_EK.argmax(-1)
    return torch.bincount(pairs, minlength=K * K).reshape(K, K)


def mistakes(probabilities_EK: Tensor, labels: Tensor, most: int) -> list[dict[str, Any]]:
    """The wrong examples with the highest losses, `most` at most.

    Returns:
        for each: number of the example, true and predicted classes, their probabilities, loss.
    """
    if labels.ndim == 1:
        loss_E = F.nll_loss(probabilities_EK.clamp_min(1e-12).log(), labels, reduction="none")
        predicted_EK = F.one_hot(probabilities_EK.argmax(-1), probabilities_EK.shape[1]).bool()
        true_EK = F.one_hot(labels, probabilities_EK.shape[1]).bool()
    else:
        loss_E = F.binary_cross_entropy(probabilities_EK, labels.to(probabilities_EK), reduction="none").mean(-1)
        predicted_EK, true_EK = probabilities_EK > 0.5, labels.bool()
    wrong_E = (predicted_EK != true_EK).any(-1)
    rows = []
    for example in loss_E.where(wrong_E, -1).argsort(descending=True)[: min(most, int(wrong_E.sum()))].tolist():
        row: dict[str, Any] = {"example": example, "loss": float(loss_E[example])}
        for key, chosen_EK in (("true", true_EK), ("predicted", predicted_EK)):
            row[key] = chosen_EK[example].nonzero().flatten().tolist()
            row[f"probability of {key}"] = [round(float(probabilities_EK[example, k]), 4) for k in row[key]]
        rows.append(row)
    return rows


def most_probable(probabilities: Sequence[float], class_names: Sequence[str], multilabel: bool = False) -> str:
    """The most probable class, and how probable it is; with several labels all that are, or else that one."""
    order = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    several = [k for k in order if probabilities[k] > 0.5] if multilabel else []
    return ", ".join(f"{class_names[k]} ({probabilities[k]:.0%})" for k in (several or order[:1]))
