import csv
import json
import math

import pytest
import torch
import yaml
from command_line import weights
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console

from perceiver_lightning.analysis.runs import (
    Incomplete,
    as_text,
    at_best,
    best,
    flat,
    load_metrics,
    read_run,
    summary_table,
)
from perceiver_lightning.checkpoint import load_run
from perceiver_lightning.compare import compare, main
from perceiver_lightning.errors import InputError

# As Lightning's CSVLogger writes: one row for each call of log, blank where that call said nothing.
ROWS = [
    {"lr-AdamW": 0.001, "step": 9},
    {"epoch": 0, "step": 9, "train/loss": 2.5},
    {"epoch": 0, "step": 19, "val/loss": 2.0, "val/accuracy": 0.25},
    {"epoch": 1, "step": 29, "train/loss": 1.5},
    {"epoch": 1, "step": 39, "val/loss": 1.75, "val/accuracy": 0.75},
    {"epoch": 2, "step": 59, "val/loss": 1.25, "val/accuracy": 0.5},
    {"epoch": 2, "step": 59, "train/accuracy": 0.625},
]
CONFIG = {
    "name": "shapes",
    "model": {"class_path": "Task", "init_args": {"learning_rate": 0.003, "cross_attends": [1, 1]}},
    "checkpoint": {"monitor": "val/accuracy", "mode": "max"},
}


def write(folder, rows=ROWS, config=CONFIG):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def two(tmp_path):
    other = CONFIG | {"model": {"class_path": "Task", "init_args": {"learning_rate": 0.001, "cross_attends": [1, 1]}}}
    test = {"epoch": 3, "step": 59, "test/accuracy": 0.7}
    return [write(tmp_path / "shapes/version_0"), write(tmp_path / "shapes/version_1", [*ROWS, test], other)]


def test_metrics_are_read_without_the_blanks(two):
    metrics = load_metrics(two[0])
    assert metrics["val/accuracy"] == [(19, 0.25), (39, 0.75), (59, 0.5)]
    assert metrics["train/loss"] == [(9, 2.5), (29, 1.5)]
    assert metrics["train/accuracy"] == [(59, 0.625)]


def test_a_later_value_at_the_same_step_counts(tmp_path):
    tests = [{"step": 59, "test/accuracy": value} for value in (0.5, 0.75)]
    assert load_metrics(write(tmp_path / "run", [*ROWS, *tests]))["test/accuracy"] == [(59, 0.75)]


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=6), st.sampled_from(["min", "max"]))
def test_the_best_is_by_the_config_s_own_monitor_and_mode(tmp_path_factory, losses, mode):
    rows = [{"step": step, "epoch": step, "val/loss": loss, "val/f1": step / 8} for step, loss in enumerate(losses)]
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = read_run(write(folder, rows, {"checkpoint": {"monitor": "val/loss", "mode": mode}}))
    found = best(run)
    numbers = [loss for loss in losses if not math.isnan(loss)]
    if not numbers:
        assert found is at_best(run, "val/f1") is None
    else:
        assert found == ("val/loss", min(numbers) if mode == "min" else max(numbers), losses.index(found[1]))
        assert at_best(run, "val/f1") == found[2] / 8 and at_best(run, "val/map") is None


def test_compare_shows_results_and_only_the_keys_that_differ(two):
    rows = compare([read_run(folder) for folder in two])
    assert rows == {
        "best val/accuracy": ["0.7500", "0.7500"],
        "at step": ["39", "39"],
        "last train/loss": ["1.5000", "1.5000"],
        "test/accuracy": ["-", "0.7000"],
        "epochs": ["3", "3"],
        "model.learning_rate": ["0.003", "0.001"],
    }


def test_runs_of_other_monitors_and_keys_stand_side_by_side(tmp_path, two):
    loss = write(tmp_path / "other", config={"checkpoint": {"monitor": "val/loss", "mode": "min"}})
    rows = compare([read_run(two[0]), read_run(loss)])
    assert rows["best val/accuracy"] == ["0.7500", "-"]
    assert rows["best val/loss"] == ["-", "1.2500"]
    assert rows["at step"] == ["39", "59"]
    assert rows["model.cross_attends"] == ["[1, 1]", "-"]


def test_flat_leaves_out_only_the_words_that_say_nothing():
    nested = {"data": {"class_path": "D", "init_args": {"size": 8, "of": {"x": 1}}}, "empty": {}, "list": [1]}
    assert flat(nested) == {"data.class_path": "D", "data.size": 8, "data.of.x": 1, "empty": {}, "list": [1]}


def test_command_prints_the_table_and_draws_the_curves_of_every_run(two, capsys):
    main([str(folder) for folder in two])
    out = capsys.readouterr().out
    for word in ("shapes/version_0", "shapes/version_1", "0.7500", "model.learning_rate", "0.001", "0.7000"):
        assert word in out
    assert out.splitlines()[-1].split() == ["curves", str(two[0] / "curves.png")]
    both = imread(two[0] / "curves.png")
    assert both.shape[0] > 400 and both.shape[1] > 1000
    main([str(two[0]), "--output", str(two[0] / "one.png")])
    blue, orange = (0.122, 0.467, 0.706), (1.0, 0.498, 0.055)  # matplotlib's first two colours

    def painted(picture, colour):
        return (abs(picture[..., :3] - colour).max(-1) < 0.02).sum()

    one = imread(two[0] / "one.png")
    assert painted(both, blue) > 100 and painted(both, orange) > 100
    assert painted(one, blue) > 100 and painted(one, orange) == 0


def fails(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_what_is_not_a_run_is_named(tmp_path, two, capsys):
    assert f"{tmp_path / 'no'}: expected a run" in (err := fails(capsys, two[0], tmp_path / "no"))
    assert "found no such folder" in err
    assert f"found no config.yaml; did you mean {two[1]}?" in fails(capsys, two[0].parent)
    (two[1] / "metrics.csv").unlink()
    assert f"{two[1]}: expected a run, a folder with config.yaml and metrics.csv, found no metrics.csv" in fails(
        capsys, two[1]
    )
    assert not (two[0] / "curves.png").exists()


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.csv", "rows", "all"])
def test_among_several_what_is_no_run_yet_is_passed_over(two, missing, capsys):
    if missing == "rows":
        (two[0] / "metrics.csv").write_text("step,val/loss\n")
    else:
        for file in ("config.yaml", "metrics.csv") if missing == "all" else [missing]:
            (two[0] / file).unlink()
    main([str(folder) for folder in two])
    out, err = capsys.readouterr()
    assert err.startswith(f"passed over {two[0]}") and err.count("\n") == 1
    assert "shapes/version_1" in out and "shapes/version_0" not in out
    assert out.splitlines()[-1].split() == ["curves", str(two[1] / "curves.png")]
    (two[1] / "metrics.csv").unlink()
    with pytest.raises(SystemExit) as stop:
        main([str(folder) for folder in two])
    err = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and err[-1] == "error: expected a run among 2 folders, found none" and len(err) == 3


def test_a_run_given_twice_stands_there_once_and_equal_names_are_told_apart(tmp_path, two, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    same = write(tmp_path / "elsewhere/shapes/version_0")
    main([str(two[0]), str(two[0] / "."), str(same)])
    out = capsys.readouterr().out
    assert out.count("0.7500") == 2
    assert str(two[0]) in out and str(same) in out


def test_a_page_is_written_beside_the_table(two, capsys):
    page = two[0] / "page.html"
    main([*map(str, two), "--html", str(page)])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["page", str(page)]
    assert "model.learning_rate" in page.read_text()
    assert f"--html {two[0]}: expected a file that can be written" in fails(capsys, *two, "--html", two[0])


VALUES = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 1e-5, 1.0, 1e20, "x", "[bold]", [1, 2.0]])
)


@given(
    st.dictionaries(st.sampled_from("abcdef"), VALUES),
    st.dictionaries(st.sampled_from("abcdef"), VALUES),
    st.dictionaries(st.sampled_from("uvw"), VALUES),
)
def test_two_runs_show_exactly_their_differences(tmp_path_factory, one, other, common):
    folder = tmp_path_factory.mktemp("runs")
    both = (one, other)
    configs = [{"model": {"init_args": {**own, **common}}} for own in both]
    runs = [write(folder / str(k), config=config) for k, config in enumerate(configs)]
    cells = {
        f"model.{key}": [as_text(of[key]) if key in of else "-" for of in (one, other)] for key in {**one, **other}
    }
    different = {key: pair for key, pair in cells.items() if pair[0] != pair[1]}
    found = compare(runs)
    results = {"best val/accuracy", "at step", "last train/loss", "epochs"}
    assert {key: pair for key, pair in found.items() if key not in results} == different


def test_facts_that_differ_are_shown(two):
    for number, folder in enumerate(two):
        (folder / "facts.json").write_text(json.dumps({"commit": "abc", "parameters": 100 + number}))
    rows = compare(two)
    assert rows["parameters"] == ["100", "101"] and "commit" not in rows
    assert read_run(two[0]).facts == {"commit": "abc", "parameters": 100}


def test_words_in_brackets_are_shown_as_they_are(tmp_path, capsys):
    folder = write(tmp_path / "[red]x" / "[bold]")
    other = write(tmp_path / "y", config={**CONFIG, "tag": "[/nothing]"})
    main([str(folder), str(other)])
    out = capsys.readouterr().out
    assert "[red]x/[bold]" in out and "[/nothing]" in out


def test_the_summary_of_a_training(two, capsys):
    Console(width=100).print(summary_table(read_run(two[0])))
    rows = [line.strip("│┃ ").split("│") for line in capsys.readouterr().out.splitlines() if "/" in line]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if len(row) == 3}
    assert cells == {
        "val/loss": ["1.7500", "1.2500"],
        "val/accuracy": ["0.7500", "0.5000"],
        "train/loss": ["-", "1.5000"],
        "train/accuracy": ["-", "0.6250"],
    }


def test_a_run_gives_model_and_data_as_they_were(run):
    random = torch.random.get_rng_state()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = load_run(run)
    kept = weights(run / "checkpoints" / "best.ckpt")
    assert all(torch.equal(value, kept[name]) for name, value in found.model.state_dict().items())
    assert not found.model.training and found.model is found.model
    assert type(found.datamodule).__name__ == "Digits" and found.datamodule.batch_size == 32
    assert torch.equal(torch.random.get_rng_state(), random)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_without_checkpoints_says_so_when_it_is_asked_for_its_model(two):
    with pytest.raises(InputError, match=f"{two[0]}: expected checkpoints/best.ckpt or last.ckpt"):
        _ = load_run(two[0]).model


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics.csv", "step,val/loss\n9,1.0\n19,much\n", "line 3, column val/loss: expected a number, found 'much'"),
        ("metrics.csv", "step,val/loss\n9,1.0,5\n", "line 2, column None: expected a number, found ['5']"),
        ("metrics.csv", "epoch,val/loss\n0,1.0\n", "line 2: expected a number in column step, found none"),
        ("metrics.csv", "step,val/loss\n", "expected rows of metrics, found none"),
        ("config.yaml", "a: [1", "expected YAML, found "),
        ("config.yaml", "just words", "expected keys and values, found str"),
        ("metrics.csv", b"step,val/loss\n\xff\xfe\x00\x01", "expected a table of numbers, found 'utf-8' codec"),
        ("metrics.csv", b"step,val/loss\n1,\x00\n", "metrics.csv"),
        ("metrics.csv", "step,val/loss\ninf,1\n", "line 2: expected a number in column step"),
        ("facts.json", "{", "expected JSON, found "),
    ],
)
def test_a_broken_file_is_named(two, file, text, message, capsys):
    (two[0] / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    err = fails(capsys, two[0])
    assert str(two[0] / file) in err and message in err


def test_output_that_cannot_be_written_is_named(two, capsys):
    missing = two[0] / "nowhere" / "c.png"
    assert f"--output {missing}: expected a picture that can be written" in fails(capsys, two[0], "--output", missing)
    assert "curves.xyz" in fails(capsys, two[0], "--output", two[0] / "curves.xyz")


def test_load_run_raises_input_error(tmp_path):
    with pytest.raises(Incomplete, match="expected a run"):
        read_run(tmp_path)
