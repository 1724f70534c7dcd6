"""Names of any bytes and any form, and YAML that reads back as it was written."""

import csv
import io
import os
import subprocess
import unicodedata
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure

from datamodules.common.classes import class_facts
from perceiver_lightning.analysis.labels import as_label
from perceiver_lightning.errors import InputError
from perceiver_lightning.names import ERRORS, composed, quoted, shown
from perceiver_lightning.tasks import ClassificationTask
from perceiver_lightning.training.predictions import PredictionWriter
from perceiver_lightning.yaml_text import dump, each_string, load, load_config

LOOK_LIKE_OTHERS = [
    *(
        "1e-3",
        "1e3",
        "5E+4",
        ".5",
        "1_000",
        "007",
        "0x10",
        "0b1",
        "0o7",
        "1:30",
        "12:30:45",
        "+1",
        "1.",
        ".inf",
        ".nan",
    ),
    *("yes", "No", "on", "true", "null", "Null", "~", "", "=", "<<", "2024-01-01", "2024-01-01 10:00:00", "y"),
    *(
        "a: b",
        "a #b",
        "- a",
        "[a]",
        "{a: b}",
        "{a, b}",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        "?",
        "? a",
        "? 1",
        "{?}",
        "{1}",
        "{a}",
        "a:",
        "1:",
        "null:",
        ":",
        "---",
        "...",
    ),
    *(" a", "a ", "a\n", "\na", "a\r\nb", "\t", "a\u2028b", "a\x85b", "\x85", "\ufeffa", "\x7f", "\ufffe", "🎈", "é"),
    *("'", '"', "'a'", '"a"', "a" * 200, "a b " * 60, "caf\udce9", "\udcff\udcfe", "C:\\x", "\\uDCFF", "$HOME", "a\\"),
]
of_file_systems = st.binary(min_size=1, max_size=20).map(os.fsdecode)  # whatever bytes, "\0" too
texts = st.sampled_from(LOOK_LIKE_OTHERS) | st.text(max_size=30) | of_file_systems | st.from_regex(r"[-+.\d_:eEx]+")


@given(texts, texts)
def test_yaml_reads_back_as_it_was(text, key):
    value = {"text": text, "list": [text, [text]], "keys": {key: text, "none": None, "number": 1e-3, "true": True}}
    written = dump(value)
    assert load(written) == yaml.safe_load(written) == value
    written.encode()  # names that are not UTF-8 are escapes


class Holder:
    def __init__(self, path: str, maybe: str | None, several: list[str], keys: dict[str, str], free: Any) -> None:
        """Takes text in every place that a config has for it."""


def of_the_parser(text, key):
    """Text in every place of a config, parsed, written and parsed again: the same."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--name", type=str)
    parser.add_subclass_arguments(Holder, "data")
    arguments = {"path": text, "maybe": text, "several": [text, "x"], "keys": {key: text}, "free": {"a": [text]}}
    given_ = {"name": text, "data": {"class_path": f"{__name__}.Holder", "init_args": arguments}}
    config = each_string(parser.parse_string(dump(given_)), str)
    again = each_string(parser.parse_string(parser.dump(config, skip_unset=False)), str)
    for found in (config, again):
        assert found.name == text
        whole = found.data.init_args
        assert (whole.path, whole.maybe, whole.several, whole["keys"]) == (text, text, [text, "x"], {key: text})


@pytest.mark.parametrize("text", LOOK_LIKE_OTHERS)
def test_the_parser_reads_back_text_that_looks_like_another_type(text):
    of_the_parser(text, text)


@given(texts, texts)
def test_the_parser_reads_back_what_it_writes(text, key):
    of_the_parser(text, key)


@pytest.mark.parametrize("name", ["1e-3", "007", "0x10", "yes", ".5", "x"])
def test_a_run_s_name_in_a_config_is_what_was_typed(name):
    assert load_config(f"name: {name}\ntrainer: {{lr: 1e-3}}") == {"name": name, "trainer": {"lr": 1e-3}}


@given(st.lists(texts.filter(lambda text: "\0" not in text), max_size=4))
def test_a_printed_command_can_be_pasted(words):
    line = " ".join(map(quoted, words))
    assert "\n" not in line and line.isprintable()
    script = f"for word in {line}; do printf '%s\\0' \"$word\"; done"
    done = subprocess.run(["bash", "-c", script], capture_output=True)
    assert done.stdout.decode("utf-8", ERRORS).split("\0")[:-1] == words


def test_what_is_shown_can_be_written_anywhere():
    assert shown("caf\udce9 ü") == "caf\\udce9 ü"
    figure = Figure()
    figure.suptitle(as_label("caf\udce9 $x$"))
    figure.savefig(io.BytesIO(), format="png")


NFC, NFD = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))


def test_class_names_are_compared_in_one_form():
    assert NFC != NFD and composed(NFD) == NFC
    assert class_facts(2, [NFD, "b"])["class_names"] == [NFC, "b"]
    assert class_facts(2, ["crane", "crane"])["class_names"] == ["crane", "crane"]  # the bird and the machine
    with pytest.raises(InputError, match="class_names: expected one Unicode form of each name, found two of 'épée'"):
        class_facts(2, [NFC, NFD])


def task(names: list[str]) -> ClassificationTask:
    wave = {"wave": {"channels": 1, "resolution": [4]}}
    small = {"num_latents": 2, "latent_width": 8, "self_attends": 0, "cross_attends": [1], "bands": 1}
    return ClassificationTask(wave, 2, names, **small)


def test_a_checkpoint_of_another_form_fits():
    old, now = task([NFD, "b"]), task([NFC, "b"])
    checkpoint = {"state_dict": old.state_dict(), "hyper_parameters": dict(old.hparams)}
    now.on_load_checkpoint(checkpoint)
    with pytest.raises(InputError, match="class_names"):
        task([NFC, "c"]).on_load_checkpoint(checkpoint)


ODD = [
    "a,b.png",
    'a"b.png',
    "a\nb.png",
    "a\rb.png",
    "a\r\nb.png",
    " a .png",
    "é.png",
    "",
    "#",
    "a;b\tc",
    "'x'",
    "\u2028",
]


@pytest.mark.parametrize("names", [ODD, [*ODD, "caf\udce9.png", "\udcff\udcfe"]])
def test_predictions_of_any_names_read_back(tmp_path, capsys, names):
    class Trainer:
        world_size, is_global_zero = 1, True

    outputs = {"name": names, "predictions": torch.ones(len(names), 2)}
    file = tmp_path / "predictions.csv"
    PredictionWriter(file).write_on_epoch_end(Trainer(), task(["x,y", "caf\udce9"]), [outputs], [])  # type: ignore[arg-type]
    with open(file, newline="", encoding="utf-8", errors=ERRORS) as lines:
        assert [row["file"] for row in csv.DictReader(lines)] == names
    said = capsys.readouterr().err
    if names == ODD:
        assert said == ""
    else:
        assert said.startswith(f"{file}: 2 names of files are not UTF-8, as caf\\udce9.png: read it with errors=")
