"""The process that ranks are forked from. It imports what they need while the parent is still busy with its own imports."""

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from pgolf.errors import UserError
from pgolf.machine import tune_runtime
from pgolf.machine.outlet import outlet
from pgolf.machine.signals import deaf
from pgolf.machine.sockets import FOLDER

METHOD = "forkserver"
# The training stage, and what it would import late.
PRELOADED = [
    "pgolf.machine.sockets",
    "pgolf.stages.checkpoint",
    "pgolf.model.initial",
    "pgolf.optim.optimizer",
]


def start_importing() -> None:
    """Start that process, if it is not there yet. It ends with this one, does not hold its standard output, since whoever
    reads that waits for its end, and leaves signals, which may reach the whole group, to it. UserError where its socket has no
    place."""
    tune_runtime()
    multiprocessing.set_forkserver_preload(PRELOADED)
    try:
        folder = _folder()
        with _told(FOLDER, folder), method_left():
            _start()
    except OSError as wrong:
        with suppress(OSError):
            os.rmdir(multiprocessing.current_process()._config.pop("tempdir", ""))
        raise UserError(
            f"{tempfile.gettempdir()}: has no place for the sockets of ranks: {wrong.strerror or wrong};"
            " TMPDIR=... names another folder"
        ) from None


def _folder() -> str:
    """Where multiprocessing puts its sockets. Made here and removed by the server: Python's own way leaves it behind where this
    process is killed, and ends with a stack where it cannot be removed."""
    config = multiprocessing.current_process()._config
    if not os.path.isdir(config.get("tempdir") or ""):
        config["tempdir"] = tempfile.mkdtemp(prefix="pymp-")
    return config["tempdir"]


def _start() -> None:
    if threading.current_thread() is not threading.main_thread():
        return multiprocessing.forkserver.ensure_running()
    multiprocessing.resource_tracker.ensure_running()  # which unblocks signals when it has been started
    with deaf(), _silent():
        multiprocessing.forkserver.ensure_running()


def stop_importing() -> None:
    """End that process at once, if it is there, and remove its folder: nothing will be started."""
    server = multiprocessing.forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        shutil.rmtree(_folder(), ignore_errors=True)


@contextmanager
def without_main() -> Iterator[None]:
    """Ranks that are started inside do not run this command's own module again, half a second, to find in it what they need
    elsewhere."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def method_left() -> Iterator[None]:
    """How this process starts others is afterwards what it was before ranks or their server settled it."""
    before = multiprocessing.get_start_method(allow_none=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


@contextmanager
def _told(name: str, value: str) -> Iterator[None]:
    """Processes that are started inside have it in their environment."""
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


@contextmanager
def _silent() -> Iterator[None]:
    """Processes that are started inside do not hold the standard output."""
    with outlet().held() as free:
        if not free:
            yield
            return
        kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            os.close(nowhere)
