"""What a person is told of a run, and what is left of one that came to nothing."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from perceiver_lightning.cli.resume import read_checkpoint
from perceiver_lightning.names import quoted


def remove_without_checkpoint(run: Path, made: Sequence[Path]) -> None:
    """Remove the folder of a run that came to nothing, and those folders above that were made for it."""
    if run.is_dir() and not any(run.rglob("*.ckpt")):
        shutil.rmtree(run)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def path_as_typed(path: str | Path) -> str:
    """A path as a person would type it: relative where it lies below the working folder; quoted where it must be."""
    absolute = Path(os.path.abspath(path))
    typed = str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
    return quoted(f"./{typed}" if typed.startswith("-") else typed)


def command(module: str, arguments: str) -> str:
    """The command that runs a module of this project, as this process was run: through uv or not."""
    return f"{'uv run ' if 'UV' in os.environ else ''}python -m {module} {arguments}"


def opening(trainer: Trainer, model: LightningModule, data: Any, run: Path, step: int | None) -> str:
    """One line on what begins; `step` is the one that a training goes on from, None if it begins."""
    sizes = {
        name: [data.elements[name], f"({len(facts['resolution'])} + {facts['channels']})"]
        if name in data.elements
        else [*facts["resolution"], *([facts["channels"]] if "channels" in facts else [])]
        for name, facts in data.modalities.items()
    }
    inputs = ", ".join(f"{name} {' x '.join(map(str, size))}" for name, size in sizes.items())
    targets = getattr(model, "target_summary", "")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{path_as_typed(run)}{'' if step is None else f', from step {step}'}: "
        f"{type(model).__name__} with {parameters:,} parameters on {type(data).__name__} "
        f"({inputs}{f'; {targets}' if targets else ''}), {trainer.num_devices} x {trainer.accelerator.name()}"
    )


def next_commands(trainer: Trainer, run: Path) -> str:
    """After a training: where it is kept, how it ended, and the commands to test, plot and compare it."""
    best: Any = trainer.checkpoint_callback
    early: Any = trainer.early_stopping_callback
    lines = [f"run      {path_as_typed(run)}"]
    if best is not None and best.best_model_score is not None:
        lines[0] += f", best {best.monitor} {float(best.best_model_score):.4f}"
    if early is not None and early.stopped_epoch:
        lines[0] += f", stopped early: no better {early.monitor} in {early.patience} validations"
    if best is not None and not best.best_model_path and best.last_model_path:
        lines[0] += ", no best: nothing was validated"
    if best is not None and (checkpoint := best.best_model_path or best.last_model_path):
        lines.append("test     " + command("perceiver_lightning", f"test --ckpt_path {path_as_typed(checkpoint)}"))
    lines.append("plot     " + command("perceiver_lightning.compare", path_as_typed(run)))
    lines.append("compare  " + command("perceiver_lightning.compare", f"{path_as_typed(run.parent)}/version_*"))
    return "\n".join(lines)


def how_to_resume(trainer: Trainer, run: Path) -> str:
    """After a training that was cut short: where its newest state is.

    That is older than the training where another Ctrl-C came while it was to be written.
    """
    last = run / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "interrupted before the first step: there is nothing to keep"
    step = read_checkpoint(str(last)).step
    kept = "the newest state is kept" if step == trainer.global_step else f"the state of step {step} is kept"
    return (
        f"interrupted at step {trainer.global_step}, {kept}\n"
        f"resume   {command('perceiver_lightning', f'fit --ckpt_path {path_as_typed(last)}')}"
    )
