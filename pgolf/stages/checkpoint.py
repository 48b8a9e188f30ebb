"""Training that can be taken up again: its state by name, kept every so often by torch.distributed.checkpoint.

The stage that ranks run is `train`, under a stopping rule that also keeps checkpoints and hears requests to stop, between two
steps. The exported file does without. A checkpoint is read with pickle: it is code, to be trusted like code.
"""

import math
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pgolf.errors import RefusedError
from pgolf.files.checkpoints import CheckpointFacts, whole_checkpoint
from pgolf.files.events import Events
from pgolf.limits import Limits
from pgolf.limits.clock import Clock
from pgolf.limits.stopping import StoppingRule, stopping_rule
from pgolf.machine.rank import request_path, steps_path
from pgolf.machine.world import World
from pgolf.schedule import Progress
from pgolf.stages.seal import Reserve
from pgolf.stages.train import Trainer, Training, train
from pgolf.stages.trainer_state import numbers_of, put_back, read_tensors, tensors_of
from pgolf.stages.writer import Writer

GO_ON, DUE, STOP = 0.0, 1.0, 2.0
FEWEST_STEPS = 10  # that a clock must have room for


@dataclass(frozen=True)
class Keeping:
    """What a training does besides: a checkpoint every so many seconds (null: none), of this code and config.

    `start` is the checkpoint that it goes on from, or None.
    """

    every_seconds: float | None
    code_sha256: str
    config_sha256: str
    start: Path | None


class StopRequestedError(Exception):
    """Ends the steps between two of them, on all ranks; `kept` says whether there is a checkpoint of that moment."""

    def __init__(self, step: int, kept: bool):
        super().__init__(f"asked to stop after step {step}")
        self.step, self.kept = step, kept


def train_on(world: World, training: Training, keeping: Keeping, events: Events) -> dict[str, Any]:
    """`train`, or the account of where it was stopped: {"stopped": {"step": ..., "kept": ...}}."""
    rules: list[KeepingRule] = []
    if keeping.every_seconds is not None or keeping.start:
        import_module("torch.distributed.checkpoint")  # takes a second, which the clock should not see

    def rule_of(trainer: Trainer, clock: Clock, reserve: Reserve) -> StoppingRule:
        rules.append(KeepingRule(training, keeping, events, trainer, clock, reserve))
        return rules[0]

    try:
        return train(world, training, events, rule_of)
    except StopRequestedError as stop:
        return {"stopped": {"step": stop.step, "kept": stop.kept}}
    finally:
        for rule in rules:
            rule.writer.wait()


def require_time(limits: Limits, reserve: float, step: float) -> None:
    """RefusedError, with the shortest clock that does, if `reserve` and ten steps of `step` seconds each do not fit the clock."""
    steps = FEWEST_STEPS * step
    if limits.train_steps is None and reserve + steps > limits.train_seconds:
        raise RefusedError(
            f"limits.train_seconds={limits.train_seconds:g}: too short on this machine, where {reserve:.1f} s are kept for"
            f" sealing and {FEWEST_STEPS} steps take {steps:.1f} s;"
            f" limits.train_seconds={math.ceil(1.2 * (reserve + steps))} would do"
        )


class KeepingRule(StoppingRule):
    """The rule of the limits, from the checkpoint on that there is to start from.

    Between two steps it keeps a checkpoint when one is due, and ends the training when that is asked for.
    """

    def __init__(
        self, training: Training, keeping: Keeping, events: Events, trainer: Trainer, clock: Clock, reserve: Reserve
    ):
        self.folder, self.keeping, self.trainer, self.clock = training.folder, keeping, trainer, clock
        self.world = trainer.world
        if not keeping.start:
            require_time(training.recipe.limits, reserve.seconds, self.world.agree(trainer.step_seconds))
        self.first = self._taken_up() if keeping.start else 0
        self.rule = stopping_rule(trainer, clock, reserve)
        self.stopped_by = self.rule.stopped_by
        self.writer = Writer(training.folder, self.world, lambda text: events.write("notice", text=text))
        self.last = time.monotonic()
        if self.world.main:
            steps_path(self.folder).parent.mkdir(exist_ok=True)
            steps_path(self.folder).touch()

    @property
    def reserve(self) -> Reserve:
        """That of the rule of the limits."""
        return self.rule.reserve

    def progress(self, step: int) -> Progress:
        """As the rule of the limits says. Raises StopRequestedError on all ranks alike."""
        progress = self.rule.progress(step)
        if progress.elapsed >= progress.total:
            if self.world.main:
                steps_path(self.folder).unlink(missing_ok=True)  # who asks from now on is too late
            return progress
        request = self.world.agree(self._requested())
        if request == STOP:
            raise StopRequestedError(step, self._keep(step) and self.writer.wait())
        if request == DUE and step > self.first:
            self._keep(step)
        return progress

    def _requested(self) -> float:
        """What rank 0 wants; the others hear of it."""
        if not self.world.main:
            return GO_ON
        if request_path(self.folder).exists():
            return STOP
        every = self.keeping.every_seconds
        return DUE if every is not None and time.monotonic() - self.last >= every else GO_ON

    def _keep(self, step: int) -> bool:
        """Begin to write a checkpoint, if there is a place for one. False: there is none."""
        if self.keeping.every_seconds is None:
            return False
        self.trainer.require_finite(self.folder)
        self.last = time.monotonic()
        facts = CheckpointFacts(
            step=step,
            ranks=self.world.size,
            code_sha256=self.keeping.code_sha256,
            config_sha256=self.keeping.config_sha256,
            torch=torch.__version__,
        )
        numbers = numbers_of(self.trainer) | {"step": step, "elapsed": self.clock.elapsed}
        self.writer.begin(tensors_of(self.trainer), asdict(facts) | {"numbers": numbers})
        return True

    def _taken_up(self) -> int:
        """Put the trainer and the clock where they were. Returns the number of steps done."""
        numbers = whole_checkpoint(self.keeping.start)["numbers"]
        put_back(self.trainer, read_tensors(self.keeping.start), numbers)
        self.clock.go_on(numbers["elapsed"])
        self.clock.phases["steps"] = numbers["elapsed"]
        return numbers["step"]
