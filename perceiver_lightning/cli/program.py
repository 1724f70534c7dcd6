"""The way in: a command line is run, and what is wrong with it becomes one sentence and an exit status."""

import logging
import sys
import traceback

from perceiver_lightning.cli.command import CLI
from perceiver_lightning.cli.messages import without_hints
from perceiver_lightning.errors import InputError
from perceiver_lightning.names import print_any_name
from perceiver_lightning.training.memory import keep_freed_memory
from perceiver_lightning.training.processes import ending_together, failed_before, is_started, leave


def main(args: list[str] | None = None) -> CLI:
    """Run a command; the way in from a terminal, a test or a notebook.

    Args:
        args: the command line, such as `["fit", "--config", "configs/image/digits.yaml"]`; the process's own if None.

    Returns:
        the command line object, with `.model`, `.datamodule`, `.trainer` and `.config`.

    Raises:
        SystemExit: with status 2 after one sentence on stderr when the input is wrong, with 130 after Ctrl-C, with 0
            after --help or --print_config. With `--debug` among the arguments, wrong input raises InputError.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    keep_freed_memory()
    print_any_name()
    for name in ("pytorch_lightning", "lightning_fabric"):  # tips, devices, seeds: the run's first line says more
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
    with without_hints():
        try:
            with ending_together():
                try:
                    return CLI([arg for arg in args if arg != "--debug"])
                except Exception as error:
                    if (status := failed_before(error)) is not None:  # which has said why
                        leave(status, after_another=True)
                    raise
        except InputError as error:
            if debug:
                raise
            # A process that reads data ahead hands on its whole traceback, which ends in the sentence.
            print(f"error: {str(error).rpartition('InputError: ')[2].strip()}", file=sys.stderr)
            leave(2)
        except KeyboardInterrupt:
            leave(130)
        except Exception:
            if not is_started():
                raise
            traceback.print_exc()
            leave(1)
