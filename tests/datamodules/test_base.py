"""The contract between data and model: facts, batches, loaders."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

import datamodules.base
from datamodules.base import DataModule, check_batch, located
from datamodules.common.classes import class_facts
from perceiver_lightning.errors import InputError

IMAGE = {"image": {"channels": 3, "resolution": [4, 5]}}
TEXT = {"text": {"vocabulary": 9, "resolution": [4]}}
BOTH = {**IMAGE, "sound": {"channels": 2, "resolution": [7]}}


def image_batch(**part) -> dict:
    return {"inputs": {"image": {"content": torch.zeros(2, 4, 5, 3), **part}}, "labels": torch.tensor([0, 9])}


def grid_positions(*shapes) -> list[Tensor]:
    return [torch.zeros(shape) for shape in shapes]


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"modalities": {}}, "modalities: expected a dict with an entry, found {}"),
        ({"modalities": {"image": {"channels": 3}}}, r"modalities\['image'\]: expected .*resolution"),
        ({"modalities": {"image": {"channels": -1, "resolution": [4]}}}, r"\['channels'\]: .*at least 0, found -1"),
        ({"modalities": {"image": {"channels": 3, "resolution": []}}}, r"\['resolution'\]: .*per axis, found \[\]"),
        ({"modalities": {"image": {"channels": 3, "resolution": [4, 0]}}}, r"\['resolution'\]: .*found \[4, 0\]"),
        ({"modalities": {"image": {"channels": 3, "resolution": [4.0]}}}, r"\['resolution'\]: .*found \[4.0\]"),
        ({"modalities": {"image": {"channels": True, "resolution": [4]}}}, r"\['channels'\]: .*found True"),
        ({"modalities": {"text": {"vocabulary": 0, "resolution": [4]}}}, r"\['vocabulary'\]: .*at least 1, found 0"),
        ({"modalities": {"text": {"vocabulary": 9, "resolution": [4, 5]}}}, r"\['resolution'\]: expected one axis"),
        ({"modalities": {"text": {"vocabulary": 9, "channels": 1, "resolution": [4]}}}, 'expected .*or "vocabulary"'),
        (
            {"target_mean": [torch.zeros(())]},
            "target_mean: expected a plain value, or lists and dicts of them, found list",
        ),
        ({"target_mean": (1.0, 2.0)}, "target_mean: expected a plain value, .* found tuple"),
        ({"loader": 1}, "loader: expected another name for a fact, found one that every datamodule uses"),
    ],
)
def test_wrong_facts_are_named(facts, message):
    right = {"modalities": IMAGE, "num_targets": 2, "target_names": ["a", "b"], "more": {"a": [None, True, 1.5]}}
    DataModule(**right)
    with pytest.raises(InputError, match=message):
        DataModule(**{**right, **facts})


def test_facts_are_attributes_and_stand_together():
    data = DataModule(IMAGE, num_targets=2, target_names=["a", "b"])
    assert data.facts == {"num_targets": 2, "target_names": ["a", "b"]}
    assert (data.modalities, data.num_targets, data.target_names) == (IMAGE, 2, ["a", "b"])
    assert DataModule(IMAGE).facts == {}


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"num_classes": 0}, "num_classes: expected an integer of at least 1, found 0"),
        ({"class_names": ["a", "b", "c"]}, r"class_names: expected 2 names \(num_classes\), found 3"),
        ({"class_names": [0, 1]}, "class_names: expected a list of strings"),
        ({"multilabel": "yes"}, "multilabel: expected true or false, found yes"),
    ],
)
def test_wrong_facts_of_classes_are_named(facts, message):
    right = {"num_classes": 2, "class_names": ["a", "b"], "multilabel": False}
    assert class_facts(**right) == right
    with pytest.raises(InputError, match=message):
        class_facts(**{**right, **facts})


@pytest.mark.parametrize("options, message", [({"batch_size": 0}, "batch_size"), ({"num_workers": -1}, "num_workers")])
def test_loader_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        DataModule(IMAGE, **options)


def test_classes_without_names_are_numbered():
    assert class_facts(3) == {"num_classes": 3, "class_names": ["0", "1", "2"], "multilabel": False}


@pytest.mark.parametrize(
    "batch, modalities",
    [
        (image_batch(), IMAGE),
        (image_batch(), BOTH),  # a modality may be missing from the whole batch
        (image_batch(mask=torch.ones(2, 4, 5, dtype=torch.bool)), IMAGE),
        (image_batch(positions=grid_positions((4,), (2, 5))), IMAGE),
        (image_batch(content=torch.zeros(2, 20, 3), positions=torch.zeros(20, 2)), IMAGE),
        (image_batch(content=torch.zeros(2, 20, 3), positions=torch.zeros(2, 20, 2)), IMAGE),
        (image_batch(content=torch.zeros(2, 20, 3, dtype=torch.float16), positions=torch.zeros(20, 2)), IMAGE),
        ({"inputs": {"sound": {"content": torch.zeros(2, 9, 2)}}, "labels": torch.zeros(2, dtype=torch.int64)}, BOTH),
        ({"inputs": image_batch()["inputs"]}, IMAGE),  # to predict
        ({**image_batch(), "targets": "any, as the task knows them"}, IMAGE),
        ({"inputs": {"text": {"content": torch.tensor([[0, 8, 3]])}}}, TEXT),
        (
            {"inputs": {"text": {"content": torch.zeros(2, 3).long(), "mask": torch.ones(2, 3).bool()}}},
            TEXT,
        ),
        ({**image_batch(), "name": ["a", "b"], "example": torch.tensor([0, 0])}, IMAGE),
        (
            {"inputs": {"p": {"content": torch.zeros(2, 6, 0), "positions": torch.full((2, 6, 3), 1.01)}}}
            | {"labels": torch.tensor([0, 1])},
            {"p": {"channels": 0, "resolution": [9, 9, 9]}},
        ),
    ],
)
def test_every_form_of_the_contract_passes(batch, modalities):
    check_batch(batch, modalities)


@pytest.mark.parametrize(
    "batch, message",
    [
        ([1], "batch: expected a dict, found list"),
        ({"labels": torch.tensor([0])}, r"batch: expected inputs, found \['labels'\]"),
        ({"inputs": {}, "labels": torch.tensor([0])}, r"batch\['inputs'\]: .* \['image'\], found \[\]"),
        ({"inputs": {"picture": {}}}, r"modalities \['image'\], found \['picture'\]"),
        (image_batch(position=1), r"\['image'\]: expected content and of .*found .*'position'"),
        (image_batch(content=torch.zeros(2, 4, 5, 3).byte()), r"\['content'\]: expected a float tensor, found .*uint8"),
        (image_batch(content=[0.0]), r"\['content'\]: expected a tensor, found list"),
        (image_batch(content=torch.zeros(2, 4, 5, 1)), r"\(B, I_0, I_1, 3\), channels last.*found \(2, 4, 5, 1\)"),
        (image_batch(content=torch.zeros(2, 3, 4, 5)), r"\(B, I_0, I_1, 3\), channels last.*found \(2, 3, 4, 5\)"),
        (image_batch(content=torch.zeros(2, 20, 3)), r"\(B, I_0, I_1, 3\).* 2 axes.*found \(2, 20, 3\)"),
        (image_batch(positions=torch.zeros(20, 2)), r"\(B, M, 3\).*found \(2, 4, 5, 3\)"),
        (image_batch(content=torch.full((2, 4, 5, 3), torch.nan)), r"\['content'\]: expected finite values"),
        (image_batch(positions=grid_positions((4,))), r"\['positions'\]: expected a list of 2 tensors, .*found 1"),
        (
            image_batch(positions=grid_positions((4,), (3, 5))),
            r"\]\[1\]: .*\(5,\) or \(2, 5\), found \(3, 5\)",
        ),
        (
            image_batch(positions=[torch.arange(4.0), torch.zeros(5)]),
            r"\]\[0\]: .*in \[-1, 1\], found .* 3",
        ),
        (
            image_batch(positions=[torch.arange(4), torch.zeros(5)]),
            r"\]\[0\]: expected a float .*int64",
        ),
        (
            image_batch(content=torch.zeros(2, 20, 3), positions=torch.zeros(20, 3)),
            r"\['positions'\]: expected the shape \(20, 2\) or \(2, 20, 2\), found \(20, 3\)",
        ),
        (image_batch(mask=torch.ones(2, 4, 5)), r"\['mask'\]: expected a bool tensor, found torch.float32"),
        (image_batch(mask=torch.ones(2, 20).bool()), r"\['mask'\]: expected the shape \(2, 4, 5\), found \(2, 20\)"),
        ({**image_batch(), "name": ["a"]}, r"\['name'\]: expected a list of 2 strings"),
        ({**image_batch(), "example": torch.zeros(2)}, r"\['example'\]: expected a int64 tensor"),
    ],
)
def test_a_broken_batch_is_named(batch, message):
    with pytest.raises(InputError, match=message):
        check_batch(batch, IMAGE)


@pytest.mark.parametrize(
    "part, message",
    [
        (
            {"content": torch.tensor([[0, 9]])},
            r"\['content'\]: expected tokens from 0 to 8 \(vocabulary\), found 0 to 9",
        ),
        (
            {"content": torch.tensor([[-1, 2]])},
            r"\['content'\]: expected tokens from 0 to 8 \(vocabulary\), found -1 to 2",
        ),
        ({"content": torch.zeros(1, 2)}, r"\['content'\]: expected an? int64 tensor, found torch.float32"),
        ({"content": torch.zeros(1, 2, 1).long()}, r"\['content'\]: expected the shape \(B, M\), .* found \(1, 2, 1\)"),
        (
            {"content": torch.zeros(2, 3).long(), "mask": torch.ones(2, 3, 1).bool()},
            r"\['mask'\]: expected the shape \(2, 3\), found \(2, 3, 1\)",
        ),
    ],
)
def test_broken_tokens_are_named(part, message):
    with pytest.raises(InputError, match=message):
        check_batch({"inputs": {"text": part}}, TEXT)


def test_modalities_must_agree_on_the_number_of_examples():
    batch = image_batch()
    batch["inputs"]["sound"] = {"content": torch.zeros(3, 7, 2)}
    with pytest.raises(InputError, match=r"same number of examples in every modality, found \[2, 3\]"):
        check_batch(batch, BOTH)


class Line(LightningModule):
    """The least model: it sums what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[dict] = []

    def training_step(self, batch, _):
        self.seen.append(batch)
        return sum(part["content"].sum() for part in batch["inputs"].values()) * self.weight

    def validation_step(self, batch, _):
        pass

    test_step = validation_step

    def predict_step(self, batch, _):
        return batch["name"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options) -> Trainer:
    return Trainer(
        **{"max_epochs": 1, "log_every_n_steps": 1, "accelerator": "cpu"} | options,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_the_example_in_the_docstring_runs_in_every_stage():
    source = re.search(r"\n    class Waves.*", datamodules.base.__doc__, re.DOTALL).group()
    scope = {"DataModule": DataModule, "torch": torch}
    exec(textwrap.dedent(source), scope)
    torch.manual_seed(0)  # one batch in a thousand has none of the longest
    waves, model = scope["Waves"](), Line()
    trainer().fit(model, waves)
    trainer().validate(model, waves, verbose=False)
    trainer().test(model, waves, verbose=False)
    names = [name for batch in trainer().predict(model, waves) for name in batch]
    assert names == [f"wave {i}" for i in range(200, 240)]
    assert len(model.seen) == 200 // 16  # the last 8 are left out
    assert {tuple(batch["inputs"]["wave"]["content"].shape) for batch in model.seen} == {(16, 52, 1)}


class Rows(DataModule):
    """Examples given by the test."""

    def __init__(self, examples, **options):
        super().__init__({"x": {"channels": 1, "resolution": [3]}}, **options)
        self.train_set = self.val_set = self.predict_set = examples


def rows(count: int, **extra) -> list[dict]:
    return [{"inputs": {"x": {"content": torch.full((3, 1), float(i))}}, "name": str(i), **extra} for i in range(count)]


def test_only_the_first_batch_of_a_stage_is_checked(monkeypatch):
    calls = []
    monkeypatch.setattr(datamodules.base, "check_batch", lambda batch, modalities: calls.append(sorted(batch)))
    data = Rows(rows(8, labels=0), batch_size=2)
    trainer(max_epochs=2, num_sanity_val_steps=0).fit(Line(), data)
    trainer().predict(Line(), data)
    assert calls == [["inputs", "labels", "name"]] * 3  # train, validate, predict


def test_a_missing_split_is_named():
    with pytest.raises(InputError, match="Rows: expected examples in the test split, found none"):
        Rows(rows(4)).test_dataloader()
    with pytest.raises(InputError, match="Rows: expected examples in the train split, found none"):
        Rows([]).train_dataloader()


@pytest.mark.parametrize("count, batches", [(3, [3]), (4, [4]), (9, [4, 4])])
def test_the_last_small_batch_is_left_out_in_training_only(count, batches):
    data = Rows(rows(count, labels=1), batch_size=4)
    assert [len(batch["labels"]) for batch in data.train_dataloader()] == batches
    assert sum(len(batch["labels"]) for batch in data.val_dataloader()) == count


def test_training_is_shuffled_and_evaluation_is_not():
    data = Rows(rows(50, labels=1), batch_size=50)
    in_order = [str(i) for i in range(50)]
    assert next(iter(data.val_dataloader()))["name"] == in_order
    shuffled = next(iter(data.train_dataloader()))["name"]
    assert shuffled != in_order
    assert sorted(shuffled, key=int) == in_order


class Random(torch.utils.data.Dataset):
    """Each example is a random number."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"inputs": {"x": {"content": torch.rand(3, 1)}}, "labels": 0}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_workers_draw_different_numbers_that_the_seed_fixes():
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        loader = Rows(Random(), batch_size=4, num_workers=2).val_dataloader()
        return torch.cat([batch["inputs"]["x"]["content"][:, 0, 0] for batch in loader])

    first = draw(0)
    assert len(first.unique()) == 8
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))


def test_data_lies_where_it_is_said_or_below_the_folder_of_all_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERCEIVER_DATA", raising=False)
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "elsewhere" / "photos").mkdir(parents=True)
    assert located("photos") == Path("data/photos")
    assert located(None) == Path("data")
    assert located("nowhere") == Path("data/nowhere")  # where it is looked for, or downloaded to
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path / "elsewhere"))
    assert located("photos") == tmp_path / "elsewhere" / "photos"
    (tmp_path / "photos").mkdir()
    assert located("photos") == Path("photos")
    assert located(str(tmp_path / "data" / "photos")) == tmp_path / "data" / "photos"
