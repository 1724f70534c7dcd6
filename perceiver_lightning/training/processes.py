"""The processes of one training, a rank each, end together: when one fails, on Ctrl-C, and on SIGTERM.

The first process starts the others (Lightning's launcher) and watches them; they watch it. What fails first speaks: of
the others, which then miss it, no word is needed. A process that fails waits for no other any more.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from subprocess import Popen
from typing import NoReturn

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from perceiver_lightning.errors import InputError
from perceiver_lightning.private import handle_sigterm, notice_sigterm, observe_children_with

SECONDS = 8.0  # in which the first process may end by itself, and keep its state
FIRST = "PERCEIVER_FIRST_TO_FAIL"  # an environment variable: the file of whichever process fails first

STARTER = "PERCEIVER_STARTER"  # another: the first process, which may be gone before a process that it started looks

children: list[Popen] = []  # what the first process has started


def is_started() -> bool:
    """Whether another process has started this one, as a rank of its training."""
    return int(os.environ.get("LOCAL_RANK", 0)) > 0


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """What is done inside ends in all processes when it fails in one."""
    if is_started():
        parent = int(os.environ.get(STARTER, os.getppid()))
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
        yield
        return
    observe_children_with(_watch_children)
    os.environ[FIRST] = os.path.join(tempfile.gettempdir(), f"perceiver-{uuid.uuid4()}")
    os.environ[STARTER] = str(os.getpid())
    try:
        yield
    except BaseException:
        for child in children:
            child.kill()
            child.wait()
        raise
    finally:
        if children:
            signal.set_wakeup_fd(-1)
            children.clear()
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.environ[FIRST])
        del os.environ[FIRST], os.environ[STARTER]


def failed_before(error: BaseException) -> int | None:
    """The exit status of the process that failed before this one; None where this is the first."""
    path = os.environ.get(FIRST)
    if path is None:
        return None
    mine = f"{os.getpid()} {status_of(error)}"
    with contextlib.suppress(FileExistsError), open(path, "x") as file:
        file.write(mine)
    with open(path) as file:
        process, _, status = file.read().partition(" ")
    return None if process == str(os.getpid()) else int(status or 1)


def status_of(error: BaseException) -> int:
    """The exit status of a process that ends by this."""
    statuses = {InputError: 2, KeyboardInterrupt: 130, SIGTERMException: 143}
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 1)


def leave(status: int, after_another: bool = False) -> NoReturn:
    """End the process, perhaps after another that failed before, which may still have to say why.

    One that was started does not wait for what others may never send.
    """
    until = time.monotonic() + SECONDS
    while after_another and time.monotonic() < until and not any(child.poll() for child in children):
        time.sleep(0.1)
    if is_started():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


class Together(Callback):
    """In a training of several processes: what each does when it fails, and on SIGTERM."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before Lightning listens to signals: in its handlers processes wait for each other, wherever they are."""
        if trainer.world_size > 1:
            handle_sigterm(trainer, lambda *_: os._exit(143) if is_started() else notice_sigterm(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Wait for no other process, as to save a checkpoint; it may be waiting elsewhere, or be gone."""
        failed_before(exception)
        if is_started():  # whatever else hangs now
            timer = threading.Timer(SECONDS, os._exit, [status_of(exception)])
            timer.daemon = True
            timer.start()
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _watch_parent(parent: int) -> None:
    """End with the process that started this one."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _watch_children(started: list[Popen]) -> None:
    """In the first process: end with the first of the others that fails, and soon after a SIGTERM.

    Lightning's own watcher kills this process at any moment, whatever it is writing.
    """
    children[:] = started
    signals, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)  # also where the main thread waits in C

    def watch(wakeup: socket.socket = wakeup) -> None:  # which keeps it open
        status, until = 0, float("inf")
        while children and time.monotonic() < until:
            told = bool(select.select([signals], [], [], 0.2)[0]) and signal.SIGTERM in signals.recv(64)
            failed = next((code for child in started if (code := child.poll())), 0)
            if not status and (told or failed):
                status = 143 if told else failed if failed > 0 else 128 - failed
                until = time.monotonic() + SECONDS
        if not children:
            return
        for child in started:
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    threading.Thread(target=watch, daemon=True).start()
