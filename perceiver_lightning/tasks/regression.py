"""Regression: numbers of an example, such as a size, an age or a temperature.

Legend of shapes: B rows of a batch, E examples among them, T targets; `tasks/base.py` has the rest.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score
from torchmetrics.wrappers import LambdaInputTransformer

from perceiver_lightning.errors import require
from perceiver_lightning.tasks.base import PerceiverTask
from perceiver_lightning.tasks.examples import Batch

FAR = 1e3  # standard deviations; a mean farther from zero takes float64, as float32 rounds by 6e-8 of it


class RegressionTask(PerceiverTask):
    """Trains a Perceiver that predicts any count of numbers.

    A batch has `targets`, float (B, T), in the data's own units. The model's outputs are standardised: less the mean of
    the train split, over its standard deviation. The loss is their mean squared error, so a loss of 1 is what a
    constant prediction reaches, and every target counts alike.

    Logged beside the losses, under `val/` and `test/`, in the data's units: `mae`, `rmse` and `r2`; of several targets
    those of each, as `mae_<name>`.

    Args:
        modalities: the data's fact `{name: {"channels": C, "resolution": [places per axis]}}`.
        num_targets: the data's fact T.
        target_names: the data's fact, T names.
        target_mean: the data's fact, the mean of each target over the train split; kept in the checkpoint.
        target_std: the data's fact, the standard deviation of each, likewise.
        options: as all tasks have them (`PerceiverTask`), and the arguments of `Perceiver`.

    Raises:
        InputError: an argument is out of its range; the sentence names it.
    """

    facts = ("modalities", "num_targets", "target_names", "target_mean", "target_std")
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        num_targets: int = 1,
        target_names: Sequence[str] | None = None,
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
        **options: Any,
    ):
        require(num_targets >= 1, "num_targets", "1 or more", num_targets)
        given = {"target_names": target_names, "target_mean": target_mean, "target_std": target_std}
        for key, values in given.items():
            expected = f"{num_targets} values (num_targets)"
            require(values is None or len(values) == num_targets, key, expected, len(values or ()))
        require(min(target_std or [1.0]) > 0, "target_std", "numbers above 0", target_std)
        super().__init__(modalities, num_targets, **options)
        mean, std = self._statistics()
        dtype = torch.float64 if max(self._distances()) > FAR else torch.float32
        self.register_buffer("target_mean", torch.tensor(mean, dtype=dtype))
        self.register_buffer("target_std", torch.tensor(std, dtype=dtype))

    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """The mean and the standard deviation of each target."""
        count = self.hparams["num_targets"]
        return self.hparams["target_mean"] or [0.0] * count, self.hparams["target_std"] or [1.0] * count

    def _distances(self) -> list[float]:
        """How many standard deviations each target's mean lies from zero."""
        return [abs(mean) / std for mean, std in zip(*self._statistics(), strict=True)]

    @property
    def target_names(self) -> list[str]:
        """The names of the targets; numbers where the data have none."""
        return list(self.hparams["target_names"] or (f"target {k}" for k in range(self.hparams["num_targets"])))

    def targets(self, batch: Batch) -> Tensor:
        """The batch's targets, (B, T)."""
        require("targets" in batch, "batch['targets']", "numbers for each example", f"only {', '.join(batch)}")
        return batch["targets"]

    def check_targets(self, batch: Batch) -> None:
        """Raise an InputError unless the targets are finite numbers, T for each example."""
        targets, where = self.targets(batch), "batch['targets']"
        shape = (len(next(iter(batch["inputs"].values()))["content"]), self.num_outputs)
        is_float = isinstance(targets, Tensor) and targets.is_floating_point()
        require(is_float, where, "a float tensor", getattr(targets, "dtype", type(targets).__name__))
        require(tuple(targets.shape) == shape, where, f"the shape {shape}", tuple(targets.shape))
        require(bool(targets.isfinite().all()), where, "finite values", "NaN or infinity")

    def loss(self, outputs_BK: Tensor, targets: Tensor) -> Tensor:
        """The mean squared error of standardised targets."""
        targets = targets.to(torch.promote_types(targets.dtype, outputs_BK.dtype))
        return F.mse_loss(outputs_BK, ((targets - self.target_mean) / self.target_std).to(outputs_BK.dtype))

    def predictions(self, outputs_BK: Tensor) -> Tensor:
        """Numbers (B, T) in the data's units; float64 if their mean is `FAR` from zero."""
        return outputs_BK * self.target_std + self.target_mean

    def make_metrics(self) -> MetricCollection:
        """Of predictions and targets (E, T).

        R² is that of standardised values, which is the same: of others its sums of squares cancel, and torchmetrics
        takes small ones for 0.
        """
        names = self.target_names
        metrics: dict[str, Any] = {}
        for column, (name, mean, std) in enumerate(zip(names, *self._statistics(), strict=True)):
            own, standardised = partial(column_of, column), partial(standardised_column, column, mean, std)
            kinds = {
                "mae": (MeanAbsoluteError(), own),
                "rmse": (MeanSquaredError(squared=False), own),
                "r2": (R2Score(), standardised),
            }
            for kind, (metric, values) in kinds.items():
                key = kind if len(names) == 1 else f"{kind}_{name}"
                metrics[key] = LambdaInputTransformer(metric, transform_pred=values, transform_target=values)
        return MetricCollection(metrics, compute_groups=False)

    @property
    def target_summary(self) -> str:
        """As "to predict: size"."""
        return f"to predict: {', '.join(self.target_names)}"

    @property
    def prediction_columns(self) -> list[str]:
        """A row for each example."""
        return ["file", *self.target_names]

    def captions(self, outputs: Mapping[str, Any]) -> list[str]:
        """As "7.png: size 3.2"."""
        rows = self._digits(outputs["predictions"], 4)
        return [
            f"{name}: {', '.join(f'{key} {value}' for key, value in zip(self.target_names, row, strict=True))}"
            for name, row in zip(outputs["name"], rows, strict=True)
        ]

    def prediction_rows(self, outputs: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of predictions.csv, of what `predict_step` returned."""
        rows = self._digits(outputs["predictions"], 6)
        return [(name, *row) for name, row in zip(outputs["name"], rows, strict=True)]

    def _digits(self, predictions_ET: Tensor, count: int) -> list[list[str]]:
        """Numbers with so many digits, and as many more as their means have in front of what varies."""
        digits = [count + max(0, math.ceil(math.log10(distance or 1))) for distance in self._distances()]
        rows = predictions_ET.tolist()
        return [[f"{value:.{most}g}" for value, most in zip(row, digits, strict=True)] for row in rows]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As of all tasks; the mean and the standard deviation take float64 where they have it."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint["state_dict"]["target_mean"].dtype == torch.float64:
            self.target_mean, self.target_std = self.target_mean.double(), self.target_std.double()

    def takes_over(self, fact: str, found: Any) -> bool:
        """The training's mean and standard deviation, whatever those of the data have become."""
        return fact in ("target_mean", "target_std")


def column_of(column: int, values: Tensor) -> Tensor:
    """One column (E,) of values (E, T)."""
    return values[:, column]


def standardised_column(column: int, mean: float, std: float, values: Tensor) -> Tensor:
    """One column of values (E, T), less a mean, over a standard deviation: float32 (E,)."""
    return ((values[:, column] - mean) / std).float()
