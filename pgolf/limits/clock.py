"""One clock per stage, from its first counted second to its last, split into named phases."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds from `start()` to `stop()`, against a `budget` in seconds. Phases are summed by name, in order of first use."""

    def __init__(self, budget: float):
        self.budget = budget
        self.phases: dict[str, float] = {}
        self._began: float | None = None
        self._ended: float | None = None

    def start(self) -> None:
        """Start; once only."""
        assert self._began is None, "a clock starts once"
        self._began = time.monotonic()

    def go_on(self, seconds: float) -> None:
        """Count from `seconds` on, which were used before."""
        self._began = time.monotonic() - seconds

    def stop(self) -> None:
        """Nothing counts any more."""
        self._ended = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, until it was stopped."""
        assert self._began is not None, "the clock has not been started"
        return (self._ended or time.monotonic()) - self._began

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; negative once it is spent."""
        return self.budget - self.elapsed

    def __str__(self) -> str:
        return f"{self.elapsed:.0f} s used, {self.left:.0f} s left"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds spent inside under a name."""
        began = self.elapsed
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + self.elapsed - began
