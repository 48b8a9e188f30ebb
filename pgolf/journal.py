"""What rank 0 writes and shows while a stage runs: lines in train.log, events for the logger, progress on the screen."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pgolf.logger import Logger

if TYPE_CHECKING:
    from pgolf.machine.world import World
    from pgolf.recipe import Recipe

PLAIN_SECONDS = 10.0  # between two progress lines where there is no terminal


class Screen(ABC):
    """Where a person looks."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Show one finished line."""

    @abstractmethod
    @contextmanager
    def bar(self, label: str, recipe: "Recipe | None" = None) -> Iterator["Bar"]:
        """A live view of long work, for as long as the context lasts. With the recipe it can tell utilisation."""

    @abstractmethod
    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        """The results as a table, where that is more than the lines of the log."""


class Bar(ABC):
    """A live view: how much of the work is `done` (0 to 1), and the numbers that go with it."""

    @abstractmethod
    def update(self, done: float, text: str, tokens_per_second: float = 0.0) -> None: ...


class Plain(Screen):
    """Lines for files and pipes, on stdout unless another stream is given."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream

    def line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    @contextmanager
    def bar(self, label: str, recipe: "Recipe | None" = None) -> Iterator[Bar]:
        yield _PlainBar(label, self.stream)

    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        pass


class _PlainBar(Bar):
    def __init__(self, label: str, stream: TextIO | None):
        self.label, self.stream = label, stream
        self.shown = time.monotonic()

    def update(self, done: float, text: str, tokens_per_second: float = 0.0) -> None:
        if time.monotonic() - self.shown >= PLAIN_SECONDS:
            print(f"{self.label}  {done:4.0%}  {text}", file=self.stream, flush=True)
            self.shown = time.monotonic()


class Terminal(Screen):
    """A terminal, drawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, label: str, recipe: "Recipe | None" = None) -> Iterator[Bar]:
        from pgolf.live import live

        with live(self.console, label, recipe) as view:
            yield view

    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        from pgolf.live import table

        self.console.print(table(title, rows))


class Nowhere(Screen):
    """Ranks other than 0 show nothing."""

    def line(self, text: str) -> None:
        pass

    @contextmanager
    def bar(self, label: str, recipe: "Recipe | None" = None) -> Iterator[Bar]:
        yield _NoBar()

    def card(self, title: str, rows: list[tuple[str, str]]) -> None:
        pass


class _NoBar(Bar):
    def update(self, done: float, text: str, tokens_per_second: float = 0.0) -> None:
        pass


class Journal(ABC):
    """The pen of a stage."""

    def __init__(self, screen: Screen):
        self.screen = screen

    @abstractmethod
    def line(self, text: str) -> None:
        """One line for the log and the screen."""

    @abstractmethod
    def event(self, kind: str, **fields: object) -> None:
        """One event, with its numbers, for the logger."""


class Written(Journal):
    """Rank 0's: train.log and the configured logger, in `folder`."""

    def __init__(self, folder: Path, logger: Logger, screen: Screen):
        super().__init__(screen)
        self.folder, self.logger = folder, logger

    def line(self, text: str) -> None:
        with open(self.folder / "train.log", "a", encoding="utf-8") as log:
            log.write(text + "\n")
        self.screen.line(text)

    def event(self, kind: str, **fields: object) -> None:
        self.logger.event(self.folder, kind, {"time": round(time.time(), 3), **fields})


class Silent(Journal):
    """Every other rank's."""

    def __init__(self) -> None:
        super().__init__(Nowhere())

    def line(self, text: str) -> None:
        pass

    def event(self, kind: str, **fields: object) -> None:
        pass


def open_journal(world: "World", folder: Path, logger: Logger, terminal: bool) -> Journal:
    """Rank 0 writes and shows, on a terminal or in plain lines; the others are silent."""
    return Written(folder, logger, Terminal() if terminal else Plain()) if world.main else Silent()
