"""Names of files, classes and runs: one rule for all that reads, writes or shows them.

A name in Python is what `os.fsdecode` gives. File systems hold any bytes: those that are not UTF-8 are surrogates in
the text, which neither a UTF-8 file nor a screen takes by itself.

- A file that is read back has the name's own bytes: open it with `encoding="utf-8", errors=ERRORS`.
- What is only shown (messages, pages, pictures, tables of W&B) has escapes in their place: `shown`.
- A command that is printed can be pasted: `quoted`.
- Two names of one class are equal in the form NFC, whatever form a disk or a table has: `composed`.
"""

import io
import os
import shlex
import sys
import unicodedata

ERRORS = "surrogateescape"


def shown(name: str) -> str:
    """A name as text that every file and screen takes: `caf\\udce9.png` where the bytes are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def composed(name: str) -> str:
    """A name in the form NFC: "é" as one character, which some systems write as two."""
    return unicodedata.normalize("NFC", name)


def quoted(name: str) -> str:
    """A name as one word of a shell's command line; in the form $'...' where it has characters that do not print."""
    if name.isprintable():
        return shlex.quote(name)
    plain = set(range(32, 127)) - set(b"'\\")
    return "$'" + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(name)) + "'"


def print_any_name() -> None:
    """Have the process print names that are not UTF-8 as `shown` has them; stderr does so by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
