"""The command line: `main`, and what it is made of."""

from perceiver_lightning.cli.command import CLI, main

__all__ = ["CLI", "main"]
