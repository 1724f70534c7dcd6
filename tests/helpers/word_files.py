"""Datamodules of files that are words, none of which is read."""

from datamodules.common.files import Files
from datamodules.common.folders import InFolders
from datamodules.common.splits import Kind
from datamodules.common.tables import InTables

WORDS = Kind("words", (".txt", ".text"), str)


class Words(Files):
    """Words as a modality."""

    kind = WORDS

    def __init__(self, facts, **options):
        super().__init__({"word": {"channels": 1, "resolution": [1]}}, facts, **options)

    find_train = find_test = make_set = finish = None


class WordFolder(InFolders, Words):
    """Words in folders."""


class WordTable(InTables, Words):
    """Words listed by a table."""
