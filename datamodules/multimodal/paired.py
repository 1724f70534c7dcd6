"""Several datamodules as one: what belongs together, by label or by key, is one example of several modalities."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from datamodules.base import STAGE_SPLITS, DataModule
from datamodules.common.classes import class_facts
from datamodules.common.files import Files
from datamodules.common.masking import drop_modalities, masked, there
from datamodules.common.splits import Split
from datamodules.multimodal.keys import check_classes, split_by_key
from datamodules.multimodal.pairs import PairSet, draw_pairs, labels_and_names
from perceiver_lightning.errors import InputError, require
from perceiver_lightning.names import composed

log = logging.getLogger(__name__)


class Paired(DataModule):
    """Datamodules joined into one of several modalities, such as images of digits with sounds of them.

    By label, an example is one of each datamodule with the same label; by key, those in whose names the same is found.
    Examples are paired within each split alone, so they keep their splits. Of each class (or key) there are as
    many pairs as the one with the most examples has; those of the others come up again. By key, what has no
    counterpart is left out, and counted in the log; and what is cut off for validation or test is cut once, by key:
    the share, and the seed, are those of the first datamodule.

    Each datamodule reads, augments and normalises its own modalities as it does alone; its batch_size and num_workers
    have no meaning here. What changes labels or adds rows (mixup, cutmix, ten_crop, eval_clips, eval_mirrors)
    cannot be shared, and is an error.

    A modality that is dropped or hidden is masked.

    Args:
        datamodules: name -> datamodule; each with its own modalities, all with the same classes.
        key: null pairs by label; else a regular expression, and its match (or its group) in an example's name is the
            key. `[^/]+(?=[.])` is a file's name without folder and ending.
        seed: of the pairs, and of the noise in evaluation.
        pair_anew: in training, draw the partners of the first one's examples each time, of the same class or
            key; else the pairs are fixed.
        modality_dropout: in training, modality -> share of the examples in which it is masked out, as {image: 0.3}. An
            example loses one modality at most, and never the only one that it has; the shares add up to 1 at most.
        hide: modalities that are masked out everywhere, to see what the others do alone.
        noise: modality -> the standard deviation of white noise that is added to what was read (pixels, samples), as a
            multiple of that of the example itself. In evaluation always of that level, and the same each time; in
            training other noise each time, of a level between none and that.
        batch_size: examples in a batch, on each device.
        num_workers: processes that read ahead.

    Raises:
        InputError: two have a modality in common, or other classes; an option names no modality, or is out of its
            range.
    """

    train_set: PairSet | None
    num_classes: int
    class_names: list[str]

    def __init__(
        self,
        datamodules: dict[str, DataModule],
        key: str | None = None,
        seed: int = 0,
        pair_anew: bool = True,
        modality_dropout: dict[str, float] | None = None,
        hide: list[str] | None = None,
        noise: dict[str, float] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        require(len(datamodules) > 1, "datamodules", "two or more", len(datamodules))
        modalities = merged_modalities(datamodules)
        first = next(iter(datamodules.values()))
        check_same_classes(datamodules)
        for name, data in datamodules.items():
            balanced = getattr(data, "balanced_sampling", False)
            require(not balanced, f"datamodules[{name!r}]: balanced_sampling", "false, as pairs are drawn here", "true")
        if first.facts.get("multilabel"):
            require(key is not None, "key", "a regular expression, as examples have several labels", "null")
        if key is not None:
            try:
                re.compile(key)
            except re.error as error:
                raise InputError(f"key: expected a regular expression, found {key!r} ({error})") from error
        dropout, hide, noise = modality_dropout or {}, hide or [], noise or {}
        for option, names in (("modality_dropout", dropout), ("hide", hide), ("noise", noise)):
            for name in names:
                require(name in modalities, option, f"modalities of {sorted(modalities)}", repr(name))
        shares = list(dropout.values())
        is_share = all(share >= 0 for share in shares) and sum(shares) <= 1
        require(is_share, "modality_dropout", "shares of at least 0 that add up to 1 at most", shares)
        require(len(set(hide)) < len(modalities), "hide", f"some of {sorted(modalities)}, not all", hide)
        for name, level in noise.items():
            require(level >= 0, f"noise[{name!r}]", "a number of at least 0", level)
            has_content = modalities[name]["channels"] > 0
            require(has_content, "noise", "modalities with channels", f"{name!r}, which is positions alone")

        require(seed >= 0, "seed", "an integer of at least 0", seed)
        super().__init__(modalities, batch_size, num_workers, **classes_of(first))
        for data in datamodules.values():
            self.elements |= data.elements
        self.datamodules = datamodules
        self.key = key
        self.seed = seed
        self.pair_anew = pair_anew
        self.modality_dropout = dropout
        self.hide = hide
        self.noise = noise

    def prepare_data(self) -> None:
        """What each downloads."""
        for data in self.datamodules.values():
            data.prepare_data()

    def setup(self, stage: str) -> None:
        """Set all up, and pair what they have in each split of the stage."""
        absent = [split for split in STAGE_SPLITS[stage] if getattr(self, f"{split}_set") is None]
        if not absent:
            return
        if stage == "predict" and self.key is None:
            raise InputError("key: expected a regular expression, as examples to predict have no labels, found null")
        if stage != "predict":
            self._choose()
        for data in self.datamodules.values():
            data.setup(stage)
        for split in absent:
            setattr(self, f"{split}_set", self._pair(split))

    def _choose(self) -> None:
        """By key, tell each datamodule which files its splits have; once."""
        files = {name: data for name, data in self.datamodules.items() if isinstance(data, Files)}
        if self.key is None or len(files) < len(self.datamodules) or any(data.chosen for data in files.values()):
            return
        for name, splits in split_by_key(files, self._key_of).items():
            files[name].chosen = splits

    def files(self, stage: str) -> dict[str, list[Split]]:
        """The files of each split that a stage needs, of all datamodules of files."""
        self._choose()
        found: dict[str, list[Split]] = {}
        for data in self.datamodules.values():
            for split, sources in data.files(stage).items() if isinstance(data, Files | Paired) else ():
                found.setdefault(split, []).extend(sources)
        return found

    def left_out(self, stage: str) -> Counter[str]:
        """What lies beside the files of all."""
        return sum((data.left_out(stage) for data in self.datamodules.values()), Counter())

    def notes(self, stage: str) -> list[str]:
        """Those of the first, whose labels count."""
        return next(iter(self.datamodules.values())).notes(stage)

    def class_counts(self) -> list[int]:
        """Examples per class of the train split; after `setup("fit")`."""
        assert self.train_set is not None and self.train_set.labels is not None, 'setup("fit") comes first'
        return np.bincount(np.hstack(self.train_set.labels).astype(int), minlength=self.num_classes).tolist()

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep of each."""
        return {name: data.state_dict() for name, data in self.datamodules.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give each its own."""
        for name, data in self.datamodules.items():
            data.load_state_dict(state_dict.get(name, {}))

    def finish(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """Each datamodule finishes its own part; then modalities are masked out. See `DataModule.finish`."""
        rest = {key: batch[key] for key in batch if key != "inputs"}
        inputs: dict[str, Any] = {}
        for name, data in self.datamodules.items():
            own = {modality: batch["inputs"][modality] for modality in data.modalities if modality in batch["inputs"]}
            done = data.finish({"inputs": own, **rest}, training)
            check_rest(name, rest, done)
            inputs |= done["inputs"]
        for name in inputs.keys() & set(self.hide):
            inputs[name] = masked(inputs[name], torch.zeros_like(there(inputs[name])))
        if training and self.modality_dropout:
            inputs = drop_modalities(inputs, self.modality_dropout)
        return {"inputs": inputs, **rest}

    def _pair(self, split: str) -> PairSet:
        """The pairs of a split."""
        sets = [getattr(data, f"{split}_set") for data in self.datamodules.values()]
        for name, dataset in zip(self.datamodules, sets, strict=True):
            require(dataset is not None and len(dataset) > 0, f"datamodules[{name!r}]", f"examples in {split}", "none")
        columns = [labels_and_names(dataset) for dataset in sets]
        groups = [self._groups(name, *column) for name, column in zip(self.datamodules, columns, strict=True)]
        common = self._common(split, groups)
        rng = np.random.default_rng(self.seed)
        drawn = sorted((pair, group) for group in common for pair in draw_pairs([rows[group] for rows in groups], rng))
        pairs = [pair for pair, _ in drawn]
        training = split == "train"
        labels = self._labels(split, [labels for labels, _ in columns], pairs)
        if self.key is not None and labels is not None:
            examples = {
                name: list(zip(own or [], names or [], strict=True))
                for name, (own, names) in zip(self.datamodules, columns, strict=True)
            }
            check_classes(split, examples, labels, self.class_names, self._key_of)
        return PairSet(
            sets,
            pairs,
            labels=labels,
            others=[[rows[group] for rows in groups] for _, group in drawn] if training and self.pair_anew else None,
            noise=self.noise,
            seed=None if training else 1_000_000 * self.seed,
        )

    def _groups(self, name: str, labels: list[Any] | None, names: Sequence[str] | None) -> dict[Any, list[int]]:
        """The rows of a datamodule's examples, by label or by key."""
        groups: dict[Any, list[int]] = {}
        where = f"datamodules[{name!r}]"
        if self.key is None:
            require(labels is not None, where, "examples with labels", "none")
            for row, label in enumerate(labels or []):
                groups.setdefault(label, []).append(row)
            return groups
        require(names is not None, where, "examples with names, as there is a key", "none")
        for row, text in enumerate(names or []):
            groups.setdefault(self._key_of(name, text), []).append(row)
        return groups

    def _key_of(self, name: str, text: str) -> str:
        """The key in the name of an example of a datamodule, in the one form that names are compared in."""
        found = re.search(composed(self.key or ""), composed(text))
        key = found and found[min(found.re.groups, 1)]
        if not key:  # what is empty, or a group that took no part, would be shared by all such examples
            raise InputError(f"key: expected {self.key} in the name of each example of {name!r}, found {text!r}")
        return key

    def _common(self, split: str, groups: list[dict[Any, list[int]]]) -> list[Any]:
        """The labels or keys that all have."""
        common = [group for group in groups[0] if all(group in others for others in groups[1:])]
        for name, own in zip(self.datamodules, groups, strict=True):
            if self.key is None:
                for label in dict.fromkeys(label for others in groups for label in others):
                    where, expected = (
                        f"datamodules[{name!r}]",
                        f"examples of class {self.class_names[label]!r} in {split}",
                    )
                    require(label in own, where, f"{expected}, as another has them", "none")
                continue
            found = f"none; the first of {name!r} is {next(iter(own))!r}"
            require(len(common) > 0, "key", f"keys in {split} that all have", found)
            alone = sum(map(len, own.values())) - sum(len(own[key]) for key in common)
            if alone:
                log.warning(f"{split}: left out {alone} examples of {name!r}, which have no counterpart")
        return common

    def _labels(self, split: str, labels: list[list[Any] | None], pairs: list[list[int]]) -> list[Any] | None:
        """The labels of the pairs, which all must agree on; None if they have none."""
        known = {name: column for name, column in zip(self.datamodules, labels, strict=True) if column is not None}
        if len(known) < len(labels):
            require(not known, "datamodules", "labels in all of them or in none", f"some only in {sorted(known)}")
            return None
        for pair in pairs:
            own = {name: column[row] for (name, column), row in zip(known.items(), pair, strict=True)}
            expected = f"one label for examples with one key in {split}"
            require(len(set(own.values())) == 1, "key", expected, ", ".join(f"{k} {label}" for k, label in own.items()))
        column = next(iter(known.values()))
        return [column[pair[0]] for pair in pairs]


def merged_modalities(datamodules: dict[str, DataModule]) -> dict[str, dict[str, Any]]:
    """The modalities of all; InputError where two have one of the same name."""
    owners: dict[str, str] = {}
    for name, data in datamodules.items():
        for modality in data.modalities:
            found = f"{modality!r}, which {owners.get(modality)!r} has too"
            require(modality not in owners, f"datamodules[{name!r}]", "modalities that no other has", found)
            owners[modality] = name
    return {modality: datamodules[name].modalities[modality] for modality, name in owners.items()}


def classes_of(data: DataModule) -> dict[str, Any]:
    """The facts of classes alone, and all of them."""
    facts = data.facts
    return class_facts(facts["num_classes"], facts.get("class_names"), facts.get("multilabel", False))


def check_same_classes(datamodules: dict[str, DataModule]) -> None:
    """Raise an InputError that names the first class in which one differs from the first."""
    for name, data in datamodules.items():
        require("num_classes" in data.facts, f"datamodules[{name!r}]", "data with classes", type(data).__name__)
    (first, like), *rest = ((name, classes_of(data)) for name, data in datamodules.items())
    for name, facts in rest:
        where, as_first, count = f"datamodules[{name!r}]", f"as {first!r} has", like["num_classes"]
        found = f"{facts['num_classes']} ({', '.join(facts['class_names'][:3])} ...)"
        require(facts["num_classes"] == count, where, f"{count} classes, {as_first}", found)
        for place, (one, other) in enumerate(zip(like["class_names"], facts["class_names"], strict=True)):
            require(one == other, f"{where}: class_names[{place}]", f"{one!r}, {as_first}", repr(other))
        same = facts["multilabel"] == like["multilabel"]
        require(same, f"{where}: multilabel", f"{like['multilabel']}, {as_first}", facts["multilabel"])


def check_rest(name: str, given: dict[str, Any], done: dict[str, Any]) -> None:
    """Raise an InputError if a datamodule's finishing has changed labels, or made several rows of one."""
    before, after = given.get("labels"), done.get("labels")
    same = before is after or (before is not None and after is not None and torch.equal(before, after))
    shared = "no mixup, cutmix, ten_crop, eval_clips or eval_mirrors"
    expected = f"unchanged labels and rows, as all share them ({shared})"
    require("example" not in done, f"datamodules[{name!r}]", expected, "several rows of one example")
    require(same, f"datamodules[{name!r}]", expected, "other labels")
