"""Sound files listed by a table."""

from typing import Any

from datamodules.audio.base import Audio
from datamodules.audio.reading import CLIPS
from datamodules.common.classes import class_facts
from datamodules.common.splits import Split
from datamodules.common.tables import Table


class AudioTable(Audio):
    """Any sound files by a CSV with a line for each: its path, its label or labels, its fold.

    A clip is of the test split where its fold is `test_fold`, of validation where it is `val_fold`, else of train:
    folds may be `train`, `val`, `test`, or numbers. The classes are all labels of the table, sorted.

    Args:
        table: the CSV file, from here or below the folder of all data, whose first line names its columns.
        path_column: the column of paths, from the folder of the CSV, or absolute.
        label_column: the column of labels.
        label_separator: what stands between the labels of a clip that may have several (or none): "," in AudioSet's
            tables, quoted as CSV has it; null for one label a clip.
        fold_column: the column of folds; null where there is none and test is cut by seed.
        test_fold: the fold that is the test; null where there is none.
        val_fold: the fold that is the validation; null cuts `val_fraction` from train.
        test_fraction: share that is cut off for test where there are no folds.
        num_classes: number of classes, if the CSV may be absent; checked against it where it is there.
        options: as all sound has them.
    """

    def __init__(
        self,
        table: str,
        path_column: str = "path",
        label_column: str = "label",
        label_separator: str | None = None,
        fold_column: str | None = "fold",
        test_fold: str | int | None = "test",
        val_fold: str | int | None = None,
        test_fraction: float = 0.1,
        num_classes: int | None = None,
        **options: Any,
    ) -> None:
        self.table = Table(
            table,
            CLIPS,
            path_column,
            label_column,
            label_separator,
            fold_column,
            test_fold,
            val_fold,
            test_fraction,
            num_classes,
        )
        super().__init__(
            class_facts(self.table.num_classes, self.table.class_names, label_separator is not None), **options
        )

    def find_train(self) -> tuple[Split, Split | None]:
        """The folds that are neither test nor validation, and the validation fold if there is one."""
        return self.table.find_train(self.split_seed, self.skip_broken)

    def find_test(self) -> Split:
        """The test fold."""
        return self.table.find_test(self.split_seed, self.skip_broken)
