"""Searches by Optuna, and the files of sweeps as W&B's own agent would run them."""

import json
import sys
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from command_line import column, with_callback
from filelock import FileLock
from optuna.trial import TrialState
from pytorch_lightning import Callback
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from perceiver_lightning import search as module
from perceiver_lightning.cli import main
from perceiver_lightning.search import Sweep, search_from_command_line

SWEEPS = sorted(Path("configs/sweeps").glob("*.yaml"))
TINY_SWEEP = {
    "method": "random",
    "metric": {"name": "val/loss", "goal": "minimize"},
    "parameters": {
        "model.init_args.learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "model.init_args.num_latents": {"min": 2, "max": 6},
        "model.init_args.cross_attends": {"values": [[1], [1, 1]]},
        "model.init_args.bands": {"value": 3},
    },
    "command": ["${env}", "python", "-m", "perceiver_lightning", "fit", "--config=tiny.yaml", "${args}"],
}


@pytest.fixture
def sweep(here):
    Path("tiny-sweep.yaml").write_text(yaml.safe_dump(TINY_SWEEP))
    return here


def values(study: optuna.Study) -> list[float]:
    return [trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))]


@pytest.mark.slow
def test_trials_are_runs_and_the_best_is_named(sweep, capsys):
    study = search_from_command_line(["tiny-sweep.yaml", "--trials", "2", "--trainer.max_epochs=1"])
    runs = [sweep / f"runs/tiny-sweep-search/{k}/version_0" for k in range(2)]
    assert values(study) == [pytest.approx(min(column(run, "val/loss").values())) for run in runs]
    for run, trial in zip(runs, study.trials, strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        arguments = config["model"]["init_args"]
        for key in ("learning_rate", "num_latents"):
            assert arguments[key] == pytest.approx(trial.params[f"model.init_args.{key}"])
        assert arguments["cross_attends"] == json.loads(trial.params["model.init_args.cross_attends"])
        assert arguments["bands"] == 3 and config["trainer"]["max_epochs"] == 1
    out = capsys.readouterr().out.splitlines()
    best = min(range(2), key=lambda k: values(study)[k])
    assert out[-2] == f"best     trial {best}, runs/tiny-sweep-search/{best}/version_0"
    assert out[-1].endswith("perceiver_lightning.compare runs/tiny-sweep-search/*/version_*")

    before = values(study)
    again = search_from_command_line(["tiny-sweep.yaml", "--trials", "3", "--trainer.max_epochs=1"])
    assert values(again)[:2] == before and len(values(again)) == 3
    rates = {trial.params["model.init_args.learning_rate"] for trial in again.trials}
    assert len(rates) == 3  # a new start proposes again


@pytest.mark.slow
def test_what_was_cut_short_goes_on_where_it_was(sweep, capsys):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 6:
                raise KeyboardInterrupt

    arguments = ["tiny-sweep.yaml", "--trials", "1"]
    with with_callback(Stop()), pytest.raises(SystemExit) as stop:
        search_from_command_line(arguments)
    assert stop.value.code == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "go on    python -m perceiver_lightning.search tiny-sweep.yaml --trials 1"
    study = search_from_command_line(line.split()[5:])
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    run = sweep / "runs/tiny-sweep-search/0/version_0"
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8
    assert trial.value == pytest.approx(min(column(run, "val/loss").values()))

    # Killed between the end of a training and its last word to the study: the training is not run again.
    monkey = pytest.MonkeyPatch()
    monkey.setattr(module, "best_value", lambda sweep, run: sys.exit(130))
    with pytest.raises(SystemExit):
        search_from_command_line(["tiny-sweep.yaml", "--trials", "2"])
    monkey.undo()
    study = search_from_command_line(["tiny-sweep.yaml", "--trials", "2"])
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_a_trial_that_cannot_be_is_a_failed_one_among_others_and_the_end_if_it_is_the_first(sweep, capsys):
    other = {**TINY_SWEEP, "parameters": {"model.init_args.self_heads": {"values": [3]}}}
    Path("bad.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(SystemExit) as stop:
        search_from_command_line(["bad.yaml", "--trials", "2"])
    assert stop.value.code == 2 and "error: model: " in capsys.readouterr().err
    good = {**TINY_SWEEP, "parameters": {"model.init_args.self_heads": {"values": [2]}}}
    Path("bad.yaml").write_text(yaml.safe_dump(good))
    quick = ["--trainer.max_epochs=1"]
    search_from_command_line(["bad.yaml", "--trials", "2", "--name=mixed", *quick])
    Path("bad.yaml").write_text(yaml.safe_dump(other).replace("values:", "value: 3\n    was:"))
    study = search_from_command_line(["bad.yaml", "--trials", "3", "--name=mixed", *quick])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.slow
def test_a_first_trial_that_diverges_is_a_failed_one(sweep):
    rates = {"model.init_args.learning_rate": {"value": 1e30}}
    Path("wild.yaml").write_text(yaml.safe_dump({**TINY_SWEEP, "parameters": rates}))
    study = search_from_command_line(["wild.yaml", "--trials", "2", "--trainer.log_every_n_steps=1"])
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"command": ["python"]}, "tiny-sweep.yaml: expected command with fit and, behind it, ${args}, found python"),
        ({"metric": {"name": "val/loss", "goal": "up"}}, "tiny-sweep.yaml: expected metric with a name and goal mini"),
        ({"method": "grid"}, "tiny-sweep.yaml: expected method bayes or random, found grid"),
        ({"parameters": {}}, "tiny-sweep.yaml: expected parameters, a dict, found {}"),
        ({"parameters": {"x": 3}}, "tiny-sweep.yaml, parameters.x: expected value, values, or min and max, found 3"),
        (
            {"parameters": {"x": {"min": 3, "max": 1}}},
            "parameters.x: expected numbers with min below max, found 3 and 1",
        ),
        (
            {"parameters": {"x": {"min": "1e-3", "max": 1}}},
            "parameters.x: expected numbers with min below max, found 1e",
        ),
        (
            {"parameters": {"x": {"min": 0.1, "max": 1, "distribution": "q_beta"}}},
            "parameters.x: expected distribution uniform, int_uniform or log_uniform_values, found q_beta",
        ),
    ],
)
def test_a_sweep_that_is_not_understood_is_named(sweep, change, sentence, capsys):
    Path("tiny-sweep.yaml").write_text(yaml.safe_dump(TINY_SWEEP | change))
    with pytest.raises(SystemExit) as stop:
        search_from_command_line(["tiny-sweep.yaml", "--trials", "1"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_missing_file_an_unknown_metric_and_a_second_search_are_named(sweep, capsys):
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            search_from_command_line([*arguments, "--trials", "1", "--trainer.max_epochs=1"])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "error: none.yaml: expected a sweep in YAML, found" in said("none.yaml")
    Path("other.yaml").write_text(yaml.safe_dump({**TINY_SWEEP, "metric": {"name": "val/loos", "goal": "minimize"}}))
    assert "other.yaml, metric.name: expected one of " in (err := said("other.yaml")) and "found val/loos" in err
    Path("runs/busy").mkdir(parents=True)
    with FileLock("runs/busy/search.lock"):
        assert "runs/busy: expected no other search in it, found one that runs" in said(
            "tiny-sweep.yaml", "--name=busy"
        )


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_what_wandb_s_agent_would_run_is_a_command_of_this_program(file, capsys):
    config = yaml.safe_load(file.read_text())
    study = optuna.create_study()
    proposed = Sweep(file).propose(study.ask())
    words = create_sweep_command(list(config["command"]))
    flags = create_sweep_command_args({"args": {key: {"value": value} for key, value in proposed.items()}})
    at = words.index("${args}")
    words = [*words[:at], *flags["args"], *words[at + 1 :]]
    assert words[1:5] == ["python", "-m", "perceiver_lightning", "fit"]
    with pytest.raises(SystemExit) as stop:
        main([*words[4:], "--print_config"])
    assert stop.value.code == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    for key, value in proposed.items():
        assert whole["model"]["init_args"][key.split(".")[-1]] == pytest.approx(value)
    assert whole["trainer"]["logger"][0]["class_path"].endswith(".Wandb")
    assert (
        config["metric"]["name"] == whole["checkpoint"]["monitor"]
    )  # what is searched for is what best.ckpt is best in
    assert not any(word.endswith("wandb.yaml") for word in Sweep(file).arguments)
