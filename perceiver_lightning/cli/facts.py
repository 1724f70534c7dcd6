"""Facts of the data on their way to the task: whatever it names in `facts`, arguments of its own."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from perceiver_lightning.cli.classes import default_of
from perceiver_lightning.errors import InputError


def link_facts(parser: LightningArgumentParser, task: Any) -> None:
    """Have the parser make the task with the facts that it needs of the data."""
    for fact in getattr(task, "facts", ()):
        read = partial(fact_of, task=task, fact=fact)
        parser.link_arguments("data", f"model.init_args.{fact}", compute_fn=read, apply_on="instantiate")


def fact_of(data: Any, task: type, fact: str) -> Any:
    """A fact of the data; what the datamodule does not tell is the default of the task's argument.

    Raises:
        InputError: there is neither.
    """
    if hasattr(data, fact):
        return getattr(data, fact)
    try:
        return default_of(task, fact)
    except KeyError:
        known = ", ".join(["modalities"] * hasattr(data, "modalities") + list(getattr(data, "facts", ())))
        found = f"{type(data).__name__}, which has {known or 'no facts'}"
        raise InputError(f"data: expected the fact {fact}, which {task.__name__} needs, found {found}") from None


def fill_in_facts(config: Any, task: Any, known: Mapping[str, Any]) -> None:
    """Put facts that a checkpoint knows in the place of nulls among the arguments of the data.

    The folder of the training, which tells the classes, may be gone when a prediction is made.

    Args:
        config: of a subcommand, as it was parsed.
        task: the class.
        known: the hyper-parameters that it was trained with.
    """
    for fact in getattr(task, "facts", ()):
        if fact != "modalities" and fact in known and config.get(f"data.init_args.{fact}", ...) is None:
            config.data.init_args[fact] = known[fact]
