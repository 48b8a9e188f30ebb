"""The part data.loader: in which order the training text is met. Its mathematics is in `loaders`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pgolf.errors import need
from pgolf.files.frozen import added

if TYPE_CHECKING:
    from torch import Tensor

    from pgolf.data.loaders import Batches
    from pgolf.data.packed import PackedRows, Rewarm
    from pgolf.data.windows import Windows
    from pgolf.model.pieces import Pieces
    from pgolf.schedule import Progress


@dataclass(frozen=True, kw_only=True)
class Loader(ABC):
    """In which order the windows of the training text are met. Every window once per epoch, whatever the order."""

    @abstractmethod
    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "Batches":
        """Endless global batches of `batch_sequences` windows, the same for any number of ranks."""

    def micro_batch(
        self, windows: "Windows", rows: "Tensor", ids: "Tensor", fraction: float
    ) -> "tuple[Tensor, Tensor, Pieces | None]":
        """Inputs and targets, each (B, T), of the windows `rows` (B, T+1) uint16, which are `ids` on the device; and the pieces
        inside which attention stays when a `fraction` of the clock is used up. None: it does not keep to documents."""
        return ids[:, :-1], ids[:, 1:], None

    row_sequences: ClassVar[int] = 1  # sequences that make a row, which no micro-batch may divide

    def cut(self, fraction: float) -> int:
        """The longest piece when this `fraction` of the clock is used up; 0 where it does not keep to documents."""
        return 0

    def rewarm(self) -> "Callable[[Progress], float]":
        """What learning rates are multiplied by besides the schedule, asked before every step in turn."""
        return lambda progress: 1.0


@dataclass(frozen=True, kw_only=True)
class InOrder(Loader):
    """Front to back, again and again."""

    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "Batches":
        from pgolf.data.loaders import Batches, Straight

        return Batches(Straight(windows), batch_sequences)


@dataclass(frozen=True, kw_only=True)
class ShuffledWindows(Loader):
    """A fresh permutation of all windows for every epoch, each shard cut from a random phase."""

    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "Batches":
        from pgolf.data.loaders import Batches, Shuffled

        return Batches(Shuffled(windows, seed), batch_sequences)


@dataclass(frozen=True, kw_only=True)
class CoprimeShards(Loader):
    """Each shard walked with a stride coprime to its number of windows; a batch mixes several shards.

    Over the first `ramp_batches` batches the shards in a batch go from `shards_first` to `shards_last`, and the weight of
    a shard from (windows it has left)^`power_first` to the power `power_last`.
    """

    shards_first: int
    shards_last: int
    power_first: float
    power_last: float
    ramp_batches: int

    def __post_init__(self) -> None:
        need(self.shards_first >= 1, "data.loader.shards_first", self.shards_first, "at least 1")
        need(self.shards_last >= 1, "data.loader.shards_last", self.shards_last, "at least 1")
        need(0 < self.power_first <= 4, "data.loader.power_first", self.power_first, "above 0 and at most 4")
        need(0 < self.power_last <= 4, "data.loader.power_last", self.power_last, "above 0 and at most 4")
        need(self.ramp_batches >= 1, "data.loader.ramp_batches", self.ramp_batches, "at least 1")

    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "Batches":
        from pgolf.data.loaders import Batches, Coprime

        return Batches(Coprime(windows, seed, self), batch_sequences)


@dataclass(frozen=True, kw_only=True)
class PackedDocuments(Loader):
    """Documents end to end, in rows of `row_sequences` sequences; attention stays inside a document and a row, and positions run
    on through a micro-batch. Rows are met front to back or, `shuffled`, in a permutation drawn anew for every epoch: a step of
    few tokens would read one document, and the next step the rest of it.

    A document is cut into pieces of at most `cuts[i]` tokens until the fraction `until[i]` of the clock is used up, the last of
    `cuts` to the end. After each change the learning rates rise again, over `rewarm_steps` steps (0: they do not fall).
    """

    cuts: tuple[int, ...]
    until: tuple[float, ...]
    rewarm_steps: int = added(0)
    row_sequences: int = added(1)
    shuffled: bool = added(False)

    def __post_init__(self) -> None:
        need(len(self.cuts) > 0 and min(self.cuts) >= 1, "data.loader.cuts", list(self.cuts), "lengths of at least 1")
        ascending = list(self.until) == sorted(set(self.until)) and all(0 < f < 1 for f in self.until)
        allowed = "one fraction fewer than data.loader.cuts, ascending between 0 and 1"
        need(ascending and len(self.until) == len(self.cuts) - 1, "data.loader.until", list(self.until), allowed)
        need(self.row_sequences >= 1, "data.loader.row_sequences", self.row_sequences, "at least 1")
        need(self.rewarm_steps >= 0, "data.loader.rewarm_steps", self.rewarm_steps, "at least 0 (32 are usual)")

    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "PackedRows":
        from pgolf.data.packed import PackedRows, ShuffledRows

        if self.shuffled:
            return ShuffledRows(windows, batch_sequences, self.row_sequences, seed)
        return PackedRows(windows, batch_sequences)

    def micro_batch(
        self, windows: "Windows", rows: "Tensor", ids: "Tensor", fraction: float
    ) -> "tuple[Tensor, Tensor, Pieces]":
        from pgolf.data.packed import row_bounds
        from pgolf.model.pieces import Pieces

        assert len(rows) % self.row_sequences == 0, f"{len(rows)} sequences in rows of {self.row_sequences}"
        cut, length = self.cut(fraction), ids.shape[1] - 1
        bounds = row_bounds(rows[:, :-1].reshape(-1, length * self.row_sequences).numpy(), windows.bos, cut)
        inside = Pieces.of(bounds, min(cut, length * self.row_sequences), ids.device)
        return ids[:, :-1].reshape(1, -1), ids[:, 1:].reshape(1, -1), inside

    def rewarm(self) -> "Rewarm":
        from pgolf.data.packed import Rewarm

        return Rewarm(self.cut, self.rewarm_steps)

    def cut(self, fraction: float) -> int:
        return self.cuts[sum(fraction > until for until in self.until)]
