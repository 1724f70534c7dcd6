"""What torchvision does not say of its classification sets without their files: classes, sizes, names of splits."""

import inspect
from typing import Any, NamedTuple

import torchvision
from PIL import Image

from datamodules.common.splits import Split
from datamodules.image.reading import IMAGES
from perceiver_lightning.errors import InputError


class Known(NamedTuple):
    """Number of classes; height and width if all images have one size; channels."""

    num_classes: int
    size: int | None = None
    channels: int = 3


SETS = {
    "Caltech101": Known(101),
    "Caltech256": Known(257),
    "CIFAR10": Known(10, 32),
    "CIFAR100": Known(100, 32),
    "Country211": Known(211),
    "DTD": Known(47),
    "EuroSAT": Known(10, 64),
    "FashionMNIST": Known(10, 28, 1),
    "FGVCAircraft": Known(100),
    "Flowers102": Known(102),
    "Food101": Known(101),
    "GTSRB": Known(43),
    "ImageNet": Known(1000),
    "Imagenette": Known(10),
    "KMNIST": Known(10, 28, 1),
    "MNIST": Known(10, 28, 1),
    "OxfordIIITPet": Known(37),
    "PCAM": Known(2, 96),
    "Places365": Known(365),
    "QMNIST": Known(10, 28, 1),
    "RenderedSST2": Known(2, 448),
    "SEMEION": Known(10, 16, 1),
    "StanfordCars": Known(196),
    "STL10": Known(10, 96),
    "SUN397": Known(397),
    "SVHN": Known(10, 32),
    "USPS": Known(10, 16, 1),
}

CLASS_NAMES = {
    "CIFAR10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}

# What the sets with an argument `split` call theirs, where it is not train and test alone. The public test images of
# ImageNet, Imagenette and Places365 have no labels or do not exist: their validation split is everybody's test.
SPLIT_NAMES = {
    "Country211": {"val": "valid"},
    "DTD": {"val": "val"},
    "FGVCAircraft": {"val": "val"},
    "Flowers102": {"val": "val"},
    "ImageNet": {"test": "val"},
    "Imagenette": {"test": "val"},
    "OxfordIIITPet": {"train": "trainval"},
    "PCAM": {"val": "val"},
    "Places365": {"train": "train-standard", "test": "val"},
    "RenderedSST2": {"val": "val"},
}


def known_of(name: str, num_classes: int | None) -> Known:
    """What is known of a set by its name; of one that the table lacks, the number of classes that is given."""
    if not inspect.isclass(getattr(torchvision.datasets, name, None)):
        raise InputError(f"dataset: expected a class of torchvision.datasets, as {', '.join(SETS)}, found {name}")
    if name in SETS:
        return SETS[name]
    if num_classes is None:
        raise InputError(f"num_classes: expected the number of classes of {name}, which is not known here, found null")
    return Known(num_classes)


def splits_of(name: str, dataset_args: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments that choose each split; of a set that torchvision does not split, {"all": {}}."""
    accepted = _accepted(name) - set(dataset_args)
    if "split" in accepted:
        names = {"train": "train", "test": "test", **SPLIT_NAMES.get(name, {})}
        return {key: {"split": value} for key, value in names.items()}
    if "train" in accepted:
        return {"train": {"train": True}, "test": {"train": False}}
    return {"all": {}}


def load(name: str, root: str, split: str, arguments: dict[str, Any]) -> Split:
    """A split's images, not decoded yet, and their labels.

    Raises:
        InputError: the files are not there, are broken, or could not be downloaded; an argument that the set lacks.
    """
    unknown = sorted(set(arguments) - _accepted(name))
    if unknown:
        raise InputError(f"{unknown[0]}: expected an argument of torchvision's {name}, which has none of that name")
    try:
        dataset = getattr(torchvision.datasets, name)(root, **arguments)
    except ValueError as error:  # torchvision's own check of its arguments
        raise InputError(f"dataset_args: expected arguments of torchvision's {name}, found: {error}") from error
    # torchvision raises RuntimeError for files that are missing or do not have their checksum, urllib OSErrors.
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"root: expected the files of torchvision's {name} in {root}, or download: true and a network, "
            f"found: {error}"
        ) from error
    items = [(dataset, row) for row in range(len(dataset))]
    names = [f"{split}/{row}" for row in range(len(items))]
    return Split(items, names, _labels(dataset), f"{name} in {root}", IMAGES._replace(open=_open))


def _accepted(name: str) -> set[str]:
    """The arguments of a set; some (EMNIST, ImageNet) hand on what they do not name to the class they build on."""
    bases = getattr(torchvision.datasets, name).__mro__
    return {key for base in bases for key in inspect.signature(base.__init__).parameters}


def _open(item: tuple[Any, int]) -> Image.Image:
    dataset, row = item
    return dataset[row][0]


def _labels(dataset: Any) -> list[int]:
    """All labels, without decoding the images where the set keeps its labels in an attribute."""
    for attribute in ("targets", "labels", "_labels", "y"):
        if hasattr(dataset, attribute):
            return [int(label) for label in getattr(dataset, attribute)]
    if hasattr(dataset, "_samples"):
        return [int(label) for _, label in dataset._samples]
    return [int(dataset[row][1]) for row in range(len(dataset))]
