"""What changes during training, as rows of data over the clock: learning rate, momentum, recurrence, QAT.

Everything is a function of `Progress` or of the step number and of nothing else, so a step-limited run repeats exactly.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

from pgolf.errors import need


@dataclass(frozen=True)
class Progress:
    """Where training is before a step: `step` steps done, `elapsed` of `total` of the clock used up.

    Elapsed and total are seconds in a time-limited run and steps in a step-limited one (`elapsed` = `step`).
    """

    step: int
    elapsed: float
    total: float

    @property
    def remaining(self) -> float:
        """What is left of the total, at least 0."""
        return max(self.total - self.elapsed, 0.0)

    @property
    def fraction(self) -> float:
        """elapsed / total."""
        return self.elapsed / self.total


START, END = Progress(0, 0.0, 1.0), Progress(1, 1.0, 1.0)


class Shape(Enum):
    """How the multiplier falls with the remaining share r of the warmdown: as r, or as √r."""

    LINEAR = "linear"
    SQRT = "sqrt"


def fallen(remaining: float, window: float, shape: Shape, floor: float) -> float:
    """The learning-rate multiplier when `remaining` of a final `window` of the clock is left.

    1 before the window, then r or √r with r = remaining / window, never below `floor`.

    >>> fallen(25.0, 100.0, Shape.SQRT, 0.05)
    0.5
    """
    if remaining > window:
        return 1.0
    left = remaining / window if window > 0 else 0.0
    return max(math.sqrt(left) if shape is Shape.SQRT else left, floor)


@dataclass(frozen=True, kw_only=True)
class Warmdown(ABC):
    """How the learning rate falls at the end."""

    @abstractmethod
    def multiplier(self, progress: Progress) -> float:
        """What every learning rate is multiplied by."""


@dataclass(frozen=True, kw_only=True)
class WarmdownByIterations(Warmdown):
    """Falls over the last `iterations` steps, as many as the mean speed so far says will still fit the clock.

    Before the first step the speed is unknown and the multiplier 1. A slow start makes the early ones smaller.
    """

    iterations: int
    shape: Shape
    floor: float

    def __post_init__(self) -> None:
        need(self.iterations >= 1, "schedule.warmdown.iterations", self.iterations, "at least 1")
        need(0 <= self.floor <= 1, "schedule.warmdown.floor", self.floor, "between 0 and 1")

    def multiplier(self, progress: Progress) -> float:
        window = self.iterations * (progress.elapsed / max(progress.step, 1))
        return fallen(progress.remaining, window, self.shape, self.floor)


@dataclass(frozen=True, kw_only=True)
class WarmdownByFraction(Warmdown):
    """Falls over the last `fraction` of the clock."""

    fraction: float
    shape: Shape
    floor: float

    def __post_init__(self) -> None:
        need(0 <= self.fraction <= 1, "schedule.warmdown.fraction", self.fraction, "between 0 (constant) and 1")
        need(0 <= self.floor <= 1, "schedule.warmdown.floor", self.floor, "between 0 and 1")

    def multiplier(self, progress: Progress) -> float:
        return fallen(progress.remaining, self.fraction * progress.total, self.shape, self.floor)


@dataclass(frozen=True, kw_only=True)
class MomentumRamp:
    """Muon's momentum rises from `start` to `end` over the first `steps` steps (0: `end` at once)."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        need(0 <= self.start < 1, "schedule.ramp.start", self.start, "from 0 to below 1")
        need(0 <= self.end < 1, "schedule.ramp.end", self.end, "from 0 to below 1")
        need(self.steps >= 0, "schedule.ramp.steps", self.steps, "at least 0")

    def at(self, step: int) -> float:
        """(1 − f)·start + f·end with f = step/steps. start .85, end .95, steps 200: .9 at step 100."""
        f = min(step / self.steps, 1.0) if self.steps else 1.0
        return (1 - f) * self.start + f * self.end


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """All that depends on the clock, one row per quantity. `warmup_steps` steps are run and undone before the clock starts.

    Recurrence comes on at `loop_at` of the clock, QAT once the learning-rate multiplier is below `qat_below` (above 1: from
    the first step); null is never.
    """

    warmup_steps: int
    warmdown: Warmdown
    ramp: MomentumRamp
    loop_at: float | None
    qat_below: float | None

    def __post_init__(self) -> None:
        need(self.warmup_steps >= 0, "schedule.warmup_steps", self.warmup_steps, "at least 0")
        loop_ok = self.loop_at is None or 0 <= self.loop_at <= 1
        need(loop_ok, "schedule.loop_at", self.loop_at, "between 0 and 1 of the clock, or null for never")
        need(self.qat_below is None or self.qat_below > 0, "schedule.qat_below", self.qat_below, "above 0, or null")

    def lr(self, progress: Progress) -> float:
        """The multiplier of every learning rate."""
        return self.warmdown.multiplier(progress)

    def momentum(self, step: int) -> float:
        """Muon's momentum at a step, counted from 0."""
        return self.ramp.at(step)

    def looping(self, progress: Progress) -> bool:
        """Whether depth recurrence is on."""
        return self.loop_at is not None and progress.fraction >= self.loop_at

    def qat(self, progress: Progress) -> bool:
        """Whether quantisation-aware training is on."""
        return self.qat_below is not None and self.lr(progress) < self.qat_below
