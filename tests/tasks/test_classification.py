from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule, Trainer
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    multilabel_confusion_matrix,
    top_k_accuracy_score,
)
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader

from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks.classification import ClassificationTask, class_weights
from perceiver_lightning.tasks.examples import by_example

MODALITIES = {"image": {"channels": 2, "resolution": [3, 3]}}
SMALL: dict[str, Any] = {
    "num_latents": 4, "latent_width": 8, "cross_attends": [1, 1], "self_attends": 1, "self_heads": 2, "bands": 2,
}  # fmt: skip


def make_task(num_classes: int = 7, multilabel: bool = False, **arguments: Any) -> ClassificationTask:
    torch.manual_seed(0)
    return ClassificationTask(MODALITIES, num_classes, multilabel=multilabel, **(SMALL | arguments))


def make_trainer(**arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **({"max_epochs": 1} | arguments),
    )  # fmt: skip


def make_batch(rows: int, labels: torch.Tensor | None = None, seed: int = 0, **more: Any) -> dict[str, Any]:
    content = torch.randn(rows, 3, 3, 2, generator=torch.Generator().manual_seed(seed))
    batch = {"inputs": {"image": {"content": content}}, "name": [f"{seed}/{row}" for row in range(rows)]}
    return batch | ({} if labels is None else {"labels": labels}) | more


def loader(*batches: dict[str, Any]) -> DataLoader:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def fit(task: ClassificationTask, *batches: dict[str, Any], **arguments: Any) -> Trainer:
    trainer = make_trainer(**({"limit_val_batches": 0} | arguments))
    trainer.fit(task, loader(*batches), loader(*batches))
    return trainer


class Given(torch.nn.Module):
    """Stands in for the Perceiver: its content is the logits."""

    def forward(self, inputs: dict[str, Any]) -> torch.Tensor:
        return inputs["image"]["content"]


def given_logits(logits: torch.Tensor, labels: torch.Tensor, **more: Any) -> dict[str, Any]:
    return make_batch(1, labels, **more) | {
        "inputs": {"image": {"content": logits}}, "name": [str(row) for row in range(len(logits))]
    }  # fmt: skip


def evaluate(task: ClassificationTask, *batches: dict[str, Any]) -> dict[str, float]:
    task.perceiver = Given()  # type: ignore[assignment]
    (found,) = make_trainer().test(task, loader(*batches), verbose=False)
    return {name.removeprefix("test/"): value for name, value in found.items()}


# Loss


def test_loss_of_soft_labels_by_hand() -> None:
    task = make_task(3)
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    log_p = logits - logits.exp().sum(-1, keepdim=True).log()
    by_hand = -(0.7 * log_p[0, 0] + 0.3 * log_p[0, 1] + log_p[1, 2]) / 2
    torch.testing.assert_close(task.loss(logits, shares), by_hand, rtol=1e-7, atol=0)


def test_label_smoothing_mixes_in_the_even_label_and_only_in_training() -> None:
    task = make_task(4, label_smoothing=0.2)
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    smooth = 0.8 * F.one_hot(labels, 4) + 0.2 / 4
    torch.testing.assert_close(task.loss(logits, labels), -(smooth * logits.log_softmax(-1)).sum(-1).mean())
    torch.testing.assert_close(task.loss(logits, F.one_hot(labels, 4)), task.loss(logits, labels))
    plain = -logits.log_softmax(-1)[range(5), labels].mean()
    torch.testing.assert_close(task.eval().loss(logits, labels), plain)


def test_loss_of_several_labels_by_hand() -> None:
    task = make_task(3, multilabel=True)
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    p = 1 / (1 + (-logits).exp())
    by_hand = -(p[0, 0].log() + (1 - p[0, 1]).log() + p[0, 2].log()) / 3
    torch.testing.assert_close(task.loss(logits, torch.tensor([[1, 0, 1]])), by_hand)


def test_class_weights_are_scikit_learns_balanced() -> None:
    counts = [1, 4, 5, 30]
    labels = np.repeat(np.arange(4), counts)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(class_weights(counts).numpy(), expected, rtol=1e-6)
    several = class_weights(counts, multilabel=True)
    np.testing.assert_allclose((several / several[0]).numpy(), [1, 1 / 4, 1 / 5, 1 / 30], rtol=1e-6)
    assert several.mean().item() == pytest.approx(1)


class Unbalanced(LightningDataModule):
    def __init__(self, counts: list[int]):
        super().__init__()
        self.counts = counts

    def class_counts(self) -> list[int]:
        return self.counts

    def train_dataloader(self) -> DataLoader:
        return loader(make_batch(3, torch.tensor([0, 1, 1])))

    def val_dataloader(self) -> DataLoader:
        return self.train_dataloader()


def test_class_weights_reach_the_training_loss() -> None:
    task = make_task(2, class_weights=True, schedule="constant", warmup=0.0, learning_rate=0.0)
    trainer = make_trainer(limit_val_batches=0)
    trainer.fit(task, datamodule=Unbalanced([1, 9]))
    batch = make_batch(3, torch.tensor([0, 1, 1]))
    with torch.no_grad():
        log_p = task(batch["inputs"]).log_softmax(-1)
    weights = [10 / 2 / 1, 10 / 2 / 9]
    by_hand = -(weights[0] * log_p[0, 0] + weights[1] * (log_p[1, 1] + log_p[2, 1])) / (weights[0] + 2 * weights[1])
    torch.testing.assert_close(trainer.callback_metrics["train/loss"], by_hand)
    torch.testing.assert_close(task.eval().loss(log_p, batch["labels"]), F.nll_loss(log_p, batch["labels"]))
    assert not any("weight" in name for name in task.state_dict() if not name.startswith("perceiver."))


def test_class_weights_without_counts_are_refused() -> None:
    task = make_task(2, class_weights=True)
    with pytest.raises(
        InputError, match=r"class_weights: expected a datamodule with class_counts\(\), as it is true, found no"
    ):
        fit(task, make_batch(2, torch.tensor([0, 1])))
    with pytest.raises(InputError, match="found LightningDataModule, which has none"):
        make_trainer().fit(task, datamodule=LightningDataModule.from_datasets([1], [1]))
    with pytest.raises(InputError, match="expected examples of every class, found none of class 1"):
        make_trainer().fit(task, datamodule=Unbalanced([3, 0]))


# Metrics


def test_metrics_are_scikit_learns() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(rows, 7) * 2, torch.randint(7, (rows,))) for rows in (16, 16, 5)]
    task = make_task(7)
    found = evaluate(task, *(given_logits(*batch) for batch in batches))
    logits, labels = (torch.cat(both) for both in zip(*batches, strict=True))
    p, y = logits.softmax(-1).numpy(), labels.numpy()
    confidence, right = p.max(-1), p.argmax(-1) == y
    bins = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
    calibration = sum(abs(confidence[b].mean() - right[b].mean()) * b.mean() for b in bins if b.any())
    expected = {
        "loss": F.cross_entropy(logits, labels).item(),
        "accuracy": accuracy_score(y, p.argmax(-1)),
        "top5": top_k_accuracy_score(y, p, k=5, labels=range(7)),
        "f1": f1_score(y, p.argmax(-1), average="macro"),
        "calibration_error": calibration,
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert task.confusion_matrix is not None
    np.testing.assert_array_equal(task.confusion_matrix, confusion_matrix(y, p.argmax(-1), labels=range(7)))


def test_accuracy_and_top5_stay_apart_when_the_first_batch_is_all_right() -> None:
    right = given_logits(torch.eye(7), torch.arange(7))
    second = given_logits(torch.eye(7), (torch.arange(7) + 1) % 7)  # wrong, and mostly among the first five
    found = evaluate(make_task(7), right, second)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["top5"] > 0.5


def test_top5_needs_more_than_five_classes() -> None:
    assert "top5" not in evaluate(make_task(5), given_logits(torch.eye(5), torch.arange(5)))
    assert "top5" in evaluate(make_task(6), given_logits(torch.eye(6), torch.arange(6)))


def test_metrics_of_several_labels_are_scikit_learns() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(rows, 4), torch.randint(2, (rows, 4)).float()) for rows in (16, 9)]
    task = make_task(4, multilabel=True)
    found = evaluate(task, *(given_logits(*batch) for batch in batches))
    logits, labels = (torch.cat(both) for both in zip(*batches, strict=True))
    p, y = logits.sigmoid().numpy(), labels.numpy()
    expected = {
        "loss": F.binary_cross_entropy_with_logits(logits, labels).item(),
        "map": average_precision_score(y, p, average="macro"),
        "f1": f1_score(y, p > 0.5, average="macro"),
        "accuracy": ((p > 0.5) == y).mean(),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert task.confusion_matrix is not None
    np.testing.assert_array_equal(task.confusion_matrix, multilabel_confusion_matrix(y, p > 0.5))


def test_the_confusion_matrix_is_that_of_the_last_test() -> None:
    task = make_task(2)
    evaluate(task, given_logits(torch.eye(2), torch.arange(2)))
    evaluate(task, given_logits(torch.eye(2), torch.tensor([1, 1])))
    assert task.confusion_matrix is not None and task.confusion_matrix.tolist() == [[0, 0], [1, 1]]


# Rows of the same example


def test_rows_of_an_example_are_averaged() -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.4, 0.6]])
    means, first = by_example(p, torch.tensor([5, 3, 5, 5]))
    torch.testing.assert_close(means, torch.tensor([[0.2, 0.8], [1.7 / 3, 1.3 / 3]]))
    assert first.tolist() == [1, 0]


def test_two_rows_of_one_example_are_evaluated_as_one() -> None:
    # Alone the rows say 0, 1 | 1, 1; together, by their mean, 0 | 1.
    logits = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]).log()
    labels, example = torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 8, 8])
    assert evaluate(make_task(2), given_logits(logits, labels))["accuracy"] == pytest.approx(3 / 4)
    task = make_task(2)
    found = evaluate(task, given_logits(logits, labels, example=example))
    assert found["accuracy"] == found["f1"] == 1.0
    assert task.confusion_matrix is not None and task.confusion_matrix.tolist() == [[1, 0], [0, 1]]


def test_predictions_need_no_labels_and_give_one_row_per_example() -> None:
    task = make_task(3)
    batch = make_batch(4)
    (plain,) = make_trainer().predict(task, loader(batch)) or []
    assert plain["name"] == batch["name"]
    with torch.no_grad():
        torch.testing.assert_close(plain["predictions"], task(batch["inputs"]).softmax(-1))
    (grouped,) = make_trainer().predict(task, loader(batch | {"example": torch.tensor([1, 0, 1, 0])})) or []
    assert grouped["name"] == ["0/1", "0/0"]
    rows = plain["predictions"]
    torch.testing.assert_close(grouped["predictions"], torch.stack([rows[[1, 3]].mean(0), rows[[0, 2]].mean(0)]))


def test_probabilities_of_several_labels_stand_for_themselves() -> None:
    task = make_task(3, multilabel=True)
    (found,) = make_trainer().predict(task, loader(make_batch(2))) or []
    with torch.no_grad():
        torch.testing.assert_close(found["predictions"], task(make_batch(2)["inputs"]).sigmoid())


# Training


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("lamb", marks=pytest.mark.slow)])
def test_a_tiny_batch_is_learned_by_heart(multilabel: bool, optimizer: str) -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    if multilabel:
        labels = torch.stack([labels % 2, labels // 2 % 2, labels // 4], 1).float()
    batch = make_batch(6, labels)
    task = make_task(3 if multilabel else 6, multilabel, optimizer=optimizer, learning_rate=0.02, weight_decay=0.0)
    trainer = fit(task, *[batch] * 100)
    assert trainer.callback_metrics["train/loss"] < 0.05
    (found,) = make_trainer().validate(task, loader(batch), verbose=False)
    assert found["val/accuracy"] == found["val/f1"] == 1.0


def test_the_learning_rate_follows_the_schedule_step_by_step() -> None:
    task = make_task(2, learning_rate=0.01, warmup=0.25, schedule="constant")
    rates = []
    task.on_train_batch_start = lambda *_: rates.append(task.optimizers().param_groups[0]["lr"])  # type: ignore[assignment, func-returns-value, method-assign]
    batches = [make_batch(2, torch.tensor([0, 1]))] * 4
    fit(task, *batches, max_epochs=4, accumulate_grad_batches=2)  # 4 batches are 2 steps: 8 steps, 2 of warm-up
    assert rates == pytest.approx([0.01 / 3] * 2 + [0.02 / 3] * 2 + [0.01] * 12)


def test_logged_names() -> None:
    trainer = fit(make_task(6, learning_rate=0.0), make_batch(6, torch.arange(6)), limit_val_batches=1.0)
    names = {"loss", "accuracy", "top5", "f1", "calibration_error"}
    assert set(trainer.callback_metrics) == {"train/loss", "train/accuracy", *(f"val/{name}" for name in names)}
    assert trainer.callback_metrics["train/accuracy"] == trainer.callback_metrics["val/accuracy"]


def test_loss_and_probabilities_are_float32_under_bf16() -> None:
    task = make_task(3)
    batch = make_batch(4, torch.tensor([0, 1, 2, 0]))
    trainer = fit(task, batch, precision="bf16-mixed")
    assert trainer.callback_metrics["train/loss"].dtype == torch.float32
    (found,) = trainer.predict(task, loader(batch)) or []
    assert found["predictions"].dtype == torch.float32
    torch.testing.assert_close(found["predictions"].sum(-1), torch.ones(4), rtol=0, atol=1e-6)


def test_masks_and_positions_reach_the_model() -> None:
    task = make_task(3)
    content, places = torch.randn(1, 3, 2, 2), [torch.tensor([-1.0, 0.2, 0.7]), torch.tensor([0.0, 1.0])]
    padded = F.pad(content, (0, 0, 0, 0, 0, 2), value=99.0)
    image = {"content": padded, "positions": [F.pad(places[0], (0, 2)), places[1]], "mask": padded[..., 0] != 99.0}
    batches = [{"inputs": {"image": {"content": content, "positions": places}}}, {"inputs": {"image": image}}]
    alone, with_padding = (make_trainer().predict(task, loader(b | {"name": ["x"]})) for b in batches)
    torch.testing.assert_close(with_padding[0]["predictions"], alone[0]["predictions"])  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2])
def test_compiling_keeps_the_names_of_the_weights(members) -> None:
    task, plain = make_task(3, members=members, compile=True), make_task(3, members=members)
    task.setup("fit")
    assert task.perceiver._compiled_call_impl is not None
    assert list(task.state_dict()) == list(plain.state_dict())
    assert plain.perceiver._compiled_call_impl is None


# The mathematics, unseen changes of which these numbers show: found by this test itself, in float64

GOLDEN: dict[str, tuple[dict[str, Any], list[float]]] = {
    "perceiver": (
        {"label_smoothing": 0.1, "cross_attends": [1, 1, 1]},
        [1.4493575623801294, 0.8701991143998707, 0.45267247525418364, 0.3860395986460553, 0.37937425894894294],
    ),
    "perceiver_io": (
        {
            "multilabel": True, "optimizer": "lamb", "schedule": "flat_cosine", "cross_attends": [1, 0],
            "positions": "learned", "position_width": 6, "decoder": "query", "widening": 2,
        },
        [0.720685287840576, 0.6635135494865975, 0.605638118467701, 0.5616153697364267, 0.5223134553593921],
    ),
}  # fmt: skip


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_losses(name: str, float64: None) -> None:
    """Five steps: initialisation, model, loss, optimiser and schedule together. New numbers only for a new meaning."""
    arguments, expected = GOLDEN[name]
    torch.manual_seed(0)
    task = ClassificationTask(
        MODALITIES | {"sound": {"channels": 1, "resolution": [8]}}, 3, **(SMALL | arguments), learning_rate=0.01
    )
    found: list[float] = []
    task.on_train_batch_end = lambda outputs, *_: found.append(outputs["loss"].item())  # type: ignore[assignment, func-returns-value, method-assign]
    several = torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0]])
    batch = make_batch(4, several if task.multilabel else torch.tensor([0, 1, 2, 1]))
    places = torch.linspace(-1, 1, 20).view(4, 5, 1)
    batch["inputs"]["sound"] = {"content": places.cos(), "positions": places, "mask": places[..., 0] < 0.8}
    fit(task, *[batch] * 5)
    assert found == pytest.approx(expected, rel=1e-9, abs=0)


# Checkpoints


def test_a_checkpoint_gives_the_task_back(tmp_path: Path) -> None:
    task = make_task(3, class_names=["ant", "bee", "cow"], learning_rate=0.02)
    batch = make_batch(4, torch.tensor([0, 1, 2, 0]))
    trainer = fit(task, batch)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ClassificationTask.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert dict(loaded.hparams) == dict(task.hparams)
    assert loaded.hparams["latent_width"] == 8 and loaded.hparams["modalities"] == MODALITIES
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(batch["inputs"]), task.eval()(batch["inputs"]), rtol=0, atol=0)
    names = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("perceiver.") for name in names)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"latent_width": 16},
            r"is of another model: perceiver.latents: expected \(4, 16\), found \(4, 8\); .*; .*, and \d+ more",
        ),
        ({"decoder": "query"}, r"perceiver.decoder.queries: expected \(1, 8\), found nothing"),
        ({"num_classes": 4, "class_names": list("abcd")}, "expected num_classes 4 as the data has it, found 3"),
        ({"class_names": ["0", "1", "2"]}, r"expected class_names\[0\] '0' as the data has it, found 'ant'"),
        ({"class_names": ["ant", "wasp", "cow"]}, r"expected class_names\[1\] 'wasp' as the data has it, found 'bee'"),
        (
            {"modalities": {"image": {"channels": 2, "resolution": [6, 6]}}},
            r"expected modalities .*\[6, 6\].* as the data has it, found .*\[3, 3\]",
        ),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, other: dict, message: str) -> None:
    batch = make_batch(4, torch.tensor([0, 1, 2, 0]))
    trainer = fit(make_task(3, class_names=["ant", "bee", "cow"]), batch)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    arguments: dict = {"modalities": MODALITIES, "num_classes": 3, "class_names": ["ant", "bee", "cow"]}
    task = ClassificationTask(**(arguments | SMALL | other))
    with pytest.raises(InputError, match=f"checkpoint .*last.ckpt.*{message}"):
        make_trainer().test(task, loader(batch), ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_an_overridden_shape_is_refused_when_loading_without_a_trainer(tmp_path: Path) -> None:
    trainer = fit(make_task(3), make_batch(3, torch.arange(3)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"checkpoint is of another model: perceiver.latents: expected \(9, 8\)"):
        ClassificationTask.load_from_checkpoint(tmp_path / "last.ckpt", num_latents=9, weights_only=True)


# Bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"self_heads": 3}, "model: self_heads: expected a divisor of 8"),
        ({"schedule": "cosin"}, "schedule: expected .*, found '?cosin"),
        ({"warmup": 5}, "warmup: expected fractions.*, found 5"),
        ({"label_smoothing": 1.0}, "label_smoothing: expected 0 or more and below 1, found 1.0"),
        (
            {"label_smoothing": 0.1, "multilabel": True},
            "label_smoothing: expected 0 for data with several labels per example, found 0.1",
        ),
        ({"num_classes": 1}, "num_classes: expected 2 or more, found 1"),
        ({"class_names": ["a", "b"]}, r"class_names: expected 7 names \(num_classes\), found 2"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task(**wrong)


def test_several_queries_are_refused() -> None:
    task = make_task(3, decoder="query", num_queries=2)
    with pytest.raises(
        InputError,
        match=r"model: num_queries .*: expected one query, .* for ClassificationTask, found .* shape \(4, 2, 3\)",
    ):
        task(make_batch(4)["inputs"])


def test_data_without_labels_is_refused() -> None:
    task, batch = make_task(3), make_batch(2)
    trainer = make_trainer()
    for run in (lambda: fit(task, batch), lambda: trainer.validate(task, loader(batch)), lambda: evaluate(task, batch)):
        with pytest.raises(
            InputError, match=r"batch\['labels'\]: expected a label for each example, found only inputs, name"
        ):
            run()


def test_rows_without_names_are_predicted_by_number():
    task, batch = make_task(), make_batch(2)
    del batch["name"]
    assert task.predict_step(batch, 5)["name"] == ["batch 5 row 0", "batch 5 row 1"]
    assert task.predict_step(batch | {"example": torch.tensor([7, 7])}, 5)["name"] == ["batch 5 row 0"]
