"""The examples of a split before any is read: what they are called, how one split is cut from another."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from datamodules.common.listing import is_hidden
from perceiver_lightning.errors import InputError, require

Named = TypeVar("Named")

# Names of folders, files and folds that mean a split, in lower case.
SPLIT_WORDS = {
    "train": r"train(ing|val)?|trn",
    "val": r"val(id(ation)?)?|dev(el(opment)?)?",
    "test": r"test(ing)?|tst|eval(uation)?",
}
MOST_FOLDS = 20  # into which data with groups are cut, of which some are the part
DATA_WORDS = r"(set|data|split|imgs?|images?|files?)?"


def split_named(name: str) -> str | None:
    """The split that a name means, train, val or test; None if it means none, or two.

    In capitals or not, with what stands before it or behind: `Training`, `seg_test`, `train2017`, `ValidationSet`.
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    found = {
        split for split, form in SPLIT_WORDS.items() for word in words if re.fullmatch(f"({form}){DATA_WORDS}", word)
    }
    return found.pop() if len(found) == 1 else None


def one_of_each(named: Iterable[tuple[str, Named]], where: str, options: str) -> dict[str, Named]:
    """What is named by splits, by their splits; InputError where two are named by the same.

    Args:
        named: pairs of a name and what it names; names of no split are passed over.
        where: they are, for messages.
        options: the keys that would tell which is meant, for messages.
    """
    names: dict[str, str] = {}
    found: dict[str, Named] = {}
    for name, thing in named:
        if (split := split_named(name)) is None:
            continue
        both = f"{names.get(split)} and {name}: say which by {options}"
        require(split not in found, where, f"one name for {split}", both)
        names[split], found[split] = name, thing
    return found


def files_of_splits(folder: Path, extensions: tuple[str, ...]) -> dict[str, Path]:
    """The files of a folder that are named by splits, by their splits; errors as of `one_of_each`."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [(path.stem, path) for path in paths if path.suffix.lower() in extensions and not is_hidden(path.name)]
    return one_of_each(found, str(folder), "removing one")


def shortened(names: Iterable[str | Path]) -> str:
    """The first few of these names, and how many more there are."""
    words = [name if isinstance(name, str) else name.name for name in names]
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


class Kind(NamedTuple):
    """What files hold: its plural name for messages, the extensions of such files, and what opens one item."""

    name: str
    extensions: tuple[str, ...]
    open: Callable[[Any], Any]


@dataclass(frozen=True)
class Split:
    """The examples of one split, not read yet.

    Attributes:
        items: what `kind.open` takes, one per example.
        names: of the examples, for predictions.
        labels: their targets, or None to predict: classes from 0, a tuple of classes for several labels, or a tensor of
            numbers.
        where: the folder or set they are from, for messages.
        kind: what they are, and what opens them.
        strata: what a cut keeps the shares of; the labels if not given.
        groups: what a cut keeps together (several clips of one recording), one name per example.
        middles: of recordings: the second about which a clip is cut, one per example; any if not given.
        target: the key of its labels in an example.
        several: where labels are tuples of classes: how many classes there are. They become (several,) zeros and ones.
        left_out: what lies beside the files and is not read: each kind, and how many there are.
    """

    items: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[Any] | None
    where: str
    kind: Kind
    strata: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None
    middles: Sequence[float] | None = None
    target: str = "labels"
    several: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def target_of(self, row: int) -> Any:
        """The target of an example, as a batch has it: an int, or a tensor."""
        assert self.labels is not None
        if self.several is None:
            return self.labels[row]
        target = torch.zeros(self.several)
        target[list(self.labels[row])] = 1
        return target

    def take(self, rows: Sequence[int]) -> "Split":
        """Some of the examples, in the order given."""

        columns = {name: getattr(self, name) for name in ("items", "names", "labels", "strata", "groups", "middles")}
        some: dict[str, Any] = {
            name: [column[row] for row in rows] for name, column in columns.items() if column is not None
        }
        return replace(self, **some)


def select(split: Split, rows: Sequence[int], key: str) -> Split:
    """Some examples of a split; InputError that names `key` if there are none."""
    require(len(rows) > 0, key, f"{split.kind.name} of it in {split.where}", "none")
    return split.take(rows)


def cut(split: Split, fraction: float, seed: int, key: str) -> tuple[Split, Split]:
    """Cut a part off, drawn by `seed` with the same share of each stratum: the rest, and the part.

    Where the split has groups, each is whole in one of the two, and shares are as near as that allows.

    Raises:
        InputError: a class is too small, or the part would have fewer examples than there are classes.
    """
    rows = np.arange(len(split.items))
    strata: Any = split.labels if split.strata is None else split.strata
    try:
        if split.groups is None:
            rest, part = train_test_split(rows, test_size=fraction, random_state=seed, stratify=strata)
        else:
            share = Fraction(fraction).limit_denominator(MOST_FOLDS)
            folds = StratifiedGroupKFold(share.denominator, shuffle=True, random_state=seed)
            parts = [part for _, part in folds.split(rows, strata, split.groups)][: share.numerator]
            part = np.concatenate(parts)
            rest = np.setdiff1d(rows, part)
            if alone := {strata[row] for row in part} - {strata[row] for row in rest}:
                raise ValueError(f"all groups of {min(alone)} would be in one")
    except ValueError as error:
        classes = len({str(stratum) for stratum in strata}) if strata is not None else 1
        least = math.ceil(100 * classes / max(len(rows), 1)) / 100
        hint = f"; {classes} classes need {least:g} at least" if fraction < least <= 0.5 else ""
        raise InputError(
            f"{key}: expected to cut {fraction} of the {len(rows)} {split.kind.name} of {split.where} with every class "
            f"in both parts, found that impossible ({error}){hint}"
        ) from error
    return split.take(sorted(rest.tolist())), replace(split.take(sorted(part.tolist())), left_out={})
