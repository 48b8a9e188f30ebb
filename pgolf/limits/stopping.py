"""When training ends: by the clock less a reserve, or after a number of steps. Every rank is told the same."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.limits.clock import Clock
from pgolf.machine.world import World
from pgolf.schedule import Progress

if TYPE_CHECKING:
    from pgolf.stages.train import Trainer


class StoppingRule(ABC):
    """Turns a step number into the `Progress` that schedules read."""

    stopped_by: str
    first = 0  # the step to begin with

    @abstractmethod
    def progress(self, step: int) -> Progress:
        """Progress before `step` (0-based), agreed over ranks."""


@dataclass
class BySteps(StoppingRule):
    """`total` steps, whatever they take: elapsed is counted in steps."""

    total: int
    stopped_by = "steps"

    def progress(self, step: int) -> Progress:
        return Progress(step, float(step), float(self.total))


@dataclass
class ByClock(StoppingRule):
    """Until the clock has only `reserve` seconds left, less what one more step would take."""

    clock: Clock
    reserve: float
    world: World
    stopped_by = "clock"

    def progress(self, step: int) -> Progress:
        elapsed = self.world.agree(self.clock.elapsed)
        total = self.clock.budget - self.reserve
        return Progress(step, total if elapsed + elapsed / max(step, 1) > total else elapsed, total)


def stopping_rule(trainer: "Trainer", clock: Clock, reserve: float) -> StoppingRule:
    """The rule that the limits of its recipe ask for; `reserve` seconds are kept for what comes after the steps."""
    steps = trainer.recipe.limits.train_steps
    return ByClock(clock, reserve, trainer.world) if steps is None else BySteps(steps)
