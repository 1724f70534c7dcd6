"""Runs in Weights & Biases: one for each run's folder.

W&B itself is imported where it is needed: it is slow to load.
"""

import os
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from perceiver_lightning.errors import InputError
from perceiver_lightning.private import OpenWandb

ID = "wandb_id"  # file in a run's folder
REMEDY = "run `wandb login` once, or set WANDB_MODE=offline, which needs no account"


class Wandb(OpenWandb):
    """Lightning's logger of Weights & Biases, for a run with a folder of its own.

    W&B's files lie in that folder, and so does the id of its run, so that a training which goes on in the folder goes
    on in the same run of W&B. That run ends with the command, not with the process, which may train more than once.

    `WANDB_MODE=offline` in the environment needs no account; `wandb sync RUN/wandb/offline-run-*` uploads it later.
    `log_model: true` keeps the checkpoints as artifacts.
    """

    run: Path | None = None

    def __init__(self, **options: Any) -> None:
        offline = options.pop("offline", False)  # Lightning refuses it together with log_model; W&B does not
        super().__init__(**options)
        if offline:
            self.change("mode", "offline")
        self.change("anonymous", None)  # Lightning's, makes every run begin with a warning
        if not (options.get("project") or os.environ.get("WANDB_PROJECT")):
            self.change("project", "perceiver")

    def keep_in(self, run: Path) -> None:
        """Keep W&B's run in the folder of this one, as far as the logger's own arguments leave that open."""
        self.run = run
        if self.setting("dir") in (None, "."):
            self.change("dir", str(run))
        if self.setting("name") is None:
            self.change("name", "/".join(run.absolute().parts[-2:]))
        if self.setting("id") is None and (run / ID).is_file():
            self.change("id", (run / ID).read_text().strip())

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun when it is first asked for.

        Raises:
            InputError: W&B does not begin it: nobody is logged in, it cannot be reached, a setting is wrong.
        """
        if self.begun is None:
            from pydantic import ValidationError
            from wandb import Error

            try:
                experiment: Any = super().experiment
            except ValidationError as error:  # of a setting
                first = error.errors()[0]
                wanted = first["msg"].removeprefix("Input should be ")
                setting = f"WANDB_{'_'.join(map(str, first['loc'])).upper()}"
                raise InputError(f"{setting}: expected {wanted}, found {first['input']!r}; {REMEDY}") from error
            except Error as error:
                said = " ".join(str(error).split()).removesuffix(".")
                raise InputError(
                    f"trainer.logger Wandb: expected W&B to begin a run, found: {said}; {REMEDY}"
                ) from error
            if self.run is not None and not getattr(experiment, "disabled", False):
                (self.run / ID).write_text(f"{experiment.id}\n")
        return self.begun

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the checkpoints as artifacts, where asked for, and end W&B's run."""
        super().finalize(status)
        if self.begun is not None:
            self.begun.finish(exit_code=0 if status == "success" else 1)
            self.forget()


def logger_of(trainer: Trainer) -> Wandb | None:
    """The trainer's logger to W&B."""
    return next((logger for logger in trainer.loggers if isinstance(logger, Wandb)), None)
