"""Sound files as libsndfile reads them, and what their headers promise."""

import os
import re
from pathlib import Path

import numpy as np
import soundfile

from datamodules.common.whole import count_ogg_streams, require_whole
from perceiver_lightning.errors import InputError

MALFORMED = 3  # libsndfile's code for a file that it knows, but that is damaged
UNKNOWN = 2**63 - 1  # samples, where a FLAC file does not tell
# Bytes of a sample.
BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
# libsndfile corrects a header that promises more than there is, in its log alone.
SHORTENED = re.compile(r"^ *(?:data|SSND|Data Size|BODY) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
MISCOUNTED = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
BEFORE = {"AIFF": 8, "CAF": 4}  # bytes that are no samples in what SHORTENED tells
OPEN_SIZE = 0x7F000000  # from here on, writers that could not go back to fill a size in have left it open
XING = re.compile(rb"\xff([\xe2-\xff])..(?:.{9}|.{17}|.{32})(?:..)?(?:Xing|Info)(....)(....)(....)", re.DOTALL)


def read_samples(path: Path) -> tuple[np.ndarray, int, bool] | None:
    """Read a whole file: float32 (T, C), its rate in Hz, and whether it holds floats itself.

    None if libsndfile cannot read it, or would leave some of it out.

    Raises:
        InputError: the file is damaged or cut short.
    """
    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except soundfile.LibsndfileError as error:
        if error.code == MALFORMED or _tells_its_length(path):
            raise
        return None
    with file:
        if _has_more(path, file):
            return None
        sound = file.read(file.frames, dtype="float32", always_2d=True)
        _check_whole(path, file, len(sound))
        return sound, file.samplerate, file.subtype in ("FLOAT", "DOUBLE")


def _check_whole(path: Path, file: soundfile.SoundFile, found: int) -> None:
    log, form = file.extra_info, file.format
    size, before = file.channels * BYTES.get(file.subtype, 1), BEFORE.get(form, 0)
    for promised, there in SHORTENED.findall(log):
        # Less than a sample too few is a byte that fills up an odd size.
        if int(promised) < OPEN_SIZE and (int(promised) - before) // size > (int(there) - before) // size:
            raise InputError(f"{path}: expected {promised} bytes of sound, as its header says, found {there}")
    frames = file.frames
    if form == "W64" and (count := re.search(r"^data : (\d+)$", log, re.MULTILINE)) and file.subtype in BYTES:
        frames = (int(count[1]) - 24 - 7) // size  # which counts what fills it up
    if (counts := MISCOUNTED.search(log)) and form == "RF64":
        frames = int(counts[2])
    if form == "NIST" and (told := re.search(rb"sample_count -i (\d+)", path.read_bytes()[:1024])):
        frames = int(told[1])
    if found < frames:
        raise InputError(f"{path}: expected {frames} samples, as its header says, found {found}")
    if form == "OGG":
        require_whole(path, "ogg")


def _has_more(path: Path, file: soundfile.SoundFile) -> bool:
    """Whether libsndfile would leave something out."""
    if file.subtype.startswith("MPEG_LAYER") and file.format == "MP3":
        return not _tells_its_length(path)
    if file.format == "OGG":
        return count_ogg_streams(path) > 1
    if file.format == "WAV" and file.frames == 0:  # a writer that could not go back may leave a size of 0
        rest = path.read_bytes().partition(b"data\0\0\0\0")[2]
        is_chunk = rest[:4].isalnum() and int.from_bytes(rest[4:8], "little") <= len(rest) - 8
        return len(rest) >= 8 and not is_chunk
    return file.frames == UNKNOWN


def _tells_its_length(path: Path) -> bool:
    """Whether an MP3 has a header that counts its frames, and nothing more behind these.

    Without one libsndfile guesses a length from the first frame, and reads that much.
    """
    with open(path, "rb") as file:
        place = 0
        while (tag := file.read(10))[:3] == b"ID3" and len(tag) == 10:
            place += 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            file.seek(place)
        file.seek(place)
        found = XING.search(file.read(1 << 16))
        if found is None:
            return False
        flags, _, count = (int.from_bytes(field) for field in found.groups()[1:])
        if flags & 3 == 3:  # it counts bytes, too
            file.seek(place + found.start() + count)
            after = file.read(3)
            return after != b"ID3" and after[:2] != b"\xff" + found[1]
        return bool(flags & 1)
