"""Pictures of where a model looks: of a batch, for a log, and beside predictions, as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer

from perceiver_lightning.analysis.attention.drawing import draw, turn
from perceiver_lightning.analysis.attention.panels import View
from perceiver_lightning.errors import InputError
from perceiver_lightning.model import Model

DPI = 130


def figures(
    perceiver: Model,
    batch: Mapping[str, Any],
    rows: Sequence[int] | None = None,
    datamodule: Any = None,
    cross_attends: Sequence[int] | None = None,
    latents: int | Sequence[int] = 3,
    titles: Sequence[str] | None = None,
) -> list[dict[str, Figure]]:
    """For each example of a batch, or those of `rows`, a figure of where the model looks, by modality.

    Args:
        perceiver: the model; a task has it as `.perceiver`. Of an ensemble the first is drawn.
        batch: of the contract in `datamodules.base`, on the model's device.
        rows: of the batch; the first of each example when not given.
        datamodule: what the batch is from: it may know patches and what colours were scaled by.
        cross_attends: which ones, from 0; the first and the last when not given.
        latents: as `analysis.drawing.draw` has it.
        titles: of the figures, one for each row.
    """
    rows = first_rows(batch) if rows is None else rows
    inputs = batch["inputs"]
    views = {name: view_of(datamodule, name) for name in inputs}
    readers = perceiver.perceivers()
    drawn: list[dict[str, Figure]] = [{} for _ in rows]
    for model in dict.fromkeys(readers[name] for name in inputs):
        parts = {name: part for name, part in inputs.items() if readers[name] is model}
        last = sum(len(crosses) for crosses, _ in model.order) - 1
        chosen = list(dict.fromkeys([0, last])) if cross_attends is None else cross_attends
        for place, row in enumerate(rows):
            title = titles[place] if titles else None
            drawn[place] |= draw(model, parts, row, chosen, latents, views=views, title=title)
    return drawn


def first_rows(batch: Mapping[str, Any]) -> list[int]:
    """The first row of each example, by rising `example`: rows that share one are its crops, clips or mirror images."""
    content = next(iter(batch["inputs"].values()))["content"]
    examples = batch["example"].tolist() if "example" in batch else list(range(len(content)))
    first: dict[int, int] = {}
    for row, example in enumerate(examples):
        first.setdefault(example, row)
    return [first[example] for example in sorted(first)]


def view_of(datamodule: Any, modality: str) -> View:
    """Drawing hints (patch, mean, std) for a modality, of a datamodule or the one of its own that has the modality."""
    for part in (*getattr(datamodule, "datamodules", {}).values(), *getattr(datamodule, "parts", {}).values()):
        if modality in part.modalities:
            return view_of(part, modality)
    facts = getattr(datamodule, "modalities", {}).get(modality)
    patch = getattr(datamodule, "patch", None)
    if facts is None or patch is None or len(patch) != len(facts["resolution"]):
        patch = None
    scale = getattr(datamodule, "scales", {}).get(modality)
    if scale is None or scale.keys != ("mean", "std"):  # not of pictures
        return View(patch=patch)
    return View(patch=patch, mean=scale.mean or None, std=scale.std or None)


class Explain(Callback):
    """In a prediction, writes where the model looked: for each file a picture of each modality, in the same subfolder.

    `a/b.jpg` becomes `a/b.jpg.image.png`; of points also `.gif`, which turns. Drawing takes longer than predicting, so
    only the first examples are drawn; the last line says how many. On several devices the first one's are, of an
    ensemble its first member.

    Args:
        folder: of the pictures.
        most: examples that are drawn.
        cross_attends: which ones, from 0; the first and the last when not given.
        latents: which rows of the latent array, or how many, of those that the output uses most.

    Raises:
        InputError: nothing can be written into the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        most: int = 32,
        cross_attends: Sequence[int] | None = None,
        latents: int | Sequence[int] = 3,
    ) -> None:
        self.folder = Path(folder)
        self.most = most
        self.cross_attends = cross_attends
        self.latents = latents
        self.drawn = self.seen = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder, so that one that cannot be written is found before the work."""
        self.drawn = self.seen = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"explain: expected a folder that can be written, found {self.folder} ({error.strerror})"
            ) from error

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first examples: `outputs` has their names, and what the task says of them."""
        self.seen += len(outputs["name"])
        missing = self.most - self.drawn
        if missing <= 0 or not trainer.is_global_zero:
            return
        data: Any = getattr(trainer, "datamodule", None)
        task: Any = pl_module
        names = outputs["name"][:missing]
        titles = task.captions(outputs)[:missing]
        rows = first_rows(batch)[:missing]
        # One by one: a figure is large, and a batch has many.
        for name, row, title in zip(names, rows, titles, strict=True):
            (drawn,) = figures(task.perceiver, batch, [row], data, self.cross_attends, self.latents, [title])
            self.write(name, drawn)
        self.drawn += len(names)

    def write(self, name: str, drawn: Mapping[str, Figure]) -> None:
        """The pictures of one example.

        Raises:
            InputError: when a file cannot be written.
        """
        inside = PurePath(name)  # whatever the data call it, it stays in the folder
        path = self.folder.joinpath(*(part for part in inside.parts if part not in (inside.anchor, "..")))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for modality, figure in drawn.items():
                figure.savefig(f"{path}.{modality}.png", dpi=DPI)
                if any(axes.name == "3d" for axes in figure.axes):
                    turn(figure, f"{path}.{modality}.gif")
        except OSError as error:
            raise InputError(f"explain: expected files that can be written, found {path} ({error.strerror})") from error

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what was drawn, below the bar."""
        if stage == "predict" and trainer.is_global_zero and self.drawn:
            print(f"pictures {self.folder}, of {self.drawn} of {self.seen} examples", flush=True)
