"""A folder of sound files."""

from typing import Any

from datamodules.audio.base import Audio
from datamodules.audio.reading import CLIPS
from datamodules.common.classes import class_facts
from datamodules.common.splits import ClassFolder, Split


class AudioFolder(Audio):
    """A folder of sound files: `<split>/<class>/*`, or `<class>/*`, which is then split by seed.

    docs/files.md says which files are read.

    The splits are called `train`, `val` (or `validation`, `valid`) and `test`. Without a validation folder, that split
    is cut from train. The classes are the folders in train, sorted; the files may lie at any depth below.

    Args:
        root: the folder, from here or below the folder of all data (`located`).
        num_classes: number of classes, if the folder may be absent (to know the price of a run before the data are
            there); checked against the folder where it is there.
        test_fraction: share that is cut off for test where the folder is not split.
        options: as all sound has them.
    """

    def __init__(self, root: str, num_classes: int | None = None, test_fraction: float = 0.1, **options: Any) -> None:
        self.files = ClassFolder(root, CLIPS, num_classes, test_fraction)
        super().__init__(class_facts(self.files.num_classes, self.files.class_names), **options)

    def find_train(self) -> tuple[Split, Split | None]:
        """The train folder, and the validation folder if there is one."""
        return self.files.find_train(self.split_seed)

    def find_test(self) -> Split:
        """The test folder."""
        return self.files.find_test(self.split_seed)
