"""The training text as windows: T inputs and the token after them, named by where they start in the whole text.

A *position* is the index of a window's first token in the concatenation of all shards; int64, so that a batch is one
small array. No window crosses a shard's end or enters the held-out slice.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pgolf.data.shards import open_shard
from pgolf.errors import UserError

if TYPE_CHECKING:
    from pgolf.data.corpus import TrainingText


class Windows:
    """Memory-mapped shards of a TrainingText. `usable` (S,) tokens of each shard come before the held-out slice."""

    def __init__(self, text: "TrainingText", shards: Sequence[np.ndarray]):
        self.sequence_length, self._dev_tokens, self._shards = text.sequence_length, text.dev_tokens, shards
        self._text = text
        self.usable = np.array(text.usable, np.int64)
        self.base = np.concatenate([[0], np.cumsum(text.counts)]).astype(np.int64)

    @classmethod
    def open(cls, text: "TrainingText") -> "Windows":
        """Map the files. Raises UserError for one that is not as it was when the corpus was prepared."""
        shards = [open_shard(path) for path in text.paths]
        for path, shard, stated in zip(text.paths, shards, text.counts, strict=True):
            if len(shard) != stated:
                raise UserError(f"shard {path}: {len(shard):,} tokens, the manifest says {stated:,}")
        return cls(text, shards)

    @cached_property
    def bos(self) -> int:
        """The token that begins a document."""
        from pgolf.data.bytes import load_tokenizer

        return load_tokenizer(self._text.tokenizer).bos_id()

    def tiling(self, phase: np.ndarray | int = 0) -> "Tiling":
        """The windows of every shard, one after another from `phase` tokens in."""
        return Tiling(self, np.broadcast_to(phase, self.usable.shape))

    def gather(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The windows at `positions` (n,), as (n, T+1) uint16. A copy per row beats one index of n × (T+1) numbers."""
        width = self.sequence_length + 1
        out = np.empty((len(positions), width), np.uint16) if out is None else out
        shard = np.searchsorted(self.base, positions, side="right") - 1
        offsets = (positions - self.base[shard]).tolist()
        shards = self._shards
        for row, s, offset in zip(out, shard.tolist(), offsets, strict=True):
            row[:] = shards[s][offset : offset + width]
        return out

    def read(self, shard: int, start: int, count: int) -> np.ndarray:
        """`count` tokens of one shard from `start`, uint16."""
        return self._shards[shard][start : start + count]

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Positions (n,) of `count` different windows drawn at random, or of all of them when there are fewer."""
        tiling = self.tiling()
        return tiling.positions(rng.choice(tiling.total, min(count, tiling.total), replace=False))

    def dev(self) -> np.ndarray:
        """The held-out last tokens of the text, (dev_tokens,) uint16."""
        parts, missing = [], self._dev_tokens
        for shard in reversed(self._shards):
            if missing:
                parts.insert(0, shard[-missing:])
                missing -= len(parts[0])
        return np.concatenate(parts)


class Tiling:
    """Windows side by side in each shard, shard s from `phase[s]` on. Window ids run over all shards in order."""

    def __init__(self, windows: Windows, phase: np.ndarray):
        length = windows.sequence_length
        self.counts = np.maximum((windows.usable - 1 - phase) // length, 0)
        self.first = np.concatenate([[0], np.cumsum(self.counts)])
        self.total = int(self.first[-1])
        self.dropped = int((windows.usable - self.counts * length - (self.counts > 0)).sum())
        self._start, self._length = windows.base[:-1] + phase, length

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Where the windows `ids` start. Window i of shard s: base + phase + (i − first) · T."""
        shard = np.searchsorted(self.first, ids, side="right") - 1
        return self.in_shard(shard, ids - self.first[shard])

    def in_shard(self, shard: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Where the `block`-th window of each `shard` starts."""
        return self._start[shard] + block * self._length
