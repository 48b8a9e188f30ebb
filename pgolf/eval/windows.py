"""Which windows of the text score which targets, in closed form: no list of windows is ever made.

Target t is token t + 1 seen from tokens up to t. Window k starts at token k * stride; the first scores all its targets, every
later one those past `context - stride`, so consecutive windows score consecutive ranges and each target falls in exactly one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.machine.share import share

if TYPE_CHECKING:
    from torch import Tensor

Span = tuple[int, int]  # targets [first, end)


class Batch(ABC):
    """Windows of one `length` that are scored together, each at its `last` positions."""

    rows: int
    last: int
    length: int

    @abstractmethod
    def spans(self) -> list[Span]:
        """The targets it scores."""

    @abstractmethod
    def scored(self, nll_BS: "Tensor") -> "Tensor":
        """The scores of those targets, in the order of `spans`: (B, last) without what lies past the text."""


class Plan(ABC):
    """How a text of `targets` targets is scored, chunk after chunk. Chunks share no target, and together hold all."""

    targets: int
    chunks: int
    one_shape: bool  # whether all batches but the first, and the last of a chunk, have the same shape

    @abstractmethod
    def spans(self, chunk: int) -> list[Span]:
        """The targets of a chunk."""

    @abstractmethod
    def seen_from(self, chunk: int) -> list[int]:
        """The first token that predictions of each span of a chunk may see."""

    @abstractmethod
    def batches(self, chunk: int, rank: int, size: int, batch_windows: int) -> Iterator[Batch]:
        """This rank's share of a chunk."""

    @abstractmethod
    def windows(self, tokens: "Tensor", batch: Batch) -> "Tensor":
        """Inputs and one target more of a batch, (B, T + 1) int64, from the tokens of the text and its padding."""


@dataclass(frozen=True)
class SlidingBatch(Batch):
    """Windows [lo, hi), each scoring its `last` positions: together the targets [first, end), in order."""

    lo: int
    hi: int
    last: int
    first: int
    end: int
    length: int

    @property
    def rows(self) -> int:
        """Number of windows."""
        return self.hi - self.lo

    def spans(self) -> list[Span]:
        return [(self.first, self.end)]

    def scored(self, nll_BS: "Tensor") -> "Tensor":
        # Only the text's last window can be cut short, so the real targets are the head of the flattened scores.
        return nll_BS.reshape(-1)[: self.end - self.first]


@dataclass(frozen=True)
class SlidingPlan(Plan):
    """`targets` scored by windows of `context` tokens every `stride`, handed out in chunks of `chunk` targets.

    Ten targets, context 4, stride 2: windows score [0, 4), [4, 6), [6, 8), [8, 10). With chunks of 5, chunk 0 holds the first
    two (both begin before target 5) and chunk 1 the rest."""

    targets: int
    context: int
    stride: int
    chunk: int
    one_shape = True

    @property
    def count(self) -> int:
        """How many windows there are."""
        return 1 + max(0, _ceil(self.targets - self.context, self.stride))

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return _ceil(self.targets, self.chunk)

    def first(self, window: int) -> int:
        """The first target that `window` scores; for `window == count`, the end of the text."""
        return 0 if window == 0 else min(self.context + (window - 1) * self.stride, self.targets)

    def begun_before(self, target: int) -> int:
        """How many windows score their first target before `target`."""
        if target <= 0:
            return 0
        return min(self.count, 1 + max(0, _ceil(target - self.context, self.stride)))

    def windows_of(self, chunk: int) -> tuple[int, int]:
        """Windows [lo, hi) of `chunk`: those whose first scored target lies in it."""
        return self.begun_before(chunk * self.chunk), self.begun_before((chunk + 1) * self.chunk)

    def spans(self, chunk: int) -> list[Span]:
        """One span, which may run past the chunk by less than a window."""
        lo, hi = self.windows_of(chunk)
        return [(self.first(lo), self.first(hi))]

    def seen_from(self, chunk: int) -> list[int]:
        return [0]

    def windows(self, tokens: "Tensor", batch: SlidingBatch) -> "Tensor":
        """One strided gather, widened on the device."""
        size = (batch.rows, self.context + 1)
        return tokens.as_strided(size, (self.stride, 1), batch.lo * self.stride).long()

    def batches(self, chunk: int, rank: int, size: int, batch_windows: int) -> Iterator[SlidingBatch]:
        """This rank's contiguous share of the chunk, `batch_windows` at a time; the last batch is the shorter one."""
        lo, hi = share(*self.windows_of(chunk), rank, size)
        if lo == 0 < hi:  # the first window scores all its positions, so it cannot share a batch with those that do not
            alone = 1 if self.stride < self.context else min(hi, batch_windows)
            yield self._batch(0, alone, self.context)
            lo = alone
        for at in range(lo, hi, batch_windows):
            yield self._batch(at, min(at + batch_windows, hi), self.stride)

    def _batch(self, lo: int, hi: int, last: int) -> SlidingBatch:
        return SlidingBatch(lo, hi, last, self.first(lo), self.first(hi), self.context)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
