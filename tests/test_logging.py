"""What a run logs beside its own metrics.csv."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_lightning.analysis.runs import load_run
from perceiver_lightning.cli import main


@pytest.mark.usefixtures("here")
def test_tensorboard_gets_the_same_numbers_in_the_run_s_folder_and_goes_on_there():
    run = Path("runs/tiny/version_0")
    main(["fit", "--config=tiny.yaml", "--trainer.logger+=TensorBoard", "--trainer.max_epochs=1"])
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=2"])
    main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--trainer.logger+=TensorBoard"])
    events = EventAccumulator(str(run)).Reload()
    found = {
        name: {event.step: pytest.approx(event.value, rel=1e-6, nan_ok=True) for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }
    kept = {name: dict(points) for name, points in load_run(run).metrics.items() if name != "step"}
    assert len(kept["val/loss"]) == 2 and "test/accuracy" in kept
    # An epoch is logged once more by the test, at its checkpoint's step.
    assert {name: values for name, values in found.items() if name != "epoch"} == {
        name: values for name, values in kept.items() if name != "epoch"
    }
    assert {file.name.split(".")[0] for file in run.iterdir()} == {
        "checkpoints", "config", "events", "facts", "metrics",
    }  # fmt: skip
