"""What a datamodule promises: the first thing to read before bringing data of your own.

A datamodule states facts, from which a task builds its model, and gives batches. Whatever keeps this contract trains
with every config, task and model of this repository.

Legend: B batch, A axes, I_a size of axis a, M elements (the product of the I_a), C channels, V tokens, K classes.

**Facts** are known as soon as the datamodule is made, without reading the data. They are plain values, as they are
kept in checkpoints. Every datamodule has `modalities`; the others are what a task needs, by the names of its arguments:

    modalities   {name: {"channels": C, "resolution": [one int per axis]}}     the resolution sets the Fourier bands
                 {name: {"vocabulary": V, "resolution": [M]}}                  tokens
    classes      num_classes, class_names, multilabel                          `datamodules.common.classes.class_facts`
    numbers      num_targets, target_names, target_mean, target_std            the last two of the train split

**Batch**, a dict:

    inputs   {modality: {
        content     float (B, *grid, C) or (B, M, C), channels last; C may be 0 (bare points); tokens: int64 (B, M)
        positions   absent                             the even grid, torch.linspace(-1, 1, I_a) along each axis
                    a list of (I_a,) or (B, I_a)       one tensor per axis: a grid with its own places
                    (M, A) or (B, M, A)                any coordinates, with content (B, M, C)
        mask        optional bool (B, *grid) or (B, M), True where an element is there
    }}
    example  int64 (B,), optional: rows with the same number are parts of one example (crops, clips ...)
    name     list of B strings, optional: for predictions and error messages
    ...      targets by any other key, which the task checks; not needed to predict:
             `labels` of classes, int64 (B,), or float (B, K) for several labels or soft ones (MixUp)
             `targets` of numbers, float (B, T)

Positions lie in [-1, 1]. A modality that one example lacks has a mask row of False; one that the whole batch lacks is
masked in all its rows or left out of `inputs`, which is the same to a task, in training too. Where the first batch of a
stage breaks the contract, `check_batch` says so in one sentence.

**Your own data**: hand the facts to `super().__init__`, fill `train_set`, `val_set`, `test_set`, `predict_set` in
`setup` with datasets of examples (a batch without the B), and name the class in a config.

    class Waves(DataModule):
        def __init__(self, batch_size: int = 16, num_workers: int = 0):
            super().__init__(
                modalities={"wave": {"channels": 1, "resolution": [50]}},
                num_classes=2,
                class_names=["slow", "fast"],
                batch_size=batch_size,
                num_workers=num_workers,
            )

        def setup(self, stage):
            def wave(i):
                length, label = 50 + i % 3, i % 2  # lengths may differ: `collate` pads and masks
                content = torch.sin(torch.linspace(0, 5 + 20 * label, length))[:, None]
                return {"inputs": {"wave": {"content": content}}, "labels": label, "name": f"wave {i}"}

            self.train_set = [wave(i) for i in range(200)]
            self.val_set = self.test_set = self.predict_set = [wave(i) for i in range(200, 240)]
"""

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.seed import pl_worker_init_function
from pytorch_lightning import LightningDataModule
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import RunningStage
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from datamodules.common.collate import collate
from datamodules.common.whole_batches import WholeBatches
from perceiver_lightning.errors import InputError, require

# The splits that each stage reads.
STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}

# The contract says [-1, 1]; the papers' own point clouds are stretched past it by 1 % in training.
FARTHEST_POSITION = 1.1


def located(root: str | None) -> Path:
    """The folder of a set: `root` if there is one, else below the folder of all data; that folder itself for None.

    All data lie below the folder that the environment variable PERCEIVER_DATA names, `data` if it names none.
    """
    everything = Path(os.environ.get("PERCEIVER_DATA", "data"))
    if root is None:
        return everything
    return Path(root) if Path(root).is_dir() else everything / root


class DataModule(LightningDataModule):
    """The facts, the loaders, and the check of the first batch: what every datamodule here shares.

    A subclass fills `train_set`, `val_set`, `test_set` and `predict_set` in `setup(stage)`: map-style datasets (a list
    will do) of examples as `datamodules.common.collate.collate` takes them.

    Args:
        modalities: name of each modality -> its number of channels (or, of tokens, its vocabulary) and its resolution,
            one int per axis.
        batch_size: examples in a batch, on each device.
        num_workers: processes that read ahead. 0 reads in the training process, which is right for small examples
            kept in memory; else about one per core.
        facts: what else a task needs to know, by the names of its arguments: plain values, or lists and dicts of them.

    Attributes:
        facts: those but the modalities; each is an attribute, too.
        elements: of modalities with coordinates, the elements of an example, which their resolution does not say. Not
            a fact, as a model takes any number; it tells the price of a run.

    Raises:
        InputError: the facts are not of this form.
    """

    def __init__(
        self, modalities: dict[str, dict[str, Any]], batch_size: int = 64, num_workers: int = 0, **facts: Any
    ) -> None:
        super().__init__()
        check_modalities(modalities)
        for name, value in facts.items():
            require(_is_plain(value), name, "a plain value, or lists and dicts of them", type(value).__name__)
            require(not hasattr(DataModule, name), name, "another name for a fact", "one that every datamodule uses")
            setattr(self, name, value)
        require(is_int(batch_size, 1), "batch_size", "an integer of at least 1", batch_size)
        require(is_int(num_workers, 0), "num_workers", "an integer of at least 0", num_workers)
        self.modalities = modalities
        self.facts = facts
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.elements: dict[str, int] = {}
        self.train_set: Any = None
        self.val_set: Any = None
        self.test_set: Any = None
        self.predict_set: Any = None
        self._checked: set[RunningStage | None] = set()

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of `train_set`."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> DataLoader:
        """Batches of `val_set`, in order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of `test_set`, in order."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Batches of `predict_set`, in order."""
        return self.loader("predict")

    def loader(self, split: str, training: bool = False, sampler: Sampler | None = None) -> DataLoader:
        """A DataLoader over `<split>_set`.

        In training, the last, smaller batch is left out (unless it is the only one), and the examples are shuffled or
        come from `sampler`. In evaluation on several devices (DDP), each batch is one device's: see `WholeBatches`.
        """
        dataset = getattr(self, f"{split}_set")
        if dataset is None or len(dataset) == 0:
            raise InputError(f"{type(self).__name__}: expected examples in the {split} split, found none")
        trainer = self.trainer
        world_size = trainer.world_size if trainer else 1
        # Strategies that divide a model wait for each other in every batch: theirs is Lightning's sampler, which pads.
        if trainer and not training and world_size > 1 and type(trainer.strategy) is DDPStrategy:
            sampler = WholeBatches(dataset, self.batch_size, world_size, trainer.global_rank)
        # Lightning warns of num_workers=0, which is what is meant here: see the docstring.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=training and sampler is None,
            sampler=sampler,
            drop_last=training and len(dataset) // world_size > self.batch_size,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            # Other random numbers in each worker and on each device (torch, numpy, random), from the one global seed.
            worker_init_fn=pl_worker_init_function,
        )

    def found(self, stage: str) -> dict[str, int]:
        """How many examples `setup` has found for each split of a stage."""
        return {split: len(getattr(self, f"{split}_set") or ()) for split in STAGE_SPLITS[stage]}

    def left_out(self, stage: str) -> Counter[str]:
        """What lies beside the examples of a stage and is not read: each kind, and how many; empty if not known."""
        return Counter()

    def notes(self, stage: str) -> list[str]:
        """Lines on what is to be known of the data of a stage, after `setup`; none unless a subclass has some."""
        return []

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """What is done to a whole batch on its device; nothing, unless a subclass says what.

        For loops without a Trainer: `for batch in data.train_dataloader(): batch = data.finish(batch, training=True)`.

        Args:
            batch: as the loaders give it.
            training: whether to do what is done by chance.

        Returns:
            A batch of the contract in this module's docstring.
        """
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """`finish` the batch, and check the first of each stage."""
        batch = self.finish(batch, training=self.trainer is not None and self.trainer.training)
        stage = self.trainer.state.stage if self.trainer else None
        if stage not in self._checked:
            check_batch(batch, self.modalities)
            self._checked.add(stage)
        return batch


def check_modalities(modalities: Any) -> None:
    """Raise an InputError that names what is not of the form in this module's docstring."""
    require(isinstance(modalities, dict) and len(modalities) > 0, "modalities", "a dict with an entry", modalities)
    for name, facts in modalities.items():
        where = f"modalities[{name!r}]"
        form = '{"channels": int, "resolution": [int, ...]}, or "vocabulary" in the place of "channels"'
        require(isinstance(name, str), where, "a string as name", type(name).__name__)
        keys = set(facts) if isinstance(facts, dict) else set()
        require(keys in ({"channels", "resolution"}, {"vocabulary", "resolution"}), where, form, facts)
        key, least = ("vocabulary", 1) if "vocabulary" in keys else ("channels", 0)
        require(is_int(facts[key], least), f"{where}[{key!r}]", f"an integer of at least {least}", facts[key])
        resolution, place = facts["resolution"], f"{where}['resolution']"
        are_sizes = isinstance(resolution, list) and len(resolution) > 0 and all(is_int(size, 1) for size in resolution)
        require(are_sizes, place, "a list with an integer of at least 1 per axis", resolution)
        require(key == "channels" or len(resolution) == 1, place, "one axis, as tokens have", resolution)


def check_batch(batch: Any, modalities: dict[str, dict[str, Any]]) -> None:
    """Raise an InputError that names the part of a batch which breaks the contract in this module's docstring.

    It reads every value, so it belongs on the first batch of a stage, not on each. Targets are checked by the task.
    """
    require(isinstance(batch, dict), "batch", "a dict", type(batch).__name__)
    require("inputs" in batch, "batch", "inputs", sorted(batch))
    inputs = batch["inputs"]
    known = f"one or more of the modalities {sorted(modalities)}"
    require(isinstance(inputs, dict), "batch['inputs']", "a dict", type(inputs).__name__)
    require(len(inputs) > 0 and set(inputs) <= set(modalities), "batch['inputs']", known, sorted(inputs))

    sizes = set()
    for name, part in inputs.items():
        _check_part(f"batch['inputs'][{name!r}]", part, **modalities[name])
        sizes.add(len(part["content"]))
    require(len(sizes) == 1, "batch['inputs']", "the same number of examples in every modality", sorted(sizes))
    batch_size = sizes.pop()

    if "example" in batch:
        _check_tensor("batch['example']", batch["example"], "int64", [(batch_size,)])
    if "name" in batch:
        names = batch["name"]
        is_names = isinstance(names, list) and len(names) == batch_size and all(isinstance(n, str) for n in names)
        require(is_names, "batch['name']", f"a list of {batch_size} strings", names)


def _check_part(
    where: str, part: Any, resolution: list[int], channels: int | None = None, vocabulary: int | None = None
) -> None:
    """One modality's content, positions and mask."""
    keys = {"content", "positions", "mask"}
    require(isinstance(part, dict), where, "a dict", type(part).__name__)
    require("content" in part and set(part) <= keys, where, f"content and of {sorted(keys)}", sorted(part))
    content, positions, mask = part["content"], part.get("positions"), part.get("mask")
    axes = len(resolution)
    coordinates = isinstance(positions, Tensor)  # else a grid

    _check_tensor(f"{where}['content']", content, "float" if vocabulary is None else "int64")
    grid = ["M"] if coordinates or vocabulary else [f"I_{axis}" for axis in range(axes)]
    form = ["B", *grid, *([] if channels is None else [str(channels)])]
    fits = content.ndim == len(form) and content.shape[0] > 0 and channels in (None, content.shape[-1])
    last = "" if channels is None else ", channels last"
    require(
        fits,
        f"{where}['content']",
        f"the shape ({', '.join(form)}){last}, as its {axes} axes{' and positions' if coordinates else ''} say",
        tuple(content.shape),
    )
    if vocabulary is not None and content.numel():
        low, high = int(content.min()), int(content.max())
        expected = f"tokens from 0 to {vocabulary - 1} (vocabulary)"
        require(low >= 0 and high < vocabulary, f"{where}['content']", expected, f"{low} to {high}")
    batch_size, *sizes = content.shape[: 1 + len(grid)]

    if coordinates:
        _check_positions(f"{where}['positions']", positions, [(*sizes, axes), (batch_size, *sizes, axes)])
    elif positions is not None:
        is_list = isinstance(positions, list | tuple) and len(positions) == axes
        found = len(positions) if isinstance(positions, list | tuple) else type(positions).__name__
        require(is_list, f"{where}['positions']", f"a list of {axes} tensors, one per axis", found)
        for axis, (table, size) in enumerate(zip(positions, sizes, strict=True)):
            _check_positions(f"{where}['positions'][{axis}]", table, [(size,), (batch_size, size)])
    if mask is not None:
        _check_tensor(f"{where}['mask']", mask, "bool", [(batch_size, *sizes)])


def _check_positions(where: str, positions: Any, shapes: list[tuple[int, ...]]) -> None:
    _check_tensor(where, positions, "float", shapes)
    farthest = positions.abs().max().item() if positions.numel() else 0.0
    require(farthest <= FARTHEST_POSITION, where, "values in [-1, 1]", f"one of size {farthest:g}")


def _check_tensor(where: str, value: Any, kind: str, shapes: list[tuple[int, ...]] | None = None) -> None:
    """A tensor of a kind ("float", "bool", "int64"), finite, of one of the shapes."""
    require(isinstance(value, Tensor), where, "a tensor", type(value).__name__)
    is_kind = value.is_floating_point() if kind == "float" else str(value.dtype) == f"torch.{kind}"
    require(is_kind, where, f"a {kind} tensor", value.dtype)
    if shapes is not None:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        require(tuple(value.shape) in shapes, where, f"the shape {expected}", tuple(value.shape))
    if kind == "float":
        require(bool(torch.isfinite(value).all()), where, "finite values", "NaN or infinity")


def is_int(value: Any, least: int) -> bool:
    """Whether a value is an integer (true and false are not) of at least so much."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
