"""Config files: keys that are there twice, that have nothing under them, that are in another place than theirs."""

from pathlib import Path

import pytest
import yaml
from command_line import TINY
from hypothesis import given
from hypothesis import strategies as st

from perceiver_lightning.cli import CLI, main
from perceiver_lightning.cli.configs import read_config, with_nested, without_empty
from perceiver_lightning.cli.messages import without_hints
from perceiver_lightning.cli.parser import look_ahead
from perceiver_lightning.errors import InputError
from perceiver_lightning.search import Sweep
from perceiver_lightning.yaml_text import load


class Parsed(CLI):
    """A command up to the point where classes would be made."""

    def instantiate_classes(self) -> None:
        pass

    def run_subcommand(self, subcommand: str) -> None:
        pass


def parsed(*args: str, subcommand: str = "fit"):
    with without_hints():
        return Parsed([subcommand, *args]).config[subcommand]


def sentence(*args: str, of=parsed) -> str:
    with pytest.raises(InputError) as error:
        of(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def ahead(*args: str):
    """What is found before there is a parser."""
    return look_ahead(["fit", "--config=tiny.yaml", *args], ["fit"])


# ---- keys that are there twice


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name: a\ntrainer: {max_epochs: 3}\nname: b\n", ", line 3: expected YAML, found name twice, in lines 1 and 3"),
        ("model:\n  init_args:\n    bands: 2\n    # more\n    'bands': 3\n",
         ", line 5: expected YAML, found bands twice, in lines 3 and 5"),
        ("data: {init_args: {size: 8, size: 8}}\n", ", line 1: expected YAML, found size twice, in line 1"),
        ("trainer:\n  callbacks:\n  - class_path: ModelSummary\n    class_path: Timer\n",
         ", line 4: expected YAML, found class_path twice, in lines 3 and 4"),
        ("data:\n  <<: {size: 8}\n  size: 9\n  size: 7\n",
         ", line 4: expected YAML, found size twice, in lines 3 and 4"),
    ],
)  # fmt: skip
def test_a_key_that_is_there_twice(here, text, found):
    Path("more.yaml").write_text(text)
    assert sentence("--config=more.yaml", of=ahead) == f"more.yaml{found}"


@pytest.mark.parametrize(
    ("given", "key"), [("--data=more.yaml", "data"), ("--trainer.callbacks=[more.yaml]", "trainer.callbacks")]
)
def test_a_key_that_is_there_twice_in_the_file_of_a_class(here, given, key):
    Path("more.yaml").write_text("class_path: Digits\ninit_args:\n  size: 8\n  mean: 0.1\n  size: 9\n")
    assert sentence("--config=tiny.yaml", given) == f"{key}: expected YAML, found size twice, in lines 3 and 5"


def test_a_key_that_is_there_twice_in_a_flag_or_a_sweep(here):
    found = sentence("--config=tiny.yaml", "--data.init_args.augment={mixup: 0.1, mixup: 0.2}")
    assert found == "data: expected YAML, found mixup twice, in line 1"
    Path("sweep.yaml").write_text("command: [a]\nmethod: grid\ncommand: [b]\n")
    with pytest.raises(InputError, match=r"sweep.yaml: .* command twice, in lines 1 and 3"):
        Sweep("sweep.yaml")


def test_anchors_and_merges_are_no_second_key(here):
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc:\n  <<: [*a, *b]\n  y: 4\nd: {<<: *a, <<: *b}\ne: *b\n"
    text += "1: 0\n'1': 0\n"
    assert load(text) == yaml.safe_load(text)
    Path("more.yaml").write_text("data:\n  init_args:\n    <<: &a {size: 6, batch_size: 5}\n    size: 7\n")
    found = parsed("--config=tiny.yaml", "--config=more.yaml").data.init_args
    assert (found.size, found.batch_size) == (7, 5)


KEYS = st.text("abc <", min_size=1, max_size=2)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.integers(), max_size=3), min_size=1, max_size=4), st.data())
def test_just_the_keys_that_are_there_twice(whole, data):
    text = yaml.safe_dump(whole, sort_keys=False)
    assert load(text) == whole
    again = data.draw(st.sampled_from(sorted(whole)))
    with pytest.raises(yaml.YAMLError, match="twice, in lines"):
        load(text + yaml.safe_dump({again: 1}))


# ---- nothing under a key


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trainer:\nmodel:\n# init_args: {bands: 9}\ndata:\nname: a\n", {"name": "a"}),
        ("model: {init_args: }\ndata:\n  class_path: Digits\n  init_args:\n",
         {"model": {}, "data": {"class_path": "Digits"}}),
        ("trainer:\n  callbacks:\n  - class_path: ModelSummary\n    init_args:\n",
         {"trainer": {"callbacks": [{"class_path": "ModelSummary"}]}}),
    ],
)  # fmt: skip
def test_a_key_with_nothing_under_it_says_nothing(here, text, found):
    Path("more.yaml").write_text(text)
    assert read_config("more.yaml") == found


def test_it_changes_nothing_of_another_config(here):
    Path("more.yaml").write_text("trainer:\nmodel: {init_args: }\ndata:\n")
    found, plain = parsed("--config=tiny.yaml", "--config=more.yaml"), parsed("--config=tiny.yaml")
    assert {**found.as_dict(), "config": plain.config} == plain.as_dict()


def test_what_may_be_null_stays_null():
    config = {"seed_everything": None, "trainer": {"callbacks": None}, "data": {"init_args": {"mean": None}}}
    assert without_empty(config) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("early_stopping:\n", "early_stopping: expected keys and values, found nothing"),
        ("checkpoint: null\n", "checkpoint: expected keys and values, found nothing"),
        ("data: {class_path: }\n", "data.class_path: expected the name of a class, found nothing"),
    ],
)
def test_a_key_that_needs_a_value(here, text, said):
    Path("more.yaml").write_text(text)
    assert sentence("--config=more.yaml", of=ahead) == said


def test_a_group_of_arguments_with_nothing_under_it(here):
    Path("more.yaml").write_text("data:\n  init_args:\n    augment:\n")
    found = sentence("--config=tiny.yaml", "--config=more.yaml")
    assert found == "data.init_args.augment: expected keys and values, found null"


def test_a_config_whose_model_is_empty_has_none(here):
    Path("more.yaml").write_text("model:\ndata: Digits\n")
    assert sentence("--config=more.yaml").startswith("expected model, found none: give --config FILE")


# ---- keys in another place than theirs

TASK = {"class_path": "ClassificationTask"}
MEMBER = {"class_path": "Digits", "size": 8}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model": {**TASK, "num_latents": 8}}, "model.num_latents: there is no such key; it belongs under model.init"),
        ({"model": {**TASK, "num_latent": 8, "init_args": {}}},
         "model.num_latent: there is no such key; did you mean model.init_args.num_latents?"),
        ({"data": {"root": 8, "init_args": {}}}, "data.root: there is no such key"),
        ({"model": {**TASK, "int_args": {"bands": 3}}},
         "model.int_args: there is no such key; did you mean init_args?"),
        ({"model": {"init_arg": {"bands": 3}}}, "model.init_arg: there is no such key; did you mean init_args?"),
        ({"model": {"classpath": "x"}}, "model.classpath: there is no such key; did you mean class_path?"),
        ({"init_args": {"bands": 3}}, "class_path, init_args: expected them under model or data, found them beside"),
        ({"trainer": {"callbacks": [{"class_path": "Timer", "duration": 3}]}},
         "trainer.callbacks.0.duration: there is no such key; it belongs under trainer.callbacks.0.init_args"),
        ({"data": {"class_path": "Paired", "init_args": {"datamodules": {"a": MEMBER, "b": "Digits"}}}},
         "data.init_args.datamodules.a.size: there is no such key; it belongs under data.init_args.datamod"),
    ],
)  # fmt: skip
def test_a_key_in_another_place_than_its_own(here, config, said):
    Path("more.yaml").write_text(yaml.safe_dump(config))
    assert sentence("--config=more.yaml", of=ahead).startswith(said)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--model.init_args.batch_size=3",
         "model.init_args.batch_size: ClassificationTask has no such argument; did you mean data.init_args.batch"),
        ("--config=more.yaml",
         "trainer.learning_rate: there is no such key; did you mean model.init_args.learning_rate?"),
        ("--config=outside.yaml", "bands: there is no such key; did you mean model.init_args.bands?"),
        ("--num_latents=3", "num_latents: there is no such key; did you mean model.init_args.num_latents?"),
        ("--num_latent=3", "num_latent: there is no such key; did you mean model.init_args.num_latents?"),
        ("--data.init_arg.size=3", "init_arg.size: there is no such key; did you mean data.init_args.size?"),
    ],
)  # fmt: skip
def test_an_argument_among_those_of_another(here, flag, said):
    Path("more.yaml").write_text("trainer: {learning_rate: 3}\n")
    Path("outside.yaml").write_text("bands: 3\n")
    assert sentence("--config=tiny.yaml", flag).startswith(said)


def test_a_model_without_a_class(here):
    Path("more.yaml").write_text(yaml.safe_dump({**TINY, "model": TINY["model"]["init_args"]}))
    Path("tiny.yaml").write_text("data: Digits\n")
    assert sentence("--config=more.yaml", of=ahead) == "model.class_path: expected the name of a class, found none"


def test_arguments_without_init_args_are_short_for_these(here):
    Path("more.yaml").write_text("model: {num_latents: 3}\ndata: {class_names: null, size: 5}\n")
    config = parsed("--config=tiny.yaml", "--config=more.yaml")
    assert (config.model.init_args.num_latents, config.data.init_args.size) == (3, 5)


def test_keys_with_dots_are_nested_keys(here):
    flat = {"trainer.max_epochs": 1, "model.class_path": "ClassificationTask", "model.init_args.bands": 3}
    whole = {"data": {"class_path": "Digits", "init_args.size": 5, "init_args": {"noise": {"a.b": 1}}}}
    assert with_nested({**flat, **whole}) == {
        "trainer": {"max_epochs": 1},
        "model": {"class_path": "ClassificationTask", "init_args": {"bands": 3}},
        "data": {"class_path": "Digits", "init_args": {"size": 5, "noise": {"a.b": 1}}},
    }
    with pytest.raises(InputError, match=r"model.init_args.bands: expected each key once, found bands twice, nested"):
        with_nested({"model": {"init_args": {"bands": 2}}, "model.init_args.bands": 3})
    Path("more.yaml").write_text(yaml.safe_dump({**flat, "data": "Digits"}))
    config = parsed("--config=more.yaml")
    assert (config.model.init_args.bands, config.trainer.max_epochs) == (3, 1)


# ---- `check` needs no model


def test_check_needs_data_alone(here):
    Path("data.yaml").write_text(yaml.safe_dump({"data": TINY["data"]}))
    assert parsed("--config=data.yaml", subcommand="check").data.class_path == "datamodules.Digits"
    main(["check", "--data", "Digits", "--data.init_args.size", "8"])
    with pytest.raises(InputError, match="expected model, found none"):
        parsed("--config=data.yaml", subcommand="summary")
