"""Processes that end together, and what may stop them from doing so: a modality that only some of them have."""

import os
import subprocess
import sys

import pytest
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from perceiver_lightning.errors import InputError
from perceiver_lightning.tasks import ClassificationTask
from perceiver_lightning.training.processes import FIRST, ending_together, failed_before, status_of

SMALL = {"num_latents": 4, "latent_width": 8, "cross_attends": [1], "self_attends": 1, "self_heads": 2, "bands": 2}


@pytest.mark.parametrize("options", [{}, {"fusion": "late"}, {"members": 2}, {"positions": "learned"}])
def test_a_modality_that_is_left_out_trains_as_one_that_is_masked(options):
    torch.manual_seed(0)
    modalities = {name: {"channels": 2, "resolution": [5]} for name in ("sound", "picture")}
    task = ClassificationTask(modalities | {"text": {"vocabulary": 7, "resolution": [3]}}, 3, **SMALL, **options)
    task.log = lambda *_, **__: None
    content = torch.randn(4, 5, 2)
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    absent = {
        "sound": {"content": torch.randn(4, 5, 2), "mask": nothing},
        "text": {"content": torch.zeros(4, 3, dtype=torch.int64), "mask": nothing[:, :3]},
    }
    found = []
    for inputs in ({"picture": {"content": content}}, {"picture": {"content": content}, **absent}):
        task.zero_grad()
        loss = task.training_step({"inputs": inputs, "labels": torch.tensor([0, 1, 2, 0])}, 0)
        loss.backward()
        found.append((loss.detach(), {name: one.grad.clone() for name, one in task.named_parameters()}))
    torch.testing.assert_close(*found)


def test_only_the_first_to_fail_speaks(monkeypatch):
    assert failed_before(ValueError()) is None and FIRST not in os.environ
    with pytest.raises(ValueError), ending_together():
        assert failed_before(InputError()) is None  # it is the first, however often it asks
        assert failed_before(ValueError()) is None
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert failed_before(ValueError()) == 2
        raise ValueError
    assert FIRST not in os.environ


def test_statuses_are_those_of_one_process():
    errors = (InputError(), KeyboardInterrupt(), SIGTERMException(), ValueError())
    assert [status_of(error) for error in errors] == [2, 130, 143, 1]


PROGRAM = """
import sys
from command_line import with_callback
from pytorch_lightning import Callback
from perceiver_lightning.cli import main
from perceiver_lightning.errors import InputError

class Fail(Callback):
    def on_validation_end(self, trainer, pl_module):
        if trainer.global_rank == 1 and trainer.global_step:
            raise InputError("a.png: expected an image, found none")

with with_callback(Fail()):
    main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_rank_that_fails_in_a_callback_ends_all_with_one_sentence(here):
    (here / "program.py").write_text(PROGRAM)
    helpers = os.path.join(os.path.dirname(os.path.dirname(__file__)), "helpers")
    ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, "program.py", "fit", "--config=tiny.yaml", *ddp],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([helpers, *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if not line.startswith("data: ")] == [
        "error: a.png: expected an image, found none"
    ]
    assert "resume   python -m perceiver_lightning fit --ckpt_path" in done.stdout
