"""A contest: several ways to do one thing, timed in turns so that a busy machine slows all of them alike, and compared by
what they make, in the same run, before any figure is believed."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pgolf.errors import UserError

SIZES = ("small", "medium", "full")


class DisagreementError(UserError):
    """Two ways that should make the same did not."""


@dataclass(frozen=True)
class Setting:
    """`size` is small (about a second), medium (a laptop's) or full (a record's); `artifact` a file of a real model;
    `seeds` those of whole runs; `only` how the names of the parts begin that `gpu` is to run."""

    size: str = "medium"
    repeats: int = 5
    device: str = "cpu"
    artifact: str | None = None
    seeds: tuple[int, ...] = (1337,)
    only: str = ""

    def pick(self, small: Any, medium: Any, full: Any) -> Any:
        """One of three, by size."""
        return dict(zip(SIZES, (small, medium, full), strict=True))[self.size]


@dataclass(frozen=True)
class Contest:
    """`ways` by name, the first being what the others are compared with.

    `check` gets what each way made, raises DisagreementError, or returns what it found to hold. `floor` is the least time that
    the work can take, in seconds, where that can be computed. `figures` are other numbers of a way than its time.
    """

    name: str
    ways: dict[str, Callable[[], Any]]
    check: Callable[[dict[str, Any]], str]
    floor: float | None = None
    figures: Callable[[str, Any], str] = field(default=lambda way, made: "")

    def run(self, setting: Setting) -> list[dict[str, Any]]:
        """One warm-up of every way, the check, then `repeats` turns. A row per way."""
        made = {way: work() for way, work in self.ways.items()}
        agreed = self.check(made)
        figures = {way: self.figures(way, result) for way, result in made.items()}
        spent: dict[str, list[float]] = {way: [] for way in self.ways}
        for _ in range(setting.repeats):
            for way, work in self.ways.items():
                spent[way].append(seconds(work, setting.device))
        least = min(next(iter(spent.values())))
        return [
            row(self.name, way, times, least / min(times), figures[way], agreed, self.floor)
            for way, times in spent.items()
        ]


def row(
    contest: str,
    way: str,
    times: Sequence[float],
    times_faster: float,
    figures: str,
    check: str,
    floor: float | None = None,
) -> dict[str, Any]:
    """What is reported of one way, whose turns took `times` in seconds."""
    return {
        "contest": contest,
        "way": way,
        "min_s": min(times),
        "median_s": statistics.median(times),
        "times_faster": times_faster,
        "floor_s": floor,
        "figures": figures,
        "check": check,
    }


@dataclass(frozen=True)
class Part:
    """Contests of which one that fails stops neither the rest nor the report: `missed` then says why, by the part's name."""

    name: str
    make: Callable[[], Iterable[Contest]]
    missed: dict[str, str] = field(default_factory=dict)

    def run(self, setting: Setting) -> list[dict[str, Any]]:
        """The rows of those that ended."""
        rows: list[dict[str, Any]] = []
        try:
            for contest in self.make():
                rows += contest.run(setting)
        except Exception as wrong:
            self.missed[self.name] = f"{type(wrong).__name__}: {' '.join(str(wrong).split())}"[:300]
        return rows


def seconds(work: Callable[[], Any], device: str) -> float:
    """The wall time of one call, to the end of what it started on `device`."""
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matmul_floor(flops: float, dtype: torch.dtype, device: str, n: int = 1024) -> float:
    """Seconds that `flops` operations take at the best rate of a square matrix product, measured here and now."""
    a = torch.ones(n, n, dtype=dtype, device=device)
    best = min(seconds(lambda: a @ a, device) for _ in range(8))
    return flops * best / (2 * n**3)
