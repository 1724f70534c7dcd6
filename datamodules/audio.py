"""Sound to train on: spoken digits, environmental sounds, spoken words, folders and tables of your own."""

from typing import Any

import torchaudio

from datamodules.audio_base import Audio
from datamodules.audio_files import CLIPS
from datamodules.audio_sets import ESC10, ESC50, SPEAKERS, WORDS, list_esc, list_fsdd, select
from datamodules.base import located, require
from datamodules.splits import ClassFolder, Split
from datamodules.tables import Table
from perceiver_lightning.errors import InputError


class FSDD(Audio):
    """Free Spoken Digit Dataset: 3,000 files `<digit>_<speaker>_<index>.wav` of six speakers, 8 kHz, 0.1 to 2.3 s.

    The official test split is the first five of each speaker's fifty of each digit; or whole speakers are the test.
    Validation is cut from the rest with the same share of each digit of each speaker, or is whole speakers, too.

    Args:
        root: the folder of the files, from here or below the folder of all data.
        test_speakers: the speakers that are held out for test; the official split if not given.
        val_speakers: the speakers that are held out for validation, to choose settings for unheard speakers.
        seconds: as all sound has it.
        sample_rate: as all sound has it; 8000 is their own.
        options: as all sound has them.

    Source: https://github.com/Jakobovski/free-spoken-digit-dataset
    """

    def __init__(
        self,
        root: str = "audio/fsdd/recordings",
        test_speakers: list[str] | None = None,
        val_speakers: list[str] | None = None,
        seconds: float = 1.0,
        sample_rate: int = 8000,
        **options: Any,
    ) -> None:
        for key, names in (("test_speakers", test_speakers), ("val_speakers", val_speakers)):
            for name in names or []:
                require(name in SPEAKERS, key, f"names of {', '.join(SPEAKERS)}", name)
        both = sorted(set(test_speakers or []) & set(val_speakers or []))
        require(not both, "val_speakers", "none of test_speakers", both)
        super().__init__(
            num_classes=10,
            class_names=[str(k) for k in range(10)],
            seconds=seconds,
            sample_rate=sample_rate,
            **options,
        )
        self.folder = located(root)
        self.test_speakers = test_speakers
        self.val_speakers = val_speakers or []

    def find_train(self) -> tuple[Split, Split | None]:
        """What is not test; of that, the speakers for validation if there are any."""
        whole = list_fsdd(self.folder)
        speakers = whole.strata or []
        rest = [row for row in range(len(whole.items)) if not self._is_test(whole, row)]
        val = [row for row in rest if speakers[row][1] in self.val_speakers]
        train = [row for row in rest if speakers[row][1] not in self.val_speakers]
        return select(whole, train, "train"), select(whole, val, "val_speakers") if self.val_speakers else None

    def find_test(self) -> Split:
        """The first five of each speaker and digit, or the speakers that are held out."""
        whole = list_fsdd(self.folder)
        return select(whole, [row for row in range(len(whole.items)) if self._is_test(whole, row)], "test")

    def _is_test(self, whole: Split, row: int) -> bool:
        assert whole.strata is not None
        if self.test_speakers:
            return whole.strata[row][1] in self.test_speakers
        return int(whole.names[row].removesuffix(".wav").split("_")[2]) < 5


class ESC(Audio):
    """ESC-50, 2,000 environmental sounds of 5 s in 50 classes, or ESC-10, 400 in 10; five folds, one of them the test.

    Reads ESC-50's `meta/esc50.csv` and `audio/`, or, of ESC-10 alone, its own release: a folder a class,
    `<number> - <class>/<fold>-<source>-<take>.ogg`. Validation is cut from the other four folds by recording, so that
    the clips of one recording stay together, the same share of each class as near as that allows; or is a whole fold.

    Args:
        root: the folder, from here or below the folder of all data.
        classes: 50 or 10.
        test_fold: the fold, 1 to 5, that is the test.
        val_fold: the fold that is the validation; null cuts `val_fraction`.
        seconds: as all sound has it.
        options: as all sound has them.

    Source: https://github.com/karolpiczak/ESC-50
    """

    def __init__(
        self,
        root: str = "audio/esc50",
        classes: int = 50,
        test_fold: int = 5,
        val_fold: int | None = None,
        seconds: float = 5.0,
        **options: Any,
    ) -> None:
        require(classes in (10, 50), "classes", "10 or 50", classes)
        require(test_fold in range(1, 6), "test_fold", "a fold from 1 to 5", test_fold)
        others = [fold for fold in range(1, 6) if fold != test_fold]
        require(val_fold in (None, *others), "val_fold", f"null, or one of {others}, as test_fold is not", val_fold)
        names = ESC10 if classes == 10 else ESC50
        super().__init__(num_classes=classes, class_names=list(names), seconds=seconds, **options)
        self.folder = located(root)
        self.test_fold = test_fold
        self.val_fold = val_fold

    def find_train(self) -> tuple[Split, Split | None]:
        """The folds that are neither test nor validation, and the validation fold if there is one."""
        whole, folds = list_esc(self.folder, self.class_names, self.skip_broken)
        train = [row for row, fold in enumerate(folds) if fold not in (self.test_fold, self.val_fold)]
        val = [row for row, fold in enumerate(folds) if fold == self.val_fold]
        return select(whole, train, "train"), select(whole, val, "val_fold") if self.val_fold else None

    def find_test(self) -> Split:
        """The test fold."""
        whole, folds = list_esc(self.folder, self.class_names, self.skip_broken)
        return select(whole, [row for row, fold in enumerate(folds) if fold == self.test_fold], "test_fold")


class SpeechCommands(Audio):
    """Speech Commands v2: 105,829 spoken words of at most a second, 16 kHz, in 35 classes, with its own three splits.

    torchaudio lists the files, and downloads them if asked to.

    Args:
        root: the folder that holds `SpeechCommands/speech_commands_v0.02/`, from here or below the folder of all data.
        download: fetch the files if they are missing.
        options: as all sound has them.

    Source: https://arxiv.org/abs/1804.03209
    """

    def __init__(self, root: str = "audio", download: bool = False, **options: Any) -> None:
        super().__init__(num_classes=len(WORDS), class_names=list(WORDS), **options)
        self.folder = located(root)
        self.download = download

    def prepare_data(self) -> None:
        """Download the set if asked to; on one process of each machine."""
        if self.download:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._list("testing", download=True)

    def find_train(self) -> tuple[Split, Split | None]:
        """The official train and validation splits."""
        return self._list("training"), self._list("validation")

    def find_test(self) -> Split:
        """The official test split."""
        return self._list("testing")

    def _list(self, subset: str, download: bool = False) -> Split:
        try:
            files = torchaudio.datasets.SPEECHCOMMANDS(self.folder, subset=subset, download=download)
        # RuntimeError for a folder or checksum, OSError for a list of files that is missing or for the network.
        except (RuntimeError, OSError) as error:
            raise InputError(
                f"root: expected SpeechCommands/speech_commands_v0.02 in {self.folder}, or download: true and a "
                f"network, found: {error}"
            ) from error
        about = [files.get_metadata(row) for row in range(len(files))]
        for path, _, word, *_ in about:
            require(word in WORDS, str(self.folder / path), "a folder named by one of the 35 words", word)
        paths = [str(self.folder / "SpeechCommands" / path) for path, *_ in about]
        labels = [WORDS.index(word) for _, _, word, *_ in about]
        return Split(paths, [path for path, *_ in about], labels, str(self.folder), CLIPS)


class AudioFolder(Audio):
    """A folder of wav, flac, ogg or mp3: `<split>/<class>/*`, or `<class>/*`, which is then split by seed.

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
        super().__init__(num_classes=self.files.num_classes, class_names=self.files.class_names, **options)

    def find_train(self) -> tuple[Split, Split | None]:
        """The train folder, and the validation folder if there is one."""
        return self.files.find_train(self.split_seed)

    def find_test(self) -> Split:
        """The test folder."""
        return self.files.find_test(self.split_seed)


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
            num_classes=self.table.num_classes,
            class_names=self.table.class_names,
            multilabel=label_separator is not None,
            **options,
        )

    def find_train(self) -> tuple[Split, Split | None]:
        """The folds that are neither test nor validation, and the validation fold if there is one."""
        return self.table.find_train(self.split_seed, self.skip_broken)

    def find_test(self) -> Split:
        """The test fold."""
        return self.table.find_test(self.split_seed, self.skip_broken)
