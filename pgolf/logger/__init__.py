"""Where the numbers of a run go while it runs, beside the record, which is the truth.

Ranks append lines to events.jsonl, whatever the logger. Services are fed from that file by a process of their own
(`mirror.py`), so that none of them can fail, hang or slow a run; the parent starts and ends it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.errors import ConfigError, need

if TYPE_CHECKING:
    from pgolf.logger.mirror import Target

Say = Callable[[str], None]
MODES = ("offline", "online", "disabled")  # of W&B
# What its client would read from the environment, and what says the same for pgolf.
OURS = {
    **dict.fromkeys(("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME"), "each stage of each seed is a W&B run of its own"),
    **dict.fromkeys(("WANDB_RUN_GROUP", "WANDB_JOB_TYPE"), "a run's group is its arm, its type the stage"),
    **dict.fromkeys(("WANDB_DIR", "WANDB_RUN_DIR"), "what the client keeps lies in the run's folder"),
    "WANDB_SWEEP_ID": "a sweep is -m, and python -m pgolf.search chooses words",
    "WANDB_DISABLED": "WANDB_MODE=disabled or logger.mode=disabled says it",
}


@dataclass(frozen=True, kw_only=True)
class Logger(ABC):
    """Passes the events of a run on: their kinds and numbers are in `keys.py`."""

    @abstractmethod
    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        """While it lasts, what happens in the run `folder` is passed on; `say` gets a line if that does not work."""

    @abstractmethod
    def aggregate(self, sweep: Path, say: Say) -> None:
        """Pass on the summary of a sweep whose jobs have all ended."""


@dataclass(frozen=True, kw_only=True)
class NoLogger(Logger):
    """Passes nothing on; events.jsonl, record.json and train.log are in the run's folder all the same."""

    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        return nullcontext()

    def aggregate(self, sweep: Path, say: Say) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Mirrored(Logger, ABC):
    """Has a process of its own pass events on. After the run it gets `patience_seconds` to end, and is then stopped."""

    patience_seconds: float

    def __post_init__(self) -> None:
        need(self.patience_seconds > 0, "logger.patience_seconds", self.patience_seconds, "more than 0")
        self.check()

    def mirrored(self, folder: Path, say: Say) -> AbstractContextManager[None]:
        from pgolf.logger.mirror import mirrored

        return mirrored(self, folder, say) if self.on else nullcontext()

    @property
    @abstractmethod
    def on(self) -> bool:
        """Whether anything is passed on; if not, no process is started."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError for settings that cannot be used."""

    @abstractmethod
    def target(self, folder: Path) -> "Target":
        """What passes events on, in the mirror's own process."""


@dataclass(frozen=True, kw_only=True)
class Wandb(Mirrored):
    """Weights & Biases: `mode` is offline (kept under the run's folder, for `wandb sync`), online (needs a key) or disabled.

    The variables of its client that say what pgolf itself says (`OURS`) are refused; the others it reads as ever."""

    project: str
    entity: str | None
    mode: str

    @property
    def on(self) -> bool:
        return self.mode != "disabled"

    def check(self) -> None:
        need(self.mode in MODES, "logger.mode", self.mode, "offline, online or disabled, by a word or by WANDB_MODE")
        for name, why in OURS.items():
            if self.on and os.environ.get(name):
                raise ConfigError(
                    "logger", "wandb", f"cannot do as {name}={os.environ[name]} says: {why}; unset {name}"
                )

    def aggregate(self, sweep: Path, say: Say) -> None:
        with self.mirrored(sweep, say):
            pass

    def target(self, folder: Path) -> "Target":
        from pgolf.logger.to_wandb import ToWandb

        return ToWandb(self, folder)


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Mirrored):
    """TensorBoard files in the run's folder; needs the extra `tensorboard`."""

    @property
    def on(self) -> bool:
        return True

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


@dataclass(frozen=True, kw_only=True)
class WandbAndTensorBoard(Logger):
    """Both at once, each by a process of its own, so that what one does cannot touch the other."""

    wandb: Wandb
    tensorboard: TensorBoard

    @contextmanager
    def mirrored(self, folder: Path, say: Say) -> Iterator[None]:
        with self.wandb.mirrored(folder, say), self.tensorboard.mirrored(folder, say):
            yield

    def aggregate(self, sweep: Path, say: Say) -> None:
        self.wandb.aggregate(sweep, say)
        self.tensorboard.aggregate(sweep, say)
