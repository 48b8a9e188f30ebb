"""Where a person looks while pgolf runs. A thread of its own writes to the terminal, pipe or file, so that one that is closed,
full, stopped or of another encoding can neither fail nor hold up what runs."""

import os
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TextIO

PLAIN_SECONDS = 10.0  # between two progress lines where there is no terminal
PENDING = 1 << 20  # characters that wait to be shown; what comes after them is dropped
DRAIN_SECONDS = 5.0  # that the end of a program waits for what is not yet shown


class Outlet:
    """One of the process's output streams, as a text file that never fails and never blocks. `fault` says what went wrong."""

    def __init__(self, descriptor: int, encoding: str, fault: str | None = None):
        self.descriptor, self.encoding, self.fault = descriptor, encoding, fault
        self._waiting: queue.Queue[str] = queue.Queue()
        self._pending, self._lock, self._writing = 0, threading.Lock(), threading.Lock()
        threading.Thread(target=self._work, daemon=True, name=f"outlet {descriptor}").start()

    def write(self, text: str) -> int:
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
        return os.isatty(self.descriptor)

    def fileno(self) -> int:
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
        end = time.monotonic() + seconds
        while self._pending and self.fault is None and time.monotonic() < end:
            time.sleep(0.005)
        if self._pending and self.fault is None:
            self.fault = f"took nothing for {seconds:g} s at the end"
        return self.fault

    def _work(self) -> None:
        while True:
            text = self._waiting.get()
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


def say(text: str, descriptor: int = 2) -> None:
    """Show a line and wait a while for it; whatever becomes of it, the program goes on."""
    outlet(descriptor).write(f"{text}\n")
    outlet(descriptor).drain()


class Console(ABC):
    """What a person sees of a run or an audit: finished lines, live progress, a closing table."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Show one finished line."""

    @abstractmethod
    def detail(self, text: str) -> None:
        """Show a line of the log that a console which draws a card says there."""

    @abstractmethod
    def progress(self, label: str, done: float, text: str) -> None:
        """How much of the work that `label` names is done, 0 to 1, and the numbers that go with it."""

    @abstractmethod
    @contextmanager
    def live(self) -> Iterator[None]:
        """While it lasts, progress is drawn."""

    @abstractmethod
    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        """The results as a table, where that is more than the lines of the log."""


class PlainConsole(Console):
    """Lines for files and pipes: progress every PLAIN_SECONDS, and as each kind of work begins."""

    def __init__(self, stream: TextIO | Outlet | None = None):
        self.stream = stream or outlet()
        self._label, self._shown = "", time.monotonic()

    def line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def detail(self, text: str) -> None:
        self.line(text)

    def progress(self, label: str, done: float, text: str) -> None:
        now = time.monotonic()
        if label != self._label or now - self._shown >= PLAIN_SECONDS:
            self._label, self._shown = label, now
            self.line(f"{label}  {done:4.0%}  {text}")

    @contextmanager
    def live(self) -> Iterator[None]:
        yield

    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        pass


class TerminalConsole(Console):
    """A terminal, drawn by rich."""

    def __init__(self, stream: TextIO | Outlet | None = None) -> None:
        from rich.console import Console as RichConsole

        self.console = RichConsole(file=stream or outlet(), highlight=False)
        self.view = None

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        pass

    def progress(self, label: str, done: float, text: str) -> None:
        if self.view is not None:
            self.view.update(label, done, text)

    @contextmanager
    def live(self) -> Iterator[None]:
        from pgolf.show.live import live

        with live(self.console) as self.view:
            yield
        self.view = None

    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        from pgolf.show.live import table

        self.console.print(table(title, rows))


class NullConsole(Console):
    """Shows nothing."""

    def line(self, text: str) -> None:
        pass

    def detail(self, text: str) -> None:
        pass

    def progress(self, label: str, done: float, text: str) -> None:
        pass

    @contextmanager
    def live(self) -> Iterator[None]:
        yield

    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        pass


def on_terminal() -> bool:
    """Whether standard output is a terminal that a person watches."""
    return outlet().isatty() and not os.environ.get("CI")


def open_console() -> Console:
    """A drawn one on a terminal, plain lines elsewhere."""
    return TerminalConsole() if on_terminal() else PlainConsole()
