"""The process that ranks are forked from. It imports what they need while the parent is still busy with its own imports."""

import multiprocessing
import multiprocessing.forkserver
import signal
import threading

from pgolf.machine import spin_briefly

METHOD = "forkserver"
# The training stage, and what it or torch would import late: optimizers load the compiler's front end, two seconds of it.
PRELOADED = ["pgolf.train", "pgolf.model.initial", "pgolf.optim.optimizer", "torch._dynamo"]


def start_importing() -> None:
    """Start that process, if it is not there yet. It ends with this one; Ctrl-C, which reaches the whole group, is not for it."""
    spin_briefly()
    multiprocessing.set_forkserver_preload(PRELOADED)
    if threading.current_thread() is not threading.main_thread():
        return multiprocessing.forkserver.ensure_running()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
