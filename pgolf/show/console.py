"""What a person sees of a run or an audit: plain lines, a drawn terminal, or the result alone."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from pgolf.machine.outlet import Outlet, on_terminal, outlet

PLAIN_SECONDS = 10.0  # between two progress lines where there is no terminal


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

    @abstractmethod
    def result(self, text: str) -> None:
        """Show the last line, which is for programs."""


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

    def result(self, text: str) -> None:
        self.line(text)


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

    def result(self, text: str) -> None:
        self.line(text)


class QuietConsole(Console):
    """Shows the result and nothing else."""

    def __init__(self, stream: TextIO | Outlet | None = None):
        self.stream = stream or outlet()

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

    def result(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


def open_console(quiet: bool) -> Console:
    """One that shows only the result, a drawn one on a terminal, or plain lines."""
    if quiet:
        return QuietConsole()
    return TerminalConsole() if on_terminal() else PlainConsole()
