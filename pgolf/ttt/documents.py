"""The order of a document-by-document evaluation: several documents side by side, a chunk of each at a time.

A document's windows begin at its first token or later, so nothing before it reaches its scores; and a document's chunks come
in its own order. Documents of like length are put together, so that few wait for the longest."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from pgolf.eval.outline import Outline
from pgolf.eval.text import gather_rows
from pgolf.eval.windows import Batch, Plan, Span


@dataclass(frozen=True, eq=False)
class DocumentBatch(Batch):
    """Row i scores targets [firsts[i], ends[i]) through a window of `length` from token `starts[i]`: of its last `last` positions
    those after the first `passed[i]`."""

    firsts: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    length: int
    last: int

    @property
    def rows(self) -> int:
        """How many documents."""
        return len(self.firsts)

    @property
    def passed(self) -> np.ndarray:
        """Positions of each row's last `last` that stand before its first target."""
        return self.firsts - self.starts - (self.length - self.last)

    def spans(self) -> list[Span]:
        return list(zip(self.firsts.tolist(), self.ends.tolist(), strict=True))

    def scored(self, nll_BS: Tensor) -> Tensor:
        place = np.arange(self.last) - self.passed[:, None]
        real = (place >= 0) & (place < (self.ends - self.firsts)[:, None])
        return nll_BS.reshape(-1)[real.reshape(-1).nonzero()[0]]


@dataclass(frozen=True, eq=False)
class DocumentPlan(Plan):
    """Documents by falling length: `starts` and how many `targets_in` each has. Chunk i is round r of a group of `side`
    documents: of each that is long enough, targets [r · c, (r + 1) · c). A document's place in its group is its slot.

    Groups are cut from the shortest document; what remains, of the longest, is the first group. c is the chunk of the first row
    of `short` (tokens, chunk) that holds the group's longest document with its closing token, else `chunk`.

    Documents of 5, 3 and 2 targets, two side by side, chunks of 2: the first group's rounds score 2, 2 and 1 targets, the
    second's 2 + 2 and 1."""

    starts: np.ndarray
    targets_in: np.ndarray
    context: int
    chunk: int
    side: int
    short: tuple[tuple[int, int], ...] = ()
    one_shape = False

    @property
    def targets(self) -> int:
        """Targets of all documents."""
        return int(self.targets_in.sum())

    @cached_property
    def edges(self) -> list[int]:
        """The first document of each group, and the number of documents."""
        n = len(self.starts)
        return [0, *range(n % self.side or self.side, n + 1, self.side)]

    @cached_property
    def chunk_of(self) -> list[int]:
        """Targets of a document in one round of each group."""
        longest = self.targets_in[self.edges[:-1]] + 1
        return [next((c for tokens, c in self.short if n <= tokens), self.chunk) for n in longest]

    @cached_property
    def rounds_before(self) -> list[int]:
        """Rounds before each group, and all of them."""
        rounds = -(-self.targets_in[self.edges[:-1]] // self.chunk_of)
        return [0, *np.cumsum(rounds).tolist()]

    @property
    def chunks(self) -> int:
        """Number of chunks, all groups together."""
        return self.rounds_before[-1]

    @property
    def slots(self) -> int:
        """Documents of the largest group."""
        return min(self.side, len(self.starts))

    def place(self, chunk: int) -> tuple[int, int]:
        """(group, round) of a chunk."""
        group = bisect_right(self.rounds_before, chunk) - 1
        return group, chunk - self.rounds_before[group]

    def ends_group(self, chunk: int) -> bool:
        """Whether the documents of a group end with this chunk."""
        return chunk + 1 in self.rounds_before

    def rows(self, chunk: int, rank: int = 0, size: int = 1, goes_on: bool = False) -> DocumentBatch:
        """This rank's documents in the chunk, by slot; those only that have targets after it where it `goes_on`."""
        group, turn = self.place(chunk)
        mine, c = slice(*self.edges[group : group + 2]), self.chunk_of[group]
        starts, lengths = self.starts[mine][rank::size], self.targets_in[mine][rank::size]
        done = turn * c
        alive = lengths > done + c * goes_on
        starts, end = starts[alive], np.minimum(lengths[alive], done + c)
        seen_from = np.maximum(end - self.context, 0)  # the window of a document's last chunk ends with the document
        return DocumentBatch(starts + done, starts + end, starts + seen_from, min(self.context, done + c), c)

    def spans(self, chunk: int) -> list[Span]:
        return self.rows(chunk).spans()

    def seen_from(self, chunk: int) -> list[int]:
        group, turn = self.place(chunk)
        return [first - turn * self.chunk_of[group] for first, _ in self.spans(chunk)]

    def batches(self, chunk: int, rank: int, size: int, batch_windows: int) -> Iterator[DocumentBatch]:
        """One batch: the adapters of the rank's documents work together, however many windows `eval` would take at once."""
        batch = self.rows(chunk, rank, size)
        if batch.rows:
            yield batch

    def windows(self, tokens: Tensor, batch: DocumentBatch) -> Tensor:
        return gather_rows(tokens, batch.starts, batch.ends, batch.length)


def document_plan(
    text: Outline, context: int, chunk: int, side: int, short: tuple[tuple[int, int], ...] = ()
) -> DocumentPlan:
    """The plan of `text`, each document holding the targets from its first token to the token that opens the next.

    Of two of equal length the later one comes first."""
    lengths = text.targets_in
    order = np.argsort(lengths, kind="stable")[::-1]
    return DocumentPlan(text.document_starts[order], lengths[order], context, chunk, side, short)
