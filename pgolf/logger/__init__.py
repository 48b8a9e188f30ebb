"""Where the numbers of a run go while it runs, beside the record, which is the truth.

A rank does no more than append lines to events.jsonl. Services are fed from that file by a process of their own
(`mirror.py`), so that none of them can fail, hang or slow a run; the parent starts and ends it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.errors import ConfigError, need

if TYPE_CHECKING:
    from pgolf.logger.mirror import Target

EVENTS = "events.jsonl"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Logger(ABC):
    """Takes events: a kind and its numbers, as `keys.py` lists them."""

    @abstractmethod
    def event(self, folder: Path, kind: str, fields: dict) -> None:
        """Keep one event of the run in `folder`."""

    @abstractmethod
    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        """While it lasts, what happens in the run `folder` is passed on; `say` gets a line if that does not work."""

    @abstractmethod
    def aggregate(self, sweep: Path, say: Say) -> None:
        """Pass on the summary of a sweep whose jobs have all ended."""


@dataclass(frozen=True, kw_only=True)
class NoLogger(Logger):
    """Keeps nothing; record.json and train.log are written all the same."""

    def event(self, folder: Path, kind: str, fields: dict) -> None:
        pass

    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        return nullcontext()

    def aggregate(self, sweep: Path, say: Say) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Jsonl(Logger):
    """Appends each event as one line of JSON to events.jsonl in the run's folder."""

    def event(self, folder: Path, kind: str, fields: dict) -> None:
        _append(folder, kind, fields)

    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        return nullcontext()

    def aggregate(self, sweep: Path, say: Say) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Mirrored(Logger, ABC):
    """Writes events.jsonl, and has a process of its own pass that on. After the run it gets `patience_seconds` to end."""

    patience_seconds: float

    def __post_init__(self) -> None:
        need(self.patience_seconds > 0, "logger.patience_seconds", self.patience_seconds, "more than 0")
        self.check()

    def event(self, folder: Path, kind: str, fields: dict) -> None:
        _append(folder, kind, fields)

    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        from pgolf.logger.mirror import mirrored

        return mirrored(self, folder, say)

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for settings that cannot be used."""

    @abstractmethod
    def target(self, folder: Path) -> "Target":
        """What passes events on, in the mirror's own process."""


@dataclass(frozen=True, kw_only=True)
class Wandb(Mirrored):
    """Weights & Biases: `mode` is offline (kept under the run's folder, for `wandb sync`) or online (needs a key)."""

    project: str
    entity: str | None
    mode: str

    def check(self) -> None:
        need(self.mode in ("offline", "online"), "logger.mode", self.mode, "offline or online")

    def aggregate(self, sweep: Path, say: Say) -> None:
        with self.mirrored(sweep, say):
            pass

    def target(self, folder: Path) -> "Target":
        from pgolf.logger.to_wandb import ToWandb

        return ToWandb(self, folder)


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Mirrored):
    """TensorBoard files in the run's folder; needs the extra `tensorboard`."""

    def check(self) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "logger", "tensorboard", "needs a package that is not here: pip install 'pgolf[tensorboard]'"
            )

    def aggregate(self, sweep: Path, say: Say) -> None:
        pass

    def target(self, folder: Path) -> "Target":
        from pgolf.logger.to_tensorboard import ToTensorBoard

        return ToTensorBoard(folder)


def _append(folder: Path, kind: str, fields: dict) -> None:
    with open(folder / EVENTS, "a", encoding="utf-8") as out:
        out.write(json.dumps({"event": kind, **fields}) + "\n")
