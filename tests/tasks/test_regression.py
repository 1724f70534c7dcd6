"""Regression: loss, metrics and predictions against scikit-learn and by hand, and a training on arrays of points."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import column, fails
from point_clouds import write_arrays
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch.utils.data import DataLoader

from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks import RegressionTask

MODALITIES = {"image": {"channels": 2, "resolution": [3, 3]}}
SMALL: dict[str, Any] = {
    "num_latents": 4, "latent_width": 8, "cross_attends": [1], "self_attends": 1, "self_heads": 2, "bands": 2,
}  # fmt: skip
FACTS: dict[str, Any] = {
    "num_targets": 2, "target_names": ["size", "age"], "target_mean": [100.0, -2.0], "target_std": [50.0, 0.5],
}  # fmt: skip


def make_task(**arguments: Any) -> RegressionTask:
    torch.manual_seed(0)
    return RegressionTask(MODALITIES, **(SMALL | FACTS | arguments))


class Given(torch.nn.Module):
    """Stands in for the Perceiver: its content is the outputs."""

    def forward(self, inputs: dict[str, Any]) -> torch.Tensor:
        return inputs["image"]["content"]


def batch_of(outputs: torch.Tensor, targets: torch.Tensor, **more: Any) -> dict[str, Any]:
    return {"inputs": {"image": {"content": outputs}}, "targets": targets, **more}


def results_of(task: RegressionTask, *batches: dict[str, Any]) -> dict[str, float]:
    from pytorch_lightning import Trainer

    task.perceiver = Given()  # type: ignore[assignment]
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (found,) = trainer.test(task, DataLoader(list(batches), batch_size=None), verbose=False)  # type: ignore[arg-type]
    return {name.removeprefix("test/"): value for name, value in found.items()}


def test_metrics_are_scikit_learns_in_the_data_s_own_units() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(rows, 2, generator=generator) for rows in (16, 16, 5)]
    targets = [100 + 50 * torch.randn(rows, 2, generator=generator) for rows in (16, 16, 5)]
    found = results_of(make_task(), *map(batch_of, outputs, targets))
    expected_NT = torch.cat(targets).numpy()
    predicted_NT = torch.cat(outputs).numpy() * np.array([50.0, 0.5]) + np.array([100.0, -2.0])
    for column_, name in enumerate(FACTS["target_names"]):
        expected, predicted = expected_NT[:, column_], predicted_NT[:, column_]
        assert found[f"mae_{name}"] == pytest.approx(mean_absolute_error(expected, predicted), rel=1e-5)
        assert found[f"rmse_{name}"] == pytest.approx(root_mean_squared_error(expected, predicted), rel=1e-5)
        assert found[f"r2_{name}"] == pytest.approx(r2_score(expected, predicted), rel=1e-4)
    standardised = (expected_NT - [100.0, -2.0]) / [50.0, 0.5]
    assert found["loss"] == pytest.approx(((torch.cat(outputs).numpy() - standardised) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(1e9, 0.5), (1.7e12, 1e6), (2000.0, 3.0), (0.0, 1e-6), (-7e14, 1e13)])
def test_numbers_far_from_zero_or_near_it_keep_what_varies(mean: float, std: float) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(rows, 1, generator=generator) for rows in (16, 5)]
    targets = [mean + std * torch.randn(rows, 1, generator=generator, dtype=torch.float64) for rows in (16, 5)]
    task = make_task(num_targets=1, target_names=["size"], target_mean=[mean], target_std=[std])
    if mean == 0:
        targets = [values.float() for values in targets]
    found = results_of(task, *map(batch_of, outputs, targets))
    expected, own = torch.cat(targets).numpy(), torch.cat(outputs).numpy()
    predicted = own.astype(np.float64) * std + mean
    assert found["mae"] == pytest.approx(mean_absolute_error(expected, predicted), rel=1e-4)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(expected, predicted), rel=1e-4)
    assert found["r2"] == pytest.approx(r2_score(expected, predicted), rel=1e-4)
    assert found["loss"] == pytest.approx((((expected - mean) / std - own) ** 2).mean(), rel=1e-4)
    predictions = task.predictions(torch.cat(outputs))
    rows = task.prediction_rows({"name": ["a"] * 21, "predictions": predictions})
    assert [float(value) for _, value in rows] == pytest.approx(predicted.ravel().tolist(), abs=1e-4 * std, rel=0)
    saved = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    other = make_task(num_targets=1, target_names=["size"], target_mean=[0.0], target_std=[1.0])  # of absent files
    other.perceiver = Given()  # type: ignore[assignment]
    other.on_load_checkpoint(saved)
    other.load_state_dict(saved["state_dict"])
    assert torch.equal(other.predictions(torch.cat(outputs)), predictions)
    assert other.prediction_rows({"name": ["a"] * 21, "predictions": predictions}) == rows


def test_the_rows_of_an_example_are_averaged() -> None:
    outputs = torch.tensor([[0.0], [2.0], [1.0], [3.0]])
    task = make_task(num_targets=1, target_names=["size"], target_mean=[10.0], target_std=[2.0])
    targets, example = torch.tensor([[12.0], [12.0], [13.0], [13.0]]), torch.tensor([0, 0, 1, 1])
    found = results_of(task, batch_of(outputs, targets, example=example))
    assert found["mae"] == pytest.approx(0.5)  # 12 and 14, where each row by itself is off by 2, 2, 1 and 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, 2).long(), "expected a float tensor, found torch.int64"),
        (torch.zeros(3), r"expected the shape \(3, 2\), found \(3,\)"),
        (torch.full((3, 2), torch.nan), "expected finite values, found NaN"),
    ],
)
def test_wrong_targets_are_named(wrong: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=rf"batch\['targets'\]: {message}"):
        make_task().check_targets(batch_of(torch.zeros(3, 2), wrong))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_targets": 0}, "num_targets: expected 1 or more, found 0"),
        ({"target_names": ["size"]}, r"target_names: expected 2 values \(num_targets\), found 1"),
        ({"target_std": [1.0, 0.0]}, "target_std: expected numbers above 0"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task(**wrong)


CONFIG: dict[str, Any] = {
    "name": "size",
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
    "model": {"class_path": "RegressionTask", "init_args": {**SMALL, "learning_rate": 0.01}},
    "data": {
        "class_path": "PointTargets",
        "init_args": {"root": "clouds", "targets": ["size"], "val_fraction": 0.25, "batch_size": 3, "resolution": 8},
    },
}


@pytest.mark.slow
def test_a_training_on_arrays_is_tested_and_predicts_in_their_units(here, capsys) -> None:
    sizes = np.linspace(10, 90, 12)
    write_arrays(Path("clouds/train.npz"), size=sizes)
    write_arrays(Path("clouds/test.npz"), count=6, size=np.linspace(20, 80, 6))
    Path("size.yaml").write_text(yaml.safe_dump(CONFIG))
    run = main(["fit", "--config=size.yaml"])
    assert "to predict: size" in capsys.readouterr().out
    trained = [float(example["targets"][0]) for example in run.datamodule.train_set]
    assert len(trained) == 9
    assert run.model.target_mean.tolist() == pytest.approx([np.mean(trained)], rel=1e-5)
    assert run.model.target_std.tolist() == pytest.approx([np.std(trained)], rel=1e-5)
    assert column(run.run, "val/mae") and run.trainer.checkpoint_callback.monitor == "val/loss"

    best = f"--ckpt_path={run.run}/checkpoints/best.ckpt"
    test = main(["test", best]).trainer.callback_metrics
    assert {"test/mae", "test/rmse", "test/r2", "test/loss"} == set(test)
    # Another split has another mean: that of the training counts, so the test is the same.
    other = main(["test", best, "--data.init_args.val_fraction=0.5"])
    assert other.trainer.callback_metrics["test/mae"] == pytest.approx(float(test["test/mae"]), rel=1e-5)
    assert other.model.hparams["target_mean"] == pytest.approx([np.mean(trained)], rel=1e-5)

    Path("new").mkdir()
    np.save("new/a.npy", np.random.default_rng(0).uniform(-1, 1, (20, 3)))
    main(["predict", best, "--data.init_args.predict_dir=new"])
    with open(run.run / "predictions.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == "a.npy" and 0 < float(row["size"]) < 100


def test_data_with_classes_have_no_numbers_to_predict(here, capsys) -> None:
    Path("size.yaml").write_text(yaml.safe_dump(CONFIG | {"data": {"class_path": "Digits"}}))
    said = fails(capsys, "fit", "--config=size.yaml", "--trainer.limit_train_batches=1")
    assert "batch['targets']: expected numbers for each example, found only inputs" in said
