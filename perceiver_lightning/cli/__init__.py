"""The command line: `main`, and what it is made of."""

from perceiver_lightning.cli.command import CLI
from perceiver_lightning.cli.program import main

__all__ = ["CLI", "main"]
