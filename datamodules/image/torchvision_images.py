"""torchvision's sets by name."""

from typing import Any

from datamodules.base import located
from datamodules.common.classes import class_facts
from datamodules.common.splits import Split
from datamodules.image import torchvision_sets
from datamodules.image.base import Images
from perceiver_lightning.errors import InputError


class TorchvisionImages(Images):
    """Any classification set of torchvision by its class name: MNIST, CIFAR10, SVHN, EuroSAT, Flowers102, ImageNet ...

    torchvision's own splits are kept; where it has no validation split, one is cut from train, and where it has no
    splits at all (EuroSAT), test is cut off first, by the same seed. Where the labels of the test images are not
    public (ImageNet), its validation split is the test split here, and never used for choices.

    Args:
        dataset: the name of the class in torchvision.datasets.
        root: the folder of the files, from here or below the folder of all data; that folder itself if not given.
        download: fetch files that are missing; otherwise nothing is ever fetched.
        num_classes: number of classes; only needed for a set that `torchvision_sets.py` does not list.
        class_names: names of the classes; numbers if not given and not known.
        size: as all images have; null is the set's own size if its images have but one.
        channels: 3 for colour, 1 for grey; null for the set's own.
        test_fraction: share that is cut off for test where torchvision has no splits.
        dataset_args: further arguments of the class, such as {split: letters} of EMNIST.
        options: as all images have them.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        download: bool = False,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        size: int | list[int] | None = None,
        channels: int | None = None,
        test_fraction: float = 0.1,
        dataset_args: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        known = torchvision_sets.known_of(dataset, num_classes)
        if num_classes not in (None, known.num_classes):
            raise InputError(f"num_classes: expected {known.num_classes}, as {dataset} has, found {num_classes}")
        super().__init__(
            class_facts(known.num_classes, class_names or torchvision_sets.CLASS_NAMES.get(dataset)),
            size=size or known.size,
            channels=channels or known.channels,
            **options,
        )
        self.dataset = dataset
        self.root = str(located(root))
        self.download = download
        self.test_fraction = test_fraction
        self.dataset_args = dataset_args or {}
        self.own_splits = torchvision_sets.splits_of(dataset, self.dataset_args)

    def prepare_data(self) -> None:
        """Download the set if asked to; on one process of each machine."""
        for split in self.own_splits if self.download else []:
            self._load(split, download=True)

    def find_all(self) -> Split | None:
        """All images, where torchvision has no splits."""
        return self._load("all") if "all" in self.own_splits else None

    def find_train(self) -> tuple[Split, Split | None]:
        """The train split, and the validation split if torchvision has one."""
        return self._load("train"), self._load("val") if "val" in self.own_splits else None

    def find_test(self) -> Split:
        """The test split."""
        return self._load("test")

    def _load(self, name: str, **more: Any) -> Split:
        arguments = {**self.own_splits[name], **self.dataset_args, **more}
        split = torchvision_sets.load(self.dataset, self.root, name, arguments)
        labels = split.labels or []
        if not 0 <= min(labels, default=0) <= max(labels, default=0) < self.num_classes:
            raise InputError(
                f"num_classes: expected more than {max(labels)}, the greatest label of {split.where}, "
                f"found {self.num_classes}"
            )
        return split
