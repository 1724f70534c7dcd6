"""Files of several datamodules brought into the same splits, by the keys in their names."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from datamodules.common.files import Files
from datamodules.common.splits import Split, cut
from perceiver_lightning.errors import require

log = logging.getLogger(__name__)


def split_by_key(
    datamodules: Mapping[str, Files], stage: str, key_of: Callable[[str, str], str]
) -> dict[str, dict[str, Split]]:
    """The splits of a stage, of each datamodule, such that all files of one key are in one split.

    A key is in the split that the data themselves have it in. Where none of them has one, keys are cut by seed as files
    are, by the settings of the first datamodule. A key that one of them lacks is left out.

    Args:
        datamodules: by their names.
        stage: fit, validate or test.
        key_of: of a datamodule's name and a file's name, the file's key.

    Returns:
        name of each datamodule -> split -> its files.

    Raises:
        InputError: no key is in all; keys are too few to cut.
    """
    listed = {name: _listed(data, stage) for name, data in datamodules.items()}
    rows: dict[str, dict[str, dict[str, list[int]]]] = {}  # of each datamodule, of each split, of each key
    for name, splits in listed.items():
        rows[name] = {split: {} for split in splits}
        for split, files in splits.items():
            for row, text in enumerate(files.names):
                rows[name][split].setdefault(key_of(name, text), []).append(row)
    own = {name: dict.fromkeys(key for keys in splits.values() for key in keys) for name, splits in rows.items()}
    common = [key for key in next(iter(own.values())) if all(key in keys for keys in own.values())]
    starts = "; ".join(f"the first of {name!r} is {next(iter(keys))!r}" for name, keys in own.items())
    require(len(common) > 0, "key", f"keys in {stage} that all have", f"none; {starts}")

    found: dict[str, dict[str, Split]] = {name: {} for name in datamodules}
    for split, keys in _keys_of_splits(next(iter(datamodules.items())), listed, rows, common, stage).items():
        for name, own_rows in rows.items():
            source = split if split in own_rows else next(iter(own_rows))  # that which is cut
            taken = sorted(row for key in keys for row in own_rows[source].get(key, []))
            found[name][split] = listed[name][source].take(taken)
    for name, splits in listed.items():
        alone = sum(len(files.items) for files in splits.values())
        alone -= sum(len(part) for keys in rows[name].values() for key, part in keys.items() if key in common)
        if alone:
            log.warning(f"{stage}: left out {alone} examples of {name!r}, which have no counterpart")
    return found


def _listed(data: Files, stage: str) -> dict[str, Split]:
    """The files of a stage as the data themselves split them, or "all"."""
    if (whole := data.find_all()) is not None:
        return {"all": whole}
    if stage == "test":
        return {"test": data.find_test()}
    train, val = data.find_train()
    return {"train": train} if val is None else {"train": train, "val": val}


def _keys_of_splits(
    first: tuple[str, Files],
    listed: Mapping[str, Mapping[str, Split]],
    rows: Mapping[str, Mapping[str, Mapping[str, list[int]]]],
    keys: list[str],
    stage: str,
) -> dict[str, list[str]]:
    """The keys of each split of a stage: see `split_by_key`."""
    name, data = first
    label_of: dict[str, Any] = {}
    for split, files in listed[name].items():
        for key, part in rows[name][split].items():
            label_of.setdefault(key, 0 if files.labels is None or files.several else files.labels[part[0]])

    def parts(keys: list[str], fraction: float, option: str) -> tuple[list[str], list[str]]:
        """The rest, and the share that is cut off, with the same share of each class."""
        whole = Split(keys, keys, [label_of[key] for key in keys], f"the keys of {name!r}", data.kind)
        rest, part = cut(whole, fraction, data.split_seed, option)
        return list(rest.items), list(part.items)

    if all("all" in splits for splits in rows.values()):
        keys, test = parts(keys, data.test_fraction, "test_fraction")
        if stage == "test":
            return {"test": test}
    elif stage == "test":
        return {"test": keys}
    firm = [splits for splits in rows.values() if "val" in splits]
    if not firm:
        train, val = parts(keys, data.val_fraction, "val_fraction")
        return {"train": train, "val": val}
    val = [key for key in keys if all(key in splits["val"] for splits in firm)]
    train = [key for key in keys if not any(key in splits["val"] for splits in firm)]
    return {"train": train, "val": val}
