"""The order in which windows are met. A step's *global* batch is an array of positions, the same on every rank and for
any number of ranks; a rank gathers only its own rows.

Everything follows from integers (seed, epoch, batch, and how much has been taken), so a state is a few numbers.
"""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from pgolf.data.windows import Tiling, Windows

if TYPE_CHECKING:
    from pgolf.data import CoprimeShards


class Order(ABC):
    """One epoch at a time: `take` hands out each of its windows once. `taken` says how far it is."""

    tiling: Tiling

    def __init__(self, windows: Windows):
        self.windows = windows
        self.begin(0)

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Start an epoch: cut the shards into windows and lay down their order."""

    @abstractmethod
    def take(self, count: int, batch: int) -> np.ndarray:
        """The positions of the next `count` windows of this epoch, for global batch `batch`; fewer when it ends."""

    @property
    @abstractmethod
    def taken(self) -> list[int]:
        """Windows handed out in this epoch (per shard, where an order walks them separately)."""

    @abstractmethod
    def skip(self, taken: list[int]) -> None:
        """Go on from where `taken` says, in an epoch that has just begun."""


class Listed(Order):
    """An order written out as one list of positions."""

    @abstractmethod
    def positions(self, epoch: int) -> np.ndarray:
        """All windows of an epoch, in order; sets `tiling`."""

    def begin(self, epoch: int) -> None:
        self._list, self._next = self.positions(epoch), 0

    def take(self, count: int, batch: int) -> np.ndarray:
        part = self._list[self._next : self._next + count]
        self._next += len(part)
        return part

    @property
    def taken(self) -> list[int]:
        return [self._next]

    def skip(self, taken: list[int]) -> None:
        (self._next,) = taken


class Straight(Listed):
    """Front to back (PR 606 and 639)."""

    def positions(self, epoch: int) -> np.ndarray:
        self.tiling = self.windows.tiling()
        return self.tiling.positions(np.arange(self.tiling.total))


class Shuffled(Listed):
    """A uniform permutation of all windows (PR 1852).

    There, a shard is drawn in proportion to the windows it has left and gives the next of its own permutation: each of
    the windows left is then equally likely to be next, which is what one permutation of them all does, without the draws.
    """

    def __init__(self, windows: Windows, seed: int):
        self.seed = seed
        super().__init__(windows)

    def positions(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        self.tiling = self.windows.tiling(random_phase(self.windows, rng))
        return self.tiling.positions(rng.permutation(self.tiling.total))


class Coprime(Order):
    """Every shard walked with a stride coprime to its number of windows; each batch mixes several shards (PR 1129)."""

    def __init__(self, windows: Windows, seed: int, mix: "CoprimeShards"):
        self.seed, self.mix = seed, mix
        super().__init__(windows)

    def begin(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        self.epoch = epoch
        self.tiling = self.windows.tiling(random_phase(self.windows, rng))
        self._modulus = np.maximum(self.tiling.counts, 1)
        self._start = rng.integers(self._modulus)
        self._stride = np.array([coprime_stride(int(n), rng) for n in self._modulus])
        self._taken = np.zeros_like(self.tiling.counts)

    def take(self, count: int, batch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.epoch, batch])
        left = self.tiling.counts - self._taken
        share = self._shares(min(count, int(left.sum())), left, batch, rng)
        shard = np.repeat(np.arange(len(share)), share)
        turn = np.arange(len(shard)) - np.repeat(np.cumsum(share) - share, share)
        here = self._start + self._taken * self._stride
        block = (here[shard] + turn * self._stride[shard]) % self._modulus[shard]
        self._taken += share
        return self.tiling.in_shard(shard, block)[np.argsort(turn, kind="stable")]  # shards take turns in a batch

    def _shares(self, count: int, left: np.ndarray, batch: int, rng: np.random.Generator) -> np.ndarray:
        """How many of `count` windows each shard gives, at most its `left`: one each for the drawn, the rest by weight."""
        share = np.zeros_like(left)
        if not count:
            return share
        done = min(batch / self.mix.ramp_batches, 1.0)
        wanted = round(_between(self.mix.shards_first, self.mix.shards_last, done))
        weight = left ** _between(self.mix.power_first, self.mix.power_last, done)
        chosen = weighted_draw(weight, min(wanted, count), rng)
        part = weight[chosen]
        share[chosen] = 1 + rng.multinomial(count - len(chosen), part / part.sum())
        np.minimum(share, left, out=share)
        while missing := count - int(share.sum()):  # a drawn shard ran out: the others fill in
            room = left - share
            share += np.minimum(rng.multinomial(missing, room / room.sum()), room)
        return share

    @property
    def taken(self) -> list[int]:
        return self._taken.tolist()

    def skip(self, taken: list[int]) -> None:
        self._taken[:] = taken


def _between(first: float, last: float, done: float) -> float:
    return first + (last - first) * done


def weighted_draw(weight: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `count` different indices, drawn one after another in proportion to `weight` (S,), never one of weight 0.

    As a race (Efraimidis and Spirakis 2006): i arrives at an exponential time of rate weight_i, and the first ones win.
    """
    racing = np.flatnonzero(weight)
    return racing[np.argsort(rng.standard_exponential(len(racing)) / weight[racing])[:count]]


def random_phase(windows: Windows, rng: np.random.Generator) -> np.ndarray:
    """Where the first window of each shard starts (S,): less than a window in, and no shard loses its only window."""
    highest = np.minimum(windows.sequence_length - 1, windows.usable - 1 - windows.sequence_length)
    return rng.integers(np.maximum(highest, 0) + 1)


def coprime_stride(count: int, rng: np.random.Generator) -> int:
    """A random step that meets every one of `count` places once before it returns: 5 of 12 gives 0 5 10 3 8 1 6 11 4 9 2 7."""
    stride = int(rng.integers(1, max(count, 2)))
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride


class Batches:
    """Endless global batches of positions. When an epoch ends inside a batch, the next epoch fills it."""

    def __init__(self, order: Order, batch_sequences: int):
        self.windows, self.order, self.batch_sequences = order.windows, order, batch_sequences
        self.epoch = self.batch = 0

    def next(self) -> np.ndarray:
        """The positions of the next global batch, (B,) int64."""
        parts = [self.order.take(self.batch_sequences, self.batch)]
        missing = self.batch_sequences - len(parts[0])
        while missing:
            self.epoch += 1
            self.order.begin(self.epoch)
            parts.append(self.order.take(missing, self.batch))
            missing -= len(parts[-1])
        self.batch += 1
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def gather(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The windows themselves, (n, T+1) uint16."""
        return self.windows.gather(positions, out)

    def state_dict(self) -> dict:
        """Where the loader stands: epoch, batch and what has been drawn."""
        return {"epoch": self.epoch, "batch": self.batch, "taken": self.order.taken}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a `state_dict`."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.order.begin(self.epoch)
        self.order.skip(state["taken"])
