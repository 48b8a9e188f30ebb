"""Documents packed end to end into rows: the training text as a ring of tokens, cut into rows of T without regard to documents,
and the boundaries inside which attention stays.

Source: the varlen training of parameter-golf pull requests 1530 and 1855. There each rank takes T + 1 tokens of its own, so
that a target is lost at every row's end, and what is left of a shard is skipped; here rows share that token and run over from
a shard to the next, and from the end of the text to its beginning: every token is once an input and once a target per epoch.
"""

from collections.abc import Callable

import numpy as np

from pgolf.data.windows import Windows
from pgolf.schedule import Progress

ENTRIES = 64  # boundaries are padded to a multiple of so many, so that few shapes occur


class PackedRows:
    """Endless global batches of sequences, in the order of the text. A sequence is named by where it starts in the ring of the N
    usable tokens: sequence k at k·T mod N."""

    def __init__(self, windows: Windows, batch_sequences: int):
        self.windows, self.batch_sequences = windows, batch_sequences
        self.batch = 0
        self._ends = np.cumsum(windows.usable)

    @property
    def _ring(self) -> int:
        return int(self._ends[-1])

    @property
    def epoch(self) -> int:
        """How often the text has been read to its end."""
        return self.batch * self.batch_sequences * self.windows.sequence_length // self._ring

    def next(self) -> np.ndarray:
        """Where the sequences of the next global batch start, (B,) int64."""
        sequences = self.batch * self.batch_sequences + np.arange(self.batch_sequences)
        self.batch += 1
        return self.numbers(sequences) * self.windows.sequence_length % self._ring

    def numbers(self, sequences: np.ndarray) -> np.ndarray:
        """The numbers k of the sequences that are met as the n-th ones, (B,) int64: n itself."""
        return sequences

    def gather(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The rows at `positions` (n,), as (n, T+1) uint16: T inputs and the token after them."""
        width = self.windows.sequence_length + 1
        out = np.empty((len(positions), width), np.uint16) if out is None else out
        for row, position in zip(out, positions.tolist(), strict=True):
            self._fill(row, position)
        return out

    def _fill(self, row: np.ndarray, position: int) -> None:
        filled = 0
        while filled < len(row):
            shard = int(np.searchsorted(self._ends, position, side="right"))
            start = position - int(self._ends[shard] - self.windows.usable[shard])
            part = self.windows.read(shard, start, min(len(row) - filled, int(self.windows.usable[shard]) - start))
            row[filled : filled + len(part)] = part
            filled += len(part)
            position = (position + len(part)) % self._ring

    def state_dict(self) -> dict:
        """Where the loader stands: epoch and batch."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a `state_dict`."""
        self.batch = state["batch"]


class ShuffledRows(PackedRows):
    """The same with whole rows, of `row_sequences` sequences each, in a permutation that is drawn anew every ⌊N / row⌋ rows."""

    def __init__(self, windows: Windows, batch_sequences: int, row_sequences: int, seed: int):
        super().__init__(windows, batch_sequences)
        self.row_sequences, self.seed = row_sequences, seed
        self.rows = max(1, self._ring // (row_sequences * windows.sequence_length))
        self.drawn: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # the last permutation, and of which round

    def numbers(self, sequences: np.ndarray) -> np.ndarray:
        rows, inside = np.divmod(sequences, self.row_sequences)
        rounds, turns = np.divmod(rows, self.rows)
        placed = np.array([self._permutation(r)[t] for r, t in zip(rounds.tolist(), turns.tolist(), strict=True)])
        return (rounds * self.rows + placed) * self.row_sequences + inside

    def _permutation(self, number: int) -> np.ndarray:
        if self.drawn[0] != number:
            self.drawn = number, np.random.default_rng([self.seed, number]).permutation(self.rows)
        return self.drawn[1]


class Rewarm:
    """min((step − change + 1) / steps, 1) from the step on at which pieces last changed their length (pull request 2014); 1
    before the first change. Asked before every step in turn.

    With `steps` 4 and a change at step 10: .25 at step 10, .5 at 11, 1 from 13 on.
    """

    def __init__(self, cut: Callable[[float], int], steps: int):
        self.cut, self.steps = cut, steps
        self.last, self.changed = None, -steps

    def __call__(self, progress: Progress) -> float:
        cut = self.cut(progress.fraction)
        if self.last not in (None, cut):
            self.changed = progress.step
        self.last = cut
        return min((progress.step - self.changed + 1) / self.steps, 1.0) if self.steps else 1.0


def piece_bounds(bos: np.ndarray, total: int, cut: int) -> np.ndarray:
    """Where pieces of a stretch of `total` tokens begin, and its end: at 0, at each position in `bos` (ascending), and every
    `cut` tokens after a document's start (0: not cut). Attention stays inside a piece. int32.

    >>> piece_bounds(np.array([0, 5, 19]), 40, 8).tolist()
    [0, 5, 13, 19, 27, 35, 40]
    """
    edges = np.unique(np.concatenate([[0], bos, [total]])).astype(np.int32)
    if not cut:
        return edges
    pieces = -(-np.diff(edges) // cut)
    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.append(np.repeat(edges[:-1], pieces) + nth * cut, total).astype(np.int32)


def padded(bounds: np.ndarray, multiple: int = ENTRIES) -> np.ndarray:
    """`bounds` with its last entry repeated up to a multiple of entries: pieces of no tokens."""
    return np.pad(bounds, (0, -len(bounds) % multiple), mode="edge")


def row_bounds(rows: np.ndarray, bos: int, cut: int) -> np.ndarray:
    """The bounds of pieces in rows (B, T) laid end to end, padded: a row's start is one too. int32, a multiple of ENTRIES."""
    length = rows.shape[1]
    starts = np.union1d(np.flatnonzero(rows == bos), np.arange(0, rows.size, length))
    return padded(piece_bounds(starts, rows.size, cut))
