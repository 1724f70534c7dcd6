"""What a run logs beside its own metrics.csv."""

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_lightning.analysis.runs import read_run
from perceiver_lightning.cli import main


def scalars(run: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(run)).Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_steps_that_a_resumed_training_takes_again_are_out_of_date():
    """From the middle of a training: what was logged after that is dropped, as in metrics.csv."""
    run = Path("runs/tiny/version_0")
    last, first = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "first.ckpt"
    main(["fit", "--config=tiny.yaml", "--trainer.logger+=TensorBoard", "--trainer.max_epochs=1"])
    shutil.copy(last, first)
    main(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=3"])
    assert list(scalars(run)["val/loss"]) == [3, 7, 11]
    main(["fit", f"--ckpt_path={first}", "--trainer.max_epochs=2"])
    kept = read_run(run).metrics
    assert [step for step, _ in kept["val/loss"]] == [3, 7] == list(scalars(run)["val/loss"])


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_tensorboard_gets_the_same_numbers_in_the_run_s_folder_and_goes_on_there():
    run = Path("runs/tiny/version_0")
    main(["fit", "--config=tiny.yaml", "--trainer.logger+=TensorBoard", "--trainer.max_epochs=1"])
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=2"])
    main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--trainer.logger+=TensorBoard"])
    found = {
        name: {step: pytest.approx(value, rel=1e-6, nan_ok=True) for step, value in values.items()}
        for name, values in scalars(run).items()
    }
    kept = {name: dict(points) for name, points in read_run(run).metrics.items() if name != "step"}
    assert len(kept["val/loss"]) == 2 and "test/accuracy" in kept
    # An epoch is logged once more by the test, at its checkpoint's step.
    assert {name: values for name, values in found.items() if name != "epoch"} == {
        name: values for name, values in kept.items() if name != "epoch"
    }
    assert {file.name.split(".")[0] for file in run.iterdir()} == {
        "checkpoints", "config", "events", "facts", "metrics",
    }  # fmt: skip
