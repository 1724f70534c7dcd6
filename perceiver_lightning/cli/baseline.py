"""The command `baseline`: what simple models of scikit-learn reach on the very splits of a config.

A Perceiver that is not clearly better than these has not learned what makes it worth its cost.

Legend of shapes: N examples, F features, K outputs.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import Subset

from perceiver_lightning.analysis.pooling import joined, pooled
from perceiver_lightning.analysis.runs import number
from perceiver_lightning.cli.reports import path_as_typed
from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks.examples import by_example
from perceiver_lightning.yaml_text import dump

MOST = 10_000  # examples of train that are used, drawn by seed: enough for models this simple
STRENGTHS = np.logspace(-2, 5, 15)  # of ridge's penalty, of which one is chosen on train alone


def run_baselines(task: Any, data: Any, folder: Path, config: dict[str, Any]) -> None:
    """Train each on the statistics of train, evaluate it on validation and test; print and write a table.

    Args:
        task: says what the targets are and how predictions of them are measured.
        data: a datamodule.
        folder: for metrics.csv, with a row a model, and config.yaml.
        config: what is written there.

    Raises:
        InputError: the task is none with one target an example.
    """
    splits = read_splits(task, data)
    features_NF, targets = splits.pop("train")
    rows = []
    for name, model in models(targets.is_floating_point()).items():
        model.fit(features_NF, as_numbers(targets, task.num_outputs))
        row: dict[str, Any] = {"model": name}
        for split, (features, expected) in splits.items():
            metrics = task.make_metrics()
            dtype = expected.dtype if expected.is_floating_point() else torch.float32
            found = torch.from_numpy(model.predict(features)).to(dtype).reshape(len(features), -1)
            metrics.update(as_predictions(found, expected), expected)
            row |= {f"{split}/{key}": float(value) for key, value in metrics.compute().items()}
        rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "metrics.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    show(rows, len(features_NF))
    print(f"results  {path_as_typed(file)}", flush=True)


def models(numbers: bool) -> dict[str, Any]:
    """The models, of features (N, F) and targets (N, K): `numbers`, or else classes as zeros and ones."""
    from sklearn.dummy import DummyRegressor  # here, because it takes a second to import
    from sklearn.linear_model import RidgeCV
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "mean" if numbers else "majority": DummyRegressor(),  # of zeros and ones the mean is the share of each class
        "nearest neighbour": make_pipeline(StandardScaler(), KNeighborsRegressor(1)),
        "ridge": make_pipeline(StandardScaler(), RidgeCV(STRENGTHS)),
    }


def read_splits(task: Any, data: Any) -> dict[str, tuple[np.ndarray, Tensor]]:
    """Features (N, F) and targets of train, validation and, where there is one, test."""
    data.prepare_data()
    data.setup("fit")
    splits = ["train", "val"]
    try:
        data.setup("test")
        splits.append("test")
    except InputError as error:
        print(f"without test: {error}", flush=True)
    if hasattr(data, "plain_train"):
        data.train_set = data.plain_train()
    if len(data.train_set) > MOST:
        rows = torch.randperm(len(data.train_set), generator=torch.Generator().manual_seed(0))[:MOST]
        data.train_set = Subset(data.train_set, rows.tolist())
    features: dict[str, list[dict[str, Tensor]]] = {split: [] for split in splits}
    targets: dict[str, list[Tensor]] = {split: [] for split in splits}
    for split in splits:
        for batch in track(data.loader(split), f"Reading {split}", transient=True):
            batch = data.finish(batch, training=False)
            example, own = batch.get("example"), pooled(batch["inputs"])
            features[split].append({name: by_example(rows, example)[0] for name, rows in own.items()})
            first = by_example(next(iter(own.values())), example)[1]
            targets[split].append(task.metric_targets(task.targets(batch))[first])
            if targets[split][0].ndim > 2:
                shape = tuple(targets[split][0].shape[1:])
                raise InputError(f"baseline: expected one target an example, found targets of shape {shape}")
    widths = {name: rows.shape[1] for own in features.values() for batch in own for name, rows in batch.items()}
    return {split: (joined(features[split], widths).double().numpy(), torch.cat(targets[split])) for split in splits}


def as_numbers(targets: Tensor, num_outputs: int) -> np.ndarray:
    """Targets as numbers (N, K): classes as zeros and a one."""
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, num_outputs)
    return targets.double().numpy()


def as_predictions(found_NK: Tensor, targets: Tensor) -> Tensor:
    """What metrics take: of classes probabilities, of numbers the numbers."""
    if targets.is_floating_point():
        return found_NK
    shares_NK = found_NK.clamp(1e-6, 1)
    return shares_NK / shares_NK.sum(1, keepdim=True) if targets.ndim == 1 else shares_NK


def show(rows: list[dict[str, Any]], examples: int) -> None:
    """Print a table with a column a model."""
    table = Table(title=f"trained on {examples:,} examples", title_justify="left")
    for heading in ("", *(row["model"] for row in rows)):
        table.add_column(heading, justify="right" if heading else "left")
    for key in list(rows[0])[1:]:
        table.add_row(key, *(number(row[key]) for row in rows))
    Console().print(table)
