"""Lists of images that are not read yet, cut into splits; and the dataset that reads them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.progress import track
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from perceiver_lightning.errors import InputError


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        items: what `open` makes a PIL image of, one per image.
        names: of the images, for predictions.
        labels: their classes from 0, or None to predict.
        open: opens one item.
        where: the folder or set they are from, for messages.
    """

    items: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[int] | None
    open: Callable[[Any], Image.Image]
    where: str

    def take(self, rows: Sequence[int]) -> "Split":
        """Some of the images, in the order given."""
        labels = None if self.labels is None else [self.labels[row] for row in rows]
        items, names = [self.items[row] for row in rows], [self.names[row] for row in rows]
        return replace(self, items=items, names=names, labels=labels)


def cut(split: Split, fraction: float, seed: int, key: str) -> tuple[Split, Split]:
    """Cut a part off, drawn by `seed` with the same share of each class: the rest, and the part.

    Raises:
        InputError: a class is too small, or the part would have fewer images than there are classes.
    """
    try:
        rest, part = train_test_split(
            np.arange(len(split.items)), test_size=fraction, random_state=seed, stratify=split.labels
        )
    except ValueError as error:
        raise InputError(
            f"{key}: expected to cut {fraction} of the {len(split.items)} images of {split.where} with every class in "
            f"both parts, found that impossible ({error})"
        ) from error
    return split.take(sorted(rest.tolist())), split.take(sorted(part.tolist()))


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted: its classes. Hidden ones are left out."""
    if not folder.is_dir():
        raise InputError(f"root: expected a folder with one folder of images per class, found no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"root: expected one folder of images per class in {folder}, found none")
    return names


def labelled_folder(folder: Path, root: Path, classes: list[str]) -> Split:
    """The images in `folder/<class>/`, at any depth, named by their path from `root`.

    Raises:
        InputError: the folder is missing, has a class that is not among `classes` (those of train), or one without
            images.
    """
    present = class_folders(folder)
    for name in present:
        if name not in classes:
            raise InputError(f"{folder / name}: expected a class that train has ({', '.join(classes)}), found {name!r}")
    labels_of = {name: label for label, name in enumerate(classes)}
    files = make_dataset(str(folder), labels_of, extensions=IMG_EXTENSIONS, allow_empty=True)
    found = {label for _, label in files}
    for name in present:
        if labels_of[name] not in found:
            raise InputError(f"{folder / name}: expected images ({', '.join(IMG_EXTENSIONS)}), found none")
    paths = [path for path, _ in files]
    names = [os.path.relpath(path, root) for path in paths]
    return Split(paths, names, [label for _, label in files], Image.open, str(root))


def unlabelled_folder(folder: Path) -> Split:
    """All images in a folder, at any depth, sorted by their path from it, which is their name."""
    if not folder.is_dir():
        raise InputError(f"predict_dir: expected a folder of images, found no folder {folder}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        raise InputError(f"predict_dir: expected images ({', '.join(IMG_EXTENSIONS)}) in {folder}, found none")
    return Split(paths, [str(path.relative_to(folder)) for path in paths], None, Image.open, str(folder))


class ImageSet(Dataset):
    """Reads the images of a split as examples with uint8 content (H, W, C).

    Args:
        split: the images.
        channels: 3 for colour, 1 for grey.
        resize: the step without chance, done once if the images are cached.
        augment: the step with chance, done anew each time.
    """

    def __init__(
        self,
        split: Split,
        channels: int,
        resize: Callable[[Tensor], Tensor] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.split = split
        self.channels = channels
        self.resize = resize
        self.augment = augment
        self.cached: Sequence[Tensor] | Tensor | None = None
        self.prepared = False

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, row: int) -> dict[str, Any]:
        image = self.read(row) if self.cached is None else self.cached[row]
        if self.augment is not None:
            image = self.augment(image)
        example: dict[str, Any] = {"inputs": {"image": {"content": image}}, "name": self.split.names[row]}
        if self.split.labels is not None:
            example["labels"] = self.split.labels[row]
        return example

    def read(self, row: int) -> Tensor:
        """Decode and resize one image: uint8 (H, W, C).

        Raises:
            InputError: the image cannot be decoded.
        """
        try:
            with self.split.open(self.split.items[row]) as image:
                if image.mode == "P" and "transparency" in image.info:
                    image = image.convert("RGBA")  # Pillow warns if this goes to RGB at once
                pixels = pil_to_tensor(image.convert("RGB" if self.channels == 3 else "L")).permute(1, 2, 0)
        # Pillow's decoders raise nearly anything for a broken file: OSError, SyntaxError, ValueError, struct.error ...
        except Exception as error:
            path = os.path.join(self.split.where, self.split.names[row])
            raise InputError(f"{path}: expected an image, found a file that cannot be read ({error})") from error
        return pixels if self.resize is None else self.resize(pixels)

    def prepare(self, skip_broken: bool, cache: bool) -> list[str]:
        """Decode all images once, where that is asked for; the second call does nothing.

        Args:
            skip_broken: leave out the images that cannot be read.
            cache: keep the images, brought to their size, in memory: as one tensor if they have one size.

        Returns:
            The names of the images that were left out.
        """
        if self.prepared:
            return []
        broken = []
        if skip_broken:
            sound = list(self._for_all(self._is_sound, "Looking for broken images"))
            broken = [name for name, good in zip(self.split.names, sound, strict=True) if not good]
            self.split = self.split.take([row for row, good in enumerate(sound) if good])
        if cache:
            images = list(self._for_all(self.read, "Reading images"))
            self.cached = torch.stack(images) if len({image.shape for image in images}) == 1 else images
        self.prepared = True
        return broken

    def _is_sound(self, row: int) -> bool:
        try:
            self.read(row)
        except InputError:
            return False
        return True

    def _for_all(self, function: Callable[[int], Any], title: str) -> Iterator[Any]:
        title = f"{title} of {self.split.where}"
        not_first = getattr(rank_zero_only, "rank", 0) != 0  # one progress bar is enough
        # Threads: decoding releases the interpreter's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(function, range(len(self)))
            yield from track(results, title, len(self), transient=True, disable=not_first)
