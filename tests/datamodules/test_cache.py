"""Decoded data kept in memory and on disk."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.common.cache import Arrays, cached
from perceiver_lightning.errors import InputError


def cache_of(paths: list[Path], read: Callable[[Path], np.ndarray], *args, **options) -> Arrays:
    """The cache of what `read` makes of each path."""
    return cached(paths, lambda row: read(paths[row]), *args, **options)


class Reader:
    """Reads a text file as that many numbers, and counts how often."""

    def __init__(self, pause: float = 0.0):
        self.read: list[str] = []
        self.pause = pause

    def __call__(self, path) -> np.ndarray:
        self.read.append(str(path))
        time.sleep(self.pause)
        text = Path(path).read_text()
        if not text.isdigit():
            raise InputError(f"{path}: expected a number, found {text}")
        return np.arange(2 * int(text), dtype=np.int16).reshape(-1, 2) + int(text)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    for i, length in enumerate((3, 0, 5, 1)):
        (tmp_path / f"{i}.txt").write_text(str(length))
    return [tmp_path / f"{i}.txt" for i in range(4)]


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_memory_and_disk_hold_what_was_read(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / str(row) for row in range(len(lengths))]
    for path, length in zip(paths, lengths, strict=True):
        path.write_text(str(length))
    for place in (None, folder / "cache"):
        arrays = cache_of(paths, Reader(), {}, "Reading", folder=place)
        assert len(arrays) == len(paths) and not arrays.broken
        for array, path in zip(arrays, paths, strict=True):
            assert array.dtype == np.int16
            np.testing.assert_array_equal(array, Reader()(path))


def test_it_is_found_again_unless_settings_or_files_change(files, tmp_path):
    reader = Reader()

    def reads(settings: dict, paths: list[Path] = files) -> int:
        before = len(reader.read)
        arrays = cache_of(paths, reader, settings, "Reading", folder=tmp_path / "cache")
        assert [len(array) for array in arrays] == [int(path.read_text()) for path in paths]
        return len(reader.read) - before

    assert reads({"rate": 8000}) == 4
    assert reads({"rate": 8000}) == 0
    assert reads({"rate": 16000}) == 4
    assert reads({"rate": 8000}, files[:3]) == 3
    files[0].write_text("4")  # the same size, another time
    os.utime(files[0], ns=(1, 1))
    assert reads({"rate": 8000}) == 4
    assert reads({"rate": 8000}) == 0


def test_it_is_mapped_not_loaded_and_travels_as_its_path(files, tmp_path):
    arrays = cache_of(files, Reader(), {}, "Reading", folder=tmp_path / "cache")
    assert isinstance(arrays.flat, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 1
    there = pickle.loads(pickle.dumps(arrays))
    assert isinstance(there.flat, np.memmap) and there.flat.filename == arrays.flat.filename
    np.testing.assert_array_equal(there[2], arrays[2])
    in_memory = cache_of(files, Reader(), {}, "Reading")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(in_memory))[2], arrays[2])


@pytest.mark.parametrize("on_disk", [True, False])
def test_broken_files_end_it_or_are_listed(files, tmp_path, on_disk):
    files[1].write_text("x")
    place = tmp_path / "cache" if on_disk else None
    with pytest.raises(InputError, match=f"^{files[1]}: expected a number, found x$"):
        cache_of(files, Reader(), {}, "Reading", folder=place)
    assert not on_disk or [path.suffix for path in place.iterdir()] == [".lock"]
    arrays = cache_of(files, Reader(), {}, "Reading", skip_broken=True, folder=place)
    assert [len(array) for array in arrays] == [3, 0, 5, 1]
    np.testing.assert_array_equal(arrays[2], Reader()(files[2]))
    assert arrays.broken == {1: f"{files[1]}: expected a number, found x"}
    with pytest.raises(InputError, match=r"found x$"):  # a cache that skipped them serves nobody who does not
        cache_of(files, Reader(), {}, "Reading", folder=place)


@pytest.mark.parametrize("file", ["flat.bin", "offsets.npy", "about.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_cache_is_made_again(files, tmp_path, file, damage, caplog):
    first = cache_of(files, Reader(), {}, "Reading", folder=tmp_path / "cache")
    whole = [array.copy() for array in first]  # not views of a file that is damaged next
    path = first.folder / file
    path.unlink() if damage is None else path.write_bytes(damage)
    again = cache_of(files, reader := Reader(), {}, "Reading", folder=tmp_path / "cache")
    assert len(reader.read) == 4 and "damaged" in caplog.text
    for mine, theirs in zip(again, whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_all_broken_is_no_array(files, tmp_path):
    for path in files:
        path.write_text("x")
    for place in (None, tmp_path / "cache"):
        arrays = cache_of(files, Reader(), {}, "Reading", skip_broken=True, folder=place)
        assert [len(array) for array in arrays] == [0] * 4 and len(arrays.broken) == 4


def test_an_interrupt_leaves_nothing_half_written_and_ends_soon(tmp_path):
    paths = [tmp_path / str(row) for row in range(400)]
    for path in paths:
        path.write_text("1")
    reader = Reader(pause=0.2)  # so that a busy machine has long enough to stop

    def interrupted(path) -> np.ndarray:
        if path == paths[5]:
            raise KeyboardInterrupt
        return reader(path)

    with pytest.raises(KeyboardInterrupt):
        cache_of(paths, interrupted, {}, "Reading", folder=tmp_path / "cache")
    assert len(reader.read) < 100  # those that wait are not read any more
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(cache_of(paths, Reader(), {}, "Reading", folder=tmp_path / "cache")) == 400


def test_two_at_once_read_each_file_once(files, tmp_path):
    readers = [Reader(pause=0.05), Reader(pause=0.05)]
    found = {}

    def build(i: int):
        found[i] = cache_of(files, readers[i], {}, "Reading", folder=tmp_path / "cache")

    threads = [threading.Thread(target=build, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([len(reader.read) for reader in readers]) == [0, 4]
    assert [[len(array) for array in arrays] for arrays in found.values()] == [[3, 0, 5, 1]] * 2


def test_a_cache_of_another_number_of_files_is_made_again(files, tmp_path, caplog):
    """As earlier versions left out broken files."""
    folder = cache_of(files, Reader(), {}, "Reading", folder=tmp_path / "cache").folder
    offsets = np.load(folder / "offsets.npy")
    np.save(folder / "offsets.npy", offsets[[0, 2, 3, 4]])
    again = cache_of(files, Reader(), {}, "Reading", folder=tmp_path / "cache")
    assert [len(array) for array in again] == [3, 0, 5, 1] and "damaged" in caplog.text


@pytest.mark.xdist_group("processes")
@pytest.mark.slow
def test_two_processes_at_once_build_one_cache(files, tmp_path):
    script = """if True:
        import os, sys, time
        import numpy as np
        from pathlib import Path
        from datamodules.common.cache import cached
        read = []
        def slow(path):
            read.append(path)
            time.sleep(0.3)
            return np.full((int(Path(path).read_text()), 2), 7, np.int16)
        place = Path(sys.argv[1])
        place.with_name(f"ready {os.getpid()}").touch()
        while len(list(place.parent.glob("ready *"))) < 2:
            time.sleep(0.01)
        arrays = cached(sys.argv[2:], lambda row: slow(sys.argv[2 + row]), {}, "Reading", folder=place)
        print(len(read), [len(array) for array in arrays], sum(array.sum() for array in arrays))
    """
    place = tmp_path / "cache"
    command = [sys.executable, "-c", script, str(place), *map(str, files)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == ["0 [3, 0, 5, 1] 126", "4 [3, 0, 5, 1] 126"]
    assert [path.suffix for path in place.iterdir() if path.is_dir()] == [""]


@pytest.mark.xdist_group("processes")
@pytest.mark.slow
def test_one_that_is_killed_leaves_nothing_that_is_taken_for_a_cache(files, tmp_path):
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from datamodules.common.cache import cached
        def read(path):
            if path.endswith("3.txt"):
                os.kill(os.getpid(), signal.SIGKILL)
            return np.zeros((1, 2), np.int16)
        cached(sys.argv[2:], lambda row: read(sys.argv[2 + row]), {}, "Reading", folder=Path(sys.argv[1]))
    """
    place = tmp_path / "cache"
    died = subprocess.run([sys.executable, "-c", script, place, *map(str, files)], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    assert [path.suffix for path in place.iterdir() if path.is_dir()] == [".part"]
    assert [len(array) for array in cache_of(files, Reader(), {}, "Reading", folder=place)] == [3, 0, 5, 1]
    assert [path.suffix for path in place.iterdir() if path.is_dir()] == [""]


def test_a_folder_that_cannot_be_written_is_named(files, tmp_path):
    with pytest.raises(InputError, match=f"^cache_dir: expected a folder with room to write in, found {files[0]}/here"):
        cache_of(files, Reader(), {}, "Reading", folder=files[0] / "here")
