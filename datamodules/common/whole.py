"""Whether a file of sound or video is as long as its own format says, where a decoder would take what is left for all.

A size that its writer left open, as one that writes to a pipe does, promises nothing.
"""

import struct
from pathlib import Path

from PIL import Image

from perceiver_lightning.errors import InputError

PAGE = 27 + 255 + 255 * 255  # bytes of the longest page of an Ogg file (RFC 3533)
BOXES = b"ftyp styp moov moof mdat meta free skip wide udta uuid sidx ssix mfra pnot emsg prft".split()  # of an MP4
PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the object of an ASF file that tells its size
SEGMENT = bytes.fromhex("18538067")  # the one element of a Matroska file that holds all others, after its header


def require_whole(path: Path, form: str) -> None:
    """Raise an InputError if a file is cut short.

    Args:
        path: the file.
        form: its format, as FFmpeg names it; of formats that are not known here nothing is said.
    """
    if form == "ogg" and not _ends_in_a_page(path):
        raise InputError(f"{path}: expected a whole Ogg file, found one that is cut short")
    if form == "gif":
        _require_whole_gif(path)
    if form in STATED:
        promised, size = STATED[form](path), path.stat().st_size
        if size < promised:
            raise InputError(f"{path}: expected {promised} bytes, as its header says, found {size}")


def count_ogg_streams(path: Path) -> int:
    """The streams of an Ogg file, side by side or one behind the other."""
    mark, count, rest = b"OggS\0\x02", 0, b""
    with open(path, "rb") as file:
        while piece := file.read(1 << 24):
            count += (rest + piece).count(mark)
            rest = piece[1 - len(mark) :]
    return count


def _ends_in_a_page(path: Path) -> bool:
    """Whether the last page of an Ogg file is whole."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - PAGE))
        rest = file.read()
    page = rest[rest.rfind(b"OggS") :]
    return len(page) >= 27 and len(page) >= 27 + page[26] and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _require_whole_gif(path: Path) -> None:
    try:
        with Image.open(path) as image:
            image.seek(getattr(image, "n_frames", 1) - 1)
            image.load()
    except Exception as error:  # of many kinds, as the place of the cut may be
        raise InputError(f"{path}: expected a whole GIF, found one that is cut short ({error})") from error


def _size_of_riff(path: Path) -> int:
    """The bytes that the headers of an AVI add up to."""
    end, size = 0, path.stat().st_size
    with open(path, "rb") as file:
        while end < size and file.read(4) == b"RIFF":
            length = int.from_bytes(file.read(4), "little")
            if length >= 2**31:
                return 0
            end += 8 + length + length % 2
            file.seek(end)
    return end - 8  # some writers count these, too


def _size_of_mp4(path: Path) -> int:
    """The bytes that the headers of an MP4, MOV or M4A add up to: it is a row of boxes."""
    end = 0
    with open(path, "rb") as file:
        while len(head := file.read(16)) >= 8 and head[4:8] in BOXES:
            length = int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:])
            if length < 8:  # as long as the file
                break
            end += length
            file.seek(end)
    return end


def _size_of_matroska(path: Path) -> int:
    """The bytes that the headers of an MKV or WebM add up to."""
    with open(path, "rb") as file:
        head = file.read(4096)
    place = head.find(SEGMENT) + len(SEGMENT)
    first = head[place] if len(SEGMENT) <= place < len(head) else 0
    if first == 0:
        return 0
    count = 9 - first.bit_length()  # bytes of the number that follows, of which the first bits say so
    length = int.from_bytes(head[place : place + count]) & ((1 << 7 * count) - 1)
    return 0 if length == (1 << 7 * count) - 1 else place + count + length


def _size_of_asf(path: Path) -> int:
    """The bytes that the header of a WMV, WMA or ASF tells."""
    with open(path, "rb") as file:
        about = file.read(1 << 16).partition(PROPERTIES)[2]
    is_live = len(about) > 72 and about[72] & 1  # then the size is not filled in
    return 0 if is_live else int.from_bytes(about[24:32], "little")


def _size_of_flv(path: Path) -> int:
    """The bytes that the header of an FLV tells, as a float of 64 bits."""
    with open(path, "rb") as file:
        about = file.read(1 << 16).partition(b"\0\x08filesize\0")[2]
    return int(struct.unpack(">d", about[:8])[0]) if len(about) >= 8 else 0


# Of a format, what tells how many bytes its headers promise; 0 where they do not.
STATED = {
    "asf": _size_of_asf,
    "avi": _size_of_riff,
    "flv": _size_of_flv,
    "matroska,webm": _size_of_matroska,
    "mov,mp4,m4a,3gp,3g2,mj2": _size_of_mp4,
}
