"""Settings that do nothing: those that wait for a step beyond the training's end, and those that need another one.

Each is a line on stderr, not an error: recipes are tried with fewer epochs, and options are switched off to compare.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from perceiver_lightning.cli.classes import arguments, find_class
from perceiver_lightning.cli.messages import as_yaml, tell
from perceiver_lightning.tasks import PerceiverTask
from perceiver_lightning.training.stopping import Patience

ANY: tuple[Any, ...] = ()
# Options by the names of a class's arguments, the one that they need, and its values with which they do something.
NEEDS = [
    (["flat"], "schedule", ("flat_cosine",)),
    (["milestones"], "schedule", ("step",)),
    (["position_width"], "positions", ("learned", "learned_axes")),
    (["highest_frequency"], "positions", ("fourier",)),
    (["num_queries", "query_resolution", "query_residual"], "decoder", ("query",)),
    (["decoder_heads", "decoder_qk_width", "decoder_v_width"], "decoder", ("query",)),
    (["self_heads", "self_qk_width", "self_v_width"], "self_attends", ANY),
    (["cache_dir"], "cache", ("disk",)),
    (["pictures.centre"], "pictures.centre_crop", ANY),
    (["spectrogram.window", "spectrogram.hop", "spectrogram.frequencies"], "spectrogram.mels", ANY),
    (["test_fold", "val_fold"], "fold_column", ANY),
]


def without_effect(config: Mapping[str, Any], modalities: Collection[str] = ()) -> Iterator[str]:
    """A line for each option that is given and does nothing without another one.

    Args:
        config: with `class_path` and `init_args` of model and data; what is not given has its default.
        modalities: of the data, if they are known.
    """
    for key in ("model", "data"):
        part = config.get(key) or {}
        cls = find_class(key, part.get("class_path"))
        default = {} if cls is None else {name: action.default for name, action in arguments(cls).items()}
        used = default | dict(flat(part.get("init_args") or {}))
        if key == "model" and used.get("fusion") == "late" and len(modalities) == 1:
            yield f"model.init_args.fusion: 'late' has no effect on one modality, {', '.join(modalities)}"
        for options, other, values in NEEDS:
            is_used = used.get(other) in values if values else used.get(other)
            for option in (option for option in options if option in default and not is_used):
                if listed(used[option]) != listed(default[option]):
                    words = f"{other} {' or '.join(values)}".rstrip()
                    yield f"{key}.init_args.{option}: {as_yaml(used[option])} has no effect without {words}"
    trainer, early = config.get("trainer") or {}, config.get("early_stopping") or {}
    if trainer.get("gradient_clip_algorithm") and not trainer.get("gradient_clip_val"):
        yield "trainer.gradient_clip_algorithm: has no effect without gradient_clip_val"
    if early.get("patience") is None:
        task: Any = find_class("model", (config.get("model") or {}).get("class_path")) or PerceiverTask
        default = {name: action.default for name, action in arguments(Patience).items()}
        default |= {name: getattr(task, name, None) for name in ("monitor", "mode")}
        for option in early:
            if option in default and early[option] != default[option]:
                yield f"early_stopping.{option}: {as_yaml(early[option])} has no effect without patience"


def not_cut(given: Mapping[str, Any], data: Any, where: str = "data") -> Iterator[str]:
    """A line for each share of a split that is given to data and cut off of nothing.

    Args:
        given: `class_path` and `init_args` of the data.
        data: made of these, after `setup`.
        where: the key of `given`.
    """
    cls: Any = type(data)
    own, options = given.get("init_args") or {}, arguments(cls)
    for split in sorted(getattr(data, "brought", ())):
        option = f"{split}_fraction"
        if option in options and own.get(option, options[option].default) != options[option].default:
            yield f"{where}.init_args.{option}: {own[option]} has no effect, as these data are split already"
    for name, member in getattr(data, "datamodules", {}).items():
        part = own.get("datamodules", {}).get(name)
        if isinstance(part, dict):
            yield from not_cut(part, member, f"{where}.init_args.datamodules.{name}")


def beyond_the_end(config: Mapping[str, Any], epochs: float, steps: float) -> Iterator[str]:
    """A line for each setting of a training that waits for an epoch or a step after its end.

    They are known by their names: `..._epoch`, `..._at_step` are its number, from 0; `every_n_...`, `min_...` a count.
    """
    for key, value in flat(config):
        name = key.split(".")[-1]
        found = re.search(r"(?:^|_)(epoch|step)s?(?:_|$)", name)
        if not found or isinstance(value, bool) or not isinstance(value, int) or re.match("max_|log_every", name):
            continue
        total = epochs if found[1] == "epoch" else steps
        counts = re.match("check_|reload_|min_", name) or "every" in name
        if value > total or (value == total and not counts):
            yield f"{key}: {value} is not reached, as the training has {total:g} {found[1]}s"


def flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts by keys with dots; dicts in a list by their number."""
    for name, value in given.items():
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            value = {str(place): one for place, one in enumerate(value)}
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def listed(value: Any) -> Any:
    """A value as a config has it: a tuple is a list."""
    return list(value) if isinstance(value, tuple) else value


class Unreached(Callback):
    """Says at the start of a training which settings wait for an epoch or a step that it does not have.

    Args:
        config: of the command.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The length is known: epochs, and the steps of all of them; so are the splits of the data."""
        epochs = trainer.max_epochs if trainer.max_epochs not in (None, -1) else math.inf
        tell(beyond_the_end(self.config, epochs, trainer.estimated_stepping_batches))
        tell(not_cut(self.config.get("data") or {}, trainer.datamodule))  # type: ignore[attr-defined]
