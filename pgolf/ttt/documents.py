"""The order of a document-by-document evaluation: several documents side by side, a chunk of each at a time.

A document's windows begin at its first token or later, so nothing before it reaches its scores; and a document's chunks come
in its own order. Documents of like length are put together, so that few wait for the longest."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from pgolf.eval.text import Outline, gather_rows
from pgolf.eval.windows import Batch, Plan, Span


@dataclass(frozen=True, eq=False)
class DocumentBatch(Batch):
    """Row i scores targets [firsts[i], ends[i]), the head of its last `last` positions, through a window of `length`."""

    firsts: np.ndarray
    ends: np.ndarray
    length: int
    last: int

    @property
    def rows(self) -> int:
        """Number of windows."""
        return len(self.firsts)

    @property
    def starts(self) -> np.ndarray:
        """The first token of each window."""
        return self.firsts + self.last - self.length

    def spans(self) -> list[Span]:
        return list(zip(self.firsts.tolist(), self.ends.tolist(), strict=True))

    def scored(self, nll_BS: Tensor) -> Tensor:
        real = np.arange(self.last) < (self.ends - self.firsts)[:, None]
        return nll_BS.reshape(-1)[real.reshape(-1).nonzero()[0]]


@dataclass(frozen=True, eq=False)
class DocumentPlan(Plan):
    """Documents by falling length: `starts` and how many `targets_in` each has. Chunk i is round r of a group of `side`
    documents: of each that is long enough, targets [r · chunk, (r + 1) · chunk).

    Documents of 5, 3 and 2 targets, two side by side, chunks of 2: rounds of the first group score 2 + 2, 2 + 1 and 1
    targets, the second group's only round 2."""

    starts: np.ndarray
    targets_in: np.ndarray
    context: int
    chunk: int
    side: int
    one_shape = False

    @property
    def targets(self) -> int:
        """Targets of all documents."""
        return int(self.targets_in.sum())

    @cached_property
    def rounds_before(self) -> list[int]:
        """Rounds before each group, and all of them."""
        rounds = -(-self.targets_in[:: self.side] // self.chunk)
        return [0, *np.cumsum(rounds).tolist()]

    @property
    def chunks(self) -> int:
        """Number of chunks, all groups together."""
        return self.rounds_before[-1]

    def place(self, chunk: int) -> tuple[int, int]:
        """(group, round) of a chunk."""
        group = bisect_right(self.rounds_before, chunk) - 1
        return group, chunk - self.rounds_before[group]

    def ends_group(self, chunk: int) -> bool:
        """Whether the documents of a group end with this chunk."""
        return chunk + 1 in self.rounds_before

    def rows(self, chunk: int, rank: int = 0, size: int = 1, left: int = 0) -> DocumentBatch:
        """This rank's documents of the chunk that have more than `left` targets after it (or, for 0, any in it)."""
        group, turn = self.place(chunk)
        mine = slice(group * self.side, (group + 1) * self.side)
        starts, lengths = self.starts[mine][rank::size], self.targets_in[mine][rank::size]
        done = turn * self.chunk
        alive = lengths > done + left
        firsts, ends = starts[alive] + done, starts[alive] + np.minimum(lengths[alive], done + self.chunk)
        return DocumentBatch(firsts, ends, min(self.context, done + self.chunk), self.chunk)

    def spans(self, chunk: int) -> list[Span]:
        return self.rows(chunk).spans()

    def batches(self, chunk: int, rank: int, size: int, batch_windows: int) -> Iterator[DocumentBatch]:
        """One batch: the adapters of the rank's documents work together, however many windows `eval` would take at once."""
        batch = self.rows(chunk, rank, size)
        if batch.rows:
            yield batch

    def windows(self, tokens: Tensor, batch: DocumentBatch) -> Tensor:
        return gather_rows(tokens, batch.starts, batch.ends, batch.length)


def document_plan(text: Outline, context: int, chunk: int, side: int) -> DocumentPlan:
    """The plan of `text`, each document holding the targets from its first token to the token that opens the next."""
    starts = text.document_starts
    lengths = np.diff([*starts, text.targets])
    order = np.argsort(-lengths, kind="stable")
    return DocumentPlan(starts[order], lengths[order], context, chunk, side)
