"""Processes end with the one that started them, however that went: killed, crashed, or told to stop."""

import os
import signal
import threading
import time
from collections.abc import Mapping

PARENT = "PGOLF_PARENT"  # in the environment of a command that is to end with the process of this id
POLL_SECONDS = 0.25
CLOSING_SECONDS = 20.0  # that a run gets to close its record


def ending_with_me() -> dict[str, str]:
    """The environment of a command that ends with this process."""
    return dict(os.environ) | {PARENT: str(os.getpid())}


def end_with_parent(environment: Mapping[str, str] = os.environ) -> None:
    """If the parent asked for it, end this process when that is gone: by TERM, so that records are closed, then by KILL."""
    parent = environment.get(PARENT, "")
    os.environ.pop(PARENT, None)  # of this process, and not of those that it starts
    if parent.isdecimal():
        end_with(int(parent))


def end_with(parent: int) -> None:
    """End this process, a child of `parent`, when that is gone."""
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_follow, args=(parent,), daemon=True, name="parent").start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLOSING_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
