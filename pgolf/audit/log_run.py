"""What one run in a log says, as figures with the lines that they stand in."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """A score the log states at `line`."""

    label: str
    loss: float | None
    bpb: float
    decimals: int
    line: int
    seconds: float | None
    loss_decimals: int = 8
    tokens: int | None = None
    bytes: int | None = None


@dataclass(eq=False)
class Log:
    """What one run in a log says. Pairs are (line, figure)."""

    path: Path
    name: str
    lines: int = 0
    first: str = ""
    last: str = ""
    head: str = ""
    encoding: str = "utf-8"
    undecodable: int | None = None
    skipped: int = 0
    alone: bool = True
    seed: tuple[int, int] | None = None
    world: tuple[int, int] | None = None
    batch: tuple[int, int] | None = None
    shards: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None
    cap: tuple[int, int] | None = None
    step: tuple[int, int] | None = None
    flat: Result | None = None
    trained: tuple[int, float] | None = None
    evaluated: tuple[int, float] | None = None
    subset: tuple[int, int] | None = None
    traceback: int | None = None
    stream: str | None = None
    gpu: str | None = None
    odd_text: int | None = None
    environment: bool = False
    prequant: tuple[int, int] | None = None
    passes: int | None = None
    chosen: int | None = None
    validation_calibration: int | None = None
    generated: bool = False
    results: list[Result] = field(default_factory=list)
    codes: list[tuple[int, int, str]] = field(default_factory=list)
    models: list[tuple[int, int]] = field(default_factory=list)
    totals: list[tuple[int, int]] = field(default_factory=list)
    calibrated: list[tuple[int, float]] = field(default_factory=list)
    adapted: list[tuple[int, float]] = field(default_factory=list)
    repeated: list[tuple[int, str]] = field(default_factory=list)
    epochs: list[tuple[int, int, int]] = field(default_factory=list)
    chunks: int | None = None

    @property
    def seed_value(self) -> int | None:
        """From the file's name or that of its folder, or else from what it says; what it says, where it holds several runs."""
        named = re.findall(r"(?i)seed[_=-]?(\d+)", self.name) or re.findall(
            r"(?i)(?:^|[_/-])s(\d{1,5})(?=[_./-])", self.name
        )
        stated = self.seed and self.seed[1]
        return int(named[-1]) if named and (self.alone or stated is None) else stated

    @property
    def total(self) -> tuple[int, int] | None:
        """The compressed size with the code; a log may state the uncompressed one first."""
        return self.totals[-1] if self.totals else None

    @property
    def unadapted(self) -> Result | None:
        """The last score of training, where no step follows it."""
        return self.flat if self.flat and self.step and self.step[0] <= self.flat.line + 2 else None

    def at(self, line: int) -> str:
        """`file:line` of a line of this log."""
        return f"{self.name}:{line}"

    def scored(self) -> list[Result]:
        """End results, and the last score of training."""
        return [*self.results, *([self.flat] if self.flat else [])]

    def by_label(self) -> dict[str, Result]:
        """The last statement of every label, with the most digits, and with what another statement of the same score adds."""
        found: dict[str, Result] = {}
        for result in self.scored():
            before = found.get(result.label)
            if before is None or result.decimals >= before.decimals:
                found[result.label] = result
        return {label: self._whole(result) for label, result in found.items()}

    def _whole(self, result: Result) -> Result:
        same = [r for r in self.results if abs(r.bpb - result.bpb) <= 0.51 * 10.0 ** -min(r.decimals, result.decimals)]
        took = max((r.seconds for r in same if r.seconds is not None), default=None)
        nats = max((r for r in same if r.loss is not None), key=lambda r: r.loss_decimals, default=None)
        if result.loss is None and nats is not None:
            result = replace(result, loss=nats.loss, loss_decimals=nats.loss_decimals)
        over = next((r for r in (result, *same) if r.tokens), result)
        return replace(result, seconds=took, tokens=over.tokens, bytes=over.bytes)
