"""Files of several datamodules brought into the same splits, by the keys in their names."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from datamodules.common.files import Files
from datamodules.common.splits import Split, cut
from perceiver_lightning.errors import InputError, require

log = logging.getLogger(__name__)

# What the files of a datamodule may become that are listed under these names.
ANY = {"all": {"train", "val", "test"}, "train": {"train", "val"}}


class Group(NamedTuple):
    """The files of one key in one list of a datamodule, and the splits that they may be in."""

    source: str
    splits: frozenset[str]
    rows: list[int]


def split_by_key(datamodules: Mapping[str, Files], key_of: Callable[[str, str], str]) -> dict[str, dict[str, Split]]:
    """The splits of each datamodule, such that files of one key are in one split where their data do not say otherwise.

    Files stay in the split that their own data have them in, and those that belong to them, of data that are not split,
    go there, too. What none of them splits is cut by seed, by key, with the settings of the first datamodule. What has
    no counterpart in any split is left out.

    Args:
        datamodules: by their names.
        key_of: of a datamodule's name and a file's name, the file's key.

    Returns:
        name of each datamodule -> split -> its files.

    Raises:
        InputError: no key is in all; one is in two splits of a datamodule, and another is not split; keys are too few
            to cut; a class has no pair in train.
    """
    listed = {name: _listed(data) for name, data in datamodules.items()}
    groups = {name: _groups(name, splits, key_of) for name, splits in listed.items()}
    first, *_ = groups
    keys_of: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    to_cut: dict[frozenset[str], list[str]] = {}
    for key in groups[first]:
        own = [groups[name].get(key, []) for name in groups]
        common = frozenset.intersection(*(frozenset().union(*(group.splits for group in one)) for one in own))
        for may_be in _together(common, [group.splits for one in own for group in one]):
            if len(may_be) > 1:
                is_free = all(any(may_be <= group.splits for group in one) for one in own)
                where = f"one split for {key!r}, as one of {', '.join(datamodules)} is not split"
                require(is_free, "key", where, f"it in {', '.join(sorted(may_be))}")
                to_cut.setdefault(may_be, []).append(key)
            for split in may_be if len(may_be) == 1 else ():
                keys_of[split].append(key)
    for may_be, keys in to_cut.items():
        parts = _cut(first, datamodules[first], listed[first], groups[first], keys, may_be)
        for split, part in parts.items():
            keys_of[split] += part
    for name, data in datamodules.items():
        is_cut = set().union(*to_cut) if name == first else set()
        data.brought |= {split for split in ("val", "test") if keys_of[split] and split not in is_cut}
    starts = "; ".join(f"the first of {name!r} is {next(iter(keys), None)!r}" for name, keys in groups.items())
    require(any(keys_of.values()), "key", "keys that all have", f"none; {starts}")

    found: dict[str, dict[str, Split]] = {}
    for name, splits in listed.items():
        found[name] = {}
        for split, keys in keys_of.items():
            taken = [group for key in keys for group in groups[name][key] if split in group.splits]
            if taken:
                rows = sorted(row for group in taken for row in group.rows)
                found[name][split] = splits[taken[0].source].take(rows)
        alone = sum(len(one.items) for one in splits.values()) - sum(len(one.items) for one in found[name].values())
        if alone:
            log.warning(f"left out {alone} examples of {name!r}, which have no counterpart")
    for split, sources in {"train": ("all", "train"), "val": ("val",), "test": ("test",)}.items():
        examples = {
            name: [one for source in sources if source in splits for one in _labelled(splits[source])]
            for name, splits in listed.items()
        }
        paired = _labelled(found[first][split]) if split in found[first] else []
        check_classes(split, examples, [label for label, _ in paired], datamodules[first].class_names, key_of)
    return found


def check_classes(
    split: str,
    examples: Mapping[str, Iterable[tuple[Any, str]]],
    paired: Iterable[Any],
    class_names: Sequence[str],
    key_of: Callable[[str, str], str],
) -> None:
    """Say which classes have examples in a split and no pair: in train an InputError, else a line in the log.

    Args:
        split: its name.
        examples: of each datamodule, their labels and names.
        paired: the labels of the pairs.
        class_names: of all classes.
        key_of: of a datamodule's name and a file's name, the file's key.
    """
    firsts: dict[int, dict[str, str]] = {}
    for name, own in examples.items():
        for labels, text in own:
            for label in _classes(labels):
                firsts.setdefault(label, {}).setdefault(name, text)
    for label in sorted(firsts.keys() - {label for labels in paired for label in _classes(labels)}):
        keys = " and ".join(f"{key_of(name, text)!r} in {name!r}" for name, text in firsts[label].items())
        one = f"class {class_names[label]!r}"
        require(split != "train", "key", f"pairs of {one} in train", f"none; its first key is {keys}")
        log.warning(f"{split}: no pair of {one}; its first key is {keys}")


def _classes(labels: Any) -> list[int]:
    """The classes of an example that has one or several."""
    return list(labels) if isinstance(labels, Sequence) else [int(labels)]


def _labelled(files: Split) -> list[tuple[Any, str]]:
    """The labels and the names of files; none of those to predict."""
    return [] if files.labels is None else list(zip(files.labels, files.names, strict=True))


def _listed(data: Files) -> dict[str, Split]:
    """The files as the data themselves split them, or "all"."""
    if (whole := data.find_all()) is not None:
        return {"all": whole}
    train, val = data.find_train()
    found = {"train": train} if val is None else {"train": train, "val": val}
    try:
        return {**found, "test": data.find_test()}
    except InputError:  # said when the test is asked for
        return found


def _groups(name: str, splits: Mapping[str, Split], key_of: Callable[[str, str], str]) -> dict[str, list[Group]]:
    """The files of a datamodule by their keys."""
    groups: dict[str, list[Group]] = {}
    for source, files in splits.items():
        may_be = frozenset({source}) if source == "train" and "val" in splits else frozenset(ANY.get(source, {source}))
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(files.names):
            rows.setdefault(key_of(name, text), []).append(row)
        for key, own in rows.items():
            groups.setdefault(key, []).append(Group(source, may_be, own))
    return groups


def _together(common: frozenset[str], of_groups: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Splits that all have a key for, those put together between which the files of a group may be divided."""
    parts = [frozenset({split}) for split in sorted(common)]
    for own in of_groups:
        touched = [part for part in parts if part & own]
        parts = [part for part in parts if not part & own] + [frozenset().union(*touched)] * bool(touched)
    return parts


def _cut(
    name: str,
    data: Files,
    splits: Mapping[str, Split],
    groups: Mapping[str, list[Group]],
    keys: list[str],
    may_be: frozenset[str],
) -> dict[str, list[str]]:
    """The keys of train and val, and of test if they may be that, as `Files` cuts its own files."""
    free = [next(group for group in groups[key] if may_be <= group.splits) for key in keys]
    sources, rows = [splits[group.source] for group in free], [group.rows[0] for group in free]

    def column(of: str) -> list[Any] | None:
        columns = [getattr(source, of) for source in sources]
        return None if None in columns else [values[row] for values, row in zip(columns, rows, strict=True)]

    labels: list[Any] | None = [0] * len(keys) if sources[0].several else column("labels")
    whole = Split(keys, keys, labels, f"the keys of {name!r}", data.kind, groups=column("groups"))
    test: dict[str, list[str]] = {}
    if "test" in may_be:
        whole, part = cut(whole, data.test_fraction, data.split_seed, "test_fraction")
        test = {"test": list(part.items)}
    train, val = cut(whole, data.val_fraction, data.split_seed, "val_fraction")
    return {"train": list(train.items), "val": list(val.items), **test}
