"""When training ends: by the clock less a reserve, or after a number of steps. Every rank is told the same."""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from pgolf.limits.clock import Clock
from pgolf.machine.world import World
from pgolf.schedule import Progress

if TYPE_CHECKING:
    from pgolf.stages.seal import Reserve
    from pgolf.stages.train import Trainer

LATEST = 10  # steps whose median says how fast the machine is now, whatever one of them waited for


class StoppingRule(ABC):
    """Turns a step number into the `Progress` that schedules read."""

    stopped_by: str
    first = 0  # the step to begin with
    reserve: "Reserve"  # that is kept for sealing, once training has ended

    @abstractmethod
    def progress(self, step: int) -> Progress:
        """Progress before `step` (0-based), agreed over ranks."""


@dataclass
class BySteps(StoppingRule):
    """`total` steps, whatever they take: elapsed is counted in steps."""

    total: int
    reserve: "Reserve"
    stopped_by = "steps"

    def progress(self, step: int) -> Progress:
        return Progress(step, float(step), float(self.total))


@dataclass
class ByClock(StoppingRule):
    """Until the clock has only the `measured` reserve left, or what has become of it, less what one more step would take."""

    clock: Clock
    measured: "Reserve"
    world: World
    seen: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST + 1))  # the clock before the latest steps
    stopped_by = "clock"

    def progress(self, step: int) -> Progress:
        elapsed = self.world.agree(self.clock.elapsed)
        self.seen.append(elapsed)
        total, ends = (self.clock.budget - kept.seconds for kept in (self.measured, self.reserve))
        return Progress(step, total if elapsed + elapsed / max(step, 1) > ends else elapsed, total)

    @property
    def reserve(self) -> "Reserve":
        """As it was measured, or more."""
        spent = sorted(after - before for before, after in pairwise(self.seen))
        return self.measured.where_steps_take(spent[len(spent) // 2] if spent else 0.0)


def stopping_rule(trainer: "Trainer", clock: Clock, reserve: "Reserve") -> StoppingRule:
    """The rule that the limits of its recipe ask for; `reserve` is kept for what comes after the steps."""
    steps = trainer.recipe.limits.train_steps
    return ByClock(clock, reserve, trainer.world) if steps is None else BySteps(steps, reserve)
