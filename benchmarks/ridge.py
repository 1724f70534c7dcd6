"""Baselines: ridge classifiers and regressions of scikit-learn on pooled statistics, on the very splits of a config."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from perceiver_lightning.checkpoint import Opened

STRENGTHS = np.logspace(-2, 5, 22)  # of which one is chosen on train and validation alone


def ridge_on_spectra(given: Sequence[str], parts: int) -> dict[str, float]:
    """Test accuracy from log-mel spectra, each the mean of one of so many parts of a clip, and from their spread and
    greatest values over the clip.

    Args:
        given: arguments of `fit`.
        parts: number of those parts.
    """
    data = prepared([*given, "--data.init_args.patch=null"])

    def pooled(batch: dict[str, Any]) -> Tensor:
        part = batch["inputs"]["audio"]
        x_BTF = part["content"][..., 0]
        there = part.get("mask", torch.ones_like(x_BTF, dtype=torch.bool))[..., 0]
        rows = []
        for x_TF in (x[own] for x, own in zip(x_BTF, there, strict=True)):
            means = F.adaptive_avg_pool1d(x_TF.T, parts).flatten()
            rows.append(torch.cat([means, x_TF.std(0), x_TF.amax(0)]))
        return torch.stack(rows)

    train, test = splits(data, pooled, "labels")
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(STRENGTHS))
    return {"accuracy": float(model.fit(*train).score(*test))}


def ridge_on_points(given: Sequence[str]) -> dict[str, float]:
    """Test errors of the first target from how far clouds reach and spread along each axis, and from histograms of the
    points' places on each axis, of their distances from the centre, and of those between pairs of points.

    Args:
        given: arguments of `fit`.
    """
    data = prepared(given)

    def pooled(batch: dict[str, Any]) -> Tensor:
        rows = []
        for positions in batch["inputs"]["points"]["positions"]:
            pairs = (positions - positions.roll(len(positions) // 2, 0)).norm(dim=1)
            spread = [positions.amin(0), positions.amax(0), positions.std(0)]
            lines = [(axis, -1.0, 1.0) for axis in positions.T] + [(positions.norm(dim=1), 0, 1.8), (pairs, 0, 3.5)]
            histograms = [torch.histc(values, 16, low, high) / len(positions) for values, low, high in lines]
            rows.append(torch.cat([*spread, *histograms]))
        return torch.stack(rows)

    train, (features, targets) = splits(data, pooled, "targets")
    model = make_pipeline(StandardScaler(), RidgeCV(STRENGTHS)).fit(train[0], train[1][:, 0])
    expected, found = targets[:, 0], model.predict(features)
    errors = {"r2": r2_score, "rmse": root_mean_squared_error, "mae": mean_absolute_error}
    return {name: float(error(expected, found)) for name, error in errors.items()}


def prepared(given: Sequence[str]) -> Any:
    """The datamodule of a config, with all its splits, not augmented."""
    data: Any = Opened(["fit", *given]).datamodule
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    data.train_set = data.make_set(data.train_set.split, training=False)
    return data


def splits(data: Any, pooled: Any, target: str) -> tuple[Any, Any]:
    """Features and targets of train and validation together, and of test."""
    found = []
    for loader in (data.loader("train"), data.val_dataloader(), data.test_dataloader()):
        batches = [data.finish(batch, training=False) for batch in loader]
        features = torch.cat([pooled(batch) for batch in batches]).numpy()
        found.append((features, torch.cat([batch[target] for batch in batches]).numpy()))
    train, val, test = found
    return tuple(np.concatenate(both) for both in zip(train, val, strict=True)), test
