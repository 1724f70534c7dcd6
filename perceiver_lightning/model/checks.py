"""Checks of a model's arguments, with messages of the form `num_latents: expected 1 or more, found 0`.

Each raises a ValueError that names the argument.
"""

from collections.abc import Mapping, Sequence
from typing import Any

COUNTS = (
    "num_outputs", "num_latents", "latent_width", "cross_heads", "self_heads", "decoder_heads", "bands",
    "position_width", "widening", "num_queries", "cross_qk_width", "cross_v_width", "self_qk_width", "self_v_width",
    "decoder_qk_width", "decoder_v_width",
)  # fmt: skip


def check_arguments(given: Mapping[str, Any]) -> None:
    """Those of `Perceiver` that can be checked before anything is built."""
    for name in COUNTS:
        if given[name] is not None:
            at_least_one(name, given[name])
    highest, resolution = given["highest_frequency"], given["query_resolution"]
    if highest is not None and not highest > 0:
        raise ValueError(f"highest_frequency: expected more than 0, found {highest}")
    if resolution is not None and (not resolution or min(resolution) < 1):
        raise ValueError(f"query_resolution: expected one number, 1 or more, for each axis, found {list(resolution)}")
    if not 0 <= given["dropout"] < 1:
        raise ValueError(f"dropout: expected 0 or more and below 1, found {given['dropout']}")
    if given["self_attends"] < 0:
        raise ValueError(f"self_attends: expected 0 or more, found {given['self_attends']}")
    crosses = list(given["cross_attends"])
    if min(crosses, default=0) < 0 or not sum(crosses):
        raise ValueError(
            "cross_attends: expected one number, 0 or more, for each block, with one cross-attend at the least, found "
            f"{crosses}"
        )
    if crosses[0] == 0:
        raise ValueError(f"cross_attends: expected the first block to begin with one or more, found {crosses}")


def at_least_one(name: str, count: int) -> None:
    """A count must be 1 or more."""
    if count < 1:
        raise ValueError(f"{name}: expected 1 or more, found {count}")


def one_of(name: str, found: str, allowed: Sequence[str]) -> None:
    """A value must be among those that are allowed."""
    if found not in allowed:
        raise ValueError(f"{name}: expected {', '.join(allowed[:-1])} or {allowed[-1]}, found {found!r}")


def check_heads(kind: str, heads: int, qk_width: int | None, v_width: int | None, default: int) -> None:
    """Heads must divide the widths, or the default where none is given; `kind` is cross, self or decoder."""
    for name, width in {"qk": qk_width or default, "v": v_width or qk_width or default}.items():
        if width % heads:
            otherwise = "the input array's width" if kind == "cross" else "latent_width"
            raise ValueError(
                f"{kind}_heads: expected a divisor of {width}, which is {kind}_{name}_width or, when not given, "
                f"{otherwise}, found {heads}"
            )


def check_modalities(modalities: Mapping[str, Mapping[str, Any]]) -> None:
    """There must be one, and each has a resolution, and channels or a vocabulary."""
    if not modalities:
        raise ValueError(
            "modalities: expected at least one, as {'image': {'channels': 3, 'resolution': [224, 224]}}, found none"
        )
    for name, facts in modalities.items():
        if "resolution" not in facts or ("channels" in facts) == ("vocabulary" in facts):
            raise ValueError(
                f"modalities[{name!r}]: expected resolution, and either channels or vocabulary, found "
                f"{', '.join(facts) or 'nothing'}"
            )
        at_least_one(f"modalities[{name!r}]['vocabulary']", facts.get("vocabulary", 1))


def check_names(inputs: Mapping[str, Any], known: Sequence[str]) -> None:
    """A batch must have a modality, and none that the model was not built for."""
    if not inputs or any(name not in known for name in inputs):
        raise ValueError(f"inputs: expected some of the modalities {list(known)}, found {list(inputs)}")
