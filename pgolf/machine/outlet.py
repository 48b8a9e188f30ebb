"""Where a person looks while pgolf runs. A thread of its own writes to the terminal, pipe or file, so that one that is closed,
full, stopped or of another encoding can neither fail nor hold up what runs."""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TextIO

PENDING = 1 << 20  # characters that wait to be shown; what comes after them is dropped
SHOW_SECONDS = 0.5  # that one line is waited for
DRAIN_SECONDS = 5.0  # that the end of a program waits for what is not yet shown


class Outlet:
    """One of the process's output streams, as a text file that never fails and never blocks. `fault` says what went wrong."""

    def __init__(self, descriptor: int, encoding: str, fault: str | None = None):
        self.descriptor, self.encoding, self.fault = descriptor, encoding, fault
        self._waiting: queue.Queue[str] = queue.Queue()
        self._pending, self._lock, self._writing = 0, threading.Lock(), threading.Lock()
        threading.Thread(target=self._work, daemon=True, name=f"outlet {descriptor}").start()

    def write(self, text: str) -> int:
        """Queue a text; the number of its characters. What comes when too much waits is dropped."""
        if self.fault is None and self._pending < PENDING:
            self._count(len(text))
            self._waiting.put(text)
        return len(text)

    def _count(self, characters: int) -> None:
        with self._lock:
            self._pending += characters

    def flush(self) -> None:
        """Writing is the thread's business."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self.descriptor

    @contextmanager
    def held(self) -> Iterator[bool]:
        """While it lasts nothing is written. False where that cannot be had, because a write is waiting for its reader."""
        got = self._writing.acquire(timeout=1.0)
        try:
            yield got
        finally:
            if got:
                self._writing.release()

    def drain(self, seconds: float = DRAIN_SECONDS) -> str | None:
        """Wait for what is not yet shown, at most so long. Returns the fault, if there is one."""
        self._wait(seconds)
        if self._pending and self.fault is None:
            self.fault = f"took nothing for {seconds:g} s at the end"
        return self.fault

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._pending and self.fault is None and time.monotonic() < end:
            time.sleep(0.005)

    def show(self, text: str) -> None:
        """Write, and wait a moment for it, so that what others write to the same place comes after; not while a reader sleeps."""
        behind = self._pending > 0
        self.write(text)
        if not behind:
            self._wait(SHOW_SECONDS)

    def _work(self) -> None:
        while True:
            text = self._waiting.get()
            if self.fault is not None:  # given up: what others write from now on stays whole
                return
            data = text.encode(self.encoding, "replace")
            try:
                while data:
                    with self._writing:
                        data = data[os.write(self.descriptor, data) :]
            except OSError as wrong:
                self.fault = wrong.strerror or str(wrong)
                return
            self._count(-len(text))


@cache
def outlet(descriptor: int = 1) -> Outlet:
    """The one outlet of standard output (1) or standard error (2)."""
    stream = sys.stdout if descriptor == 1 else sys.stderr
    if stream is None:  # closed before the program began: the descriptor may be anybody's by now
        return Outlet(descriptor, "utf-8", "is closed")
    return Outlet(descriptor, getattr(stream, "encoding", None) or "utf-8")


def standard_output() -> Outlet | TextIO:
    """Where `print` writes now: the outlet of its descriptor, or what this process has put in the place of its output."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # closed before the program began, or no file
        return sys.stdout or outlet()
    return outlet(descriptor) if descriptor in (1, 2) else sys.stdout


def say(text: str, descriptor: int = 2) -> None:
    """Show a line and wait a while for it; whatever becomes of it, the program goes on."""
    outlet(descriptor).write(f"{text}\n")
    outlet(descriptor).drain()


def on_terminal() -> bool:
    """Whether standard output is a terminal that a person watches."""
    return outlet().isatty() and not os.environ.get("CI")
