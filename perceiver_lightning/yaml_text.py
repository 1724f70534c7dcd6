"""YAML as this project reads and writes it: whatever is written reads back as it was.

jsonargparse, which reads configs, takes `1e-3` for a number. PyYAML, which writes them, takes it for a word and leaves
out the quotes. Here all files are read by the rules of jsonargparse, and the dumper quotes every string that they or
PyYAML's would take for something else. jsonargparse reads and writes by the same two.
"""

import math
from collections.abc import Callable
from typing import Any

import yaml
from jsonargparse import Namespace, set_dumper, set_loader

from perceiver_lightning.errors import InputError
from perceiver_lightning.names import shown
from perceiver_lightning.private import yaml_loader, yaml_value

MERGE = "tag:yaml.org,2002:merge"
NULLS = ("null", "Null", "NULL", "~", "")


class Dumper(yaml.SafeDumper):
    """PyYAML's, which quotes what either loader would not take for a string."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write what is there twice twice: a person reads the file."""
        return True


class PythonLoader(yaml.SafeLoader):
    """jsonargparse's loader in Python: libyaml's refuses the escapes of names that are not UTF-8.

    It refuses a key that is there twice: of two values PyYAML takes the last one without a word. What a merge (`<<`)
    brings is no second key.
    """

    yaml_implicit_resolvers = yaml_loader().yaml_implicit_resolvers

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The nodes of a mapping, before what is merged into it is among them."""
        node = super().compose_mapping_node(anchor)
        marks: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            first = marks.setdefault((key.tag, key.value), key.start_mark)
            if first is not key.start_mark:
                lines = (first.line + 1, key.start_mark.line + 1)
                where = f"lines {lines[0]} and {lines[1]}" if lines[0] < lines[1] else f"line {lines[0]}"
                raise RepeatedKey(problem=f"{key.value} twice, in {where}", problem_mark=key.start_mark)
        return node


class RepeatedKey(yaml.MarkedYAMLError):
    """A key is twice in one mapping."""


for first, resolvers in yaml_loader().yaml_implicit_resolvers.items():
    for tag, pattern in resolvers:
        Dumper.add_implicit_resolver(tag, pattern, [first])


def represent(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """A string; line breaks other than \\n, and names that are not UTF-8, survive as escapes alone."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, represent)
Dumper.add_multi_representer(str, represent)


def dump(value: Any, flow: bool = False) -> str:
    """Plain values, lists and dicts of them as YAML, their order kept; with `flow` in one line, `{a: [1, 2]}`."""
    width = math.inf if flow else None
    text = yaml.dump(value, None, Dumper, sort_keys=False, default_flow_style=flow, allow_unicode=True, width=width)
    return text.rstrip("\n") if flow else text


def load(text: str) -> Any:
    """What a text of YAML says.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, PythonLoader)


def load_config(text: str) -> Any:
    """A configuration, in which the name and the folder of a run are text, whatever they look like: `name: 1e-3`.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    found = load(text)
    odd = [key for key in ("name", "runs_dir") if isinstance(found, dict) and isinstance(found.get(key), int | float)]
    as_typed = yaml.load(text, yaml.BaseLoader) if odd else {}
    return {**found, **{key: as_typed[key] for key in odd}} if odd else found


class Quoted(str):
    """Text that YAML would take for null: jsonargparse reads the strings of a config once more, but not those of a
    subclass."""


def _value(text: str) -> Any:
    """What jsonargparse reads, by libyaml unless there are names that are not UTF-8.

    Raises:
        InputError: a key is there twice; another error of YAML jsonargparse takes for a text that is none.
    """
    if ":" in text:
        try:
            yaml.compose(text, PythonLoader)
        except RepeatedKey as error:
            raise InputError(f"a config: expected YAML, found {error.problem}") from error
    found = load(text) if "\\uD" in text or shown(text) != text else yaml_value(text)
    if found is None and text.strip() not in NULLS:  # a comment, a name for what follows: as `--root '#1'`
        return text
    return each_string(found, lambda one: Quoted(one) if one in NULLS else one) if isinstance(found, dict) else found


def each_string(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with its strings changed, in lists and dicts and jsonargparse's namespaces."""
    if isinstance(value, Namespace):
        changed = Namespace()
        vars(changed).update({key: each_string(one, change) for key, one in vars(value).items()})
        return changed
    if isinstance(value, dict):
        return {key: each_string(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [each_string(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


set_loader("yaml", _value, (yaml.YAMLError,))
set_dumper("yaml", dump)
