"""The process that passes a run's events on to a service, and the parent's end of it.

`python -m pgolf.logger LOGGER FOLDER` follows FOLDER/events.jsonl until its standard input is closed, by the parent or by
the parent's death. The parent waits a stated time for it, then ends it with all it started.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf.files import read_json
from pgolf.files.events import EventReader
from pgolf.files.frozen import freeze

if TYPE_CHECKING:
    from pgolf.logger import Mirrored, Say
from pgolf.machine.helper import Helper

OUTPUT = "mirror_{}.log"  # by the name of the logger: there may be two
POLL_SECONDS = 0.5


class Target(ABC):
    """A service, as the mirror sees it."""

    @abstractmethod
    def event(self, event: dict[str, Any]) -> None:
        """Pass one line of events.jsonl on."""

    @abstractmethod
    def close(self) -> None:
        """The run, or the sweep, has ended: pass on what its files say now."""


@contextmanager
def mirrored(logger: "Mirrored", folder: Path, say: "Say") -> Iterator[None]:
    """Keep a mirror of `folder` alive for as long as the context lasts, and a while longer for it to finish."""
    args, name = (json.dumps(freeze(logger)), str(folder)), type(logger).__name__
    helper = Helper("pgolf.logger", *args, output=folder / OUTPUT.format(name.lower()))
    try:
        yield
    finally:
        if fault := helper.finish(logger.patience_seconds):
            say(f"{name}: {fault}. The run's own files are whole.")


def follow(target: Target, folder: Path, ended: Callable[[float], bool]) -> None:
    """Pass on every event, then close. `ended(seconds)` waits that long, or less, for the end."""
    reader, last = EventReader(folder), False
    while not last:
        last = ended(POLL_SECONDS)
        for event in reader.new():
            target.event(event)
    target.close()


def read_or_none(path: Path) -> Any:
    """The value in a JSON file, or None where there is none."""
    return read_json(path) if path.exists() else None
