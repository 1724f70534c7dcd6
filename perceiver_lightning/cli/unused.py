"""Settings that do nothing: those that wait for a step beyond the training's end, and those that need another one.

Each is a line on stderr, not an error: recipes are tried with fewer epochs, and options are switched off to compare.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from perceiver_lightning.cli.classes import arguments, find_class
from perceiver_lightning.cli.messages import as_yaml, tell

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


def without_effect(config: Mapping[str, Any]) -> Iterator[str]:
    """A line for each option of model and data that is given and does nothing without another one.

    Args:
        config: with `class_path` and `init_args` of both; what is not given has its default.
    """
    for key in ("model", "data"):
        part = config.get(key) or {}
        cls = find_class(key, part.get("class_path"))
        default = {} if cls is None else {name: action.default for name, action in arguments(cls).items()}
        used = default | dict(flat(part.get("init_args") or {}))
        for options, other, values in NEEDS:
            is_used = used.get(other) in values if values else used.get(other)
            for option in (option for option in options if option in default and not is_used):
                if listed(used[option]) != listed(default[option]):
                    words = f"{other} {' or '.join(values)}".rstrip()
                    yield f"{key}.init_args.{option}: {as_yaml(used[option])} has no effect without {words}"
    trainer, early = config.get("trainer") or {}, config.get("early_stopping") or {}
    if trainer.get("gradient_clip_algorithm") and not trainer.get("gradient_clip_val"):
        yield "trainer.gradient_clip_algorithm: has no effect without gradient_clip_val"
    for option in ("min_delta", "stopping_threshold", "divergence_threshold"):
        if early.get(option) and early.get("patience") is None:
            yield f"early_stopping.{option}: {early[option]} has no effect without patience"


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
        """The length is known: epochs, and the steps of all of them."""
        epochs = trainer.max_epochs if trainer.max_epochs not in (None, -1) else math.inf
        tell(beyond_the_end(self.config, epochs, trainer.estimated_stepping_batches))
