"""The part data.loader: in which order the training text is met. Its mathematics is in `loaders`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pgolf.data.loaders import Batches
    from pgolf.data.packed import PackedRows
    from pgolf.data.windows import Windows
    from pgolf.model.pieces import Pieces


@dataclass(frozen=True, kw_only=True)
class Loader(ABC):
    """In which order the windows of the training text are met. Every window once per epoch, whatever the order."""

    @abstractmethod
    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "Batches":
        """Endless global batches of `batch_sequences` windows, the same for any number of ranks."""

    def pieces(
        self, windows: "Windows", rows: "np.ndarray", fraction: float, device: "torch.device"
    ) -> "Pieces | None":
        """The pieces of the inputs `rows` (B, T) inside which attention stays when a `fraction` of the clock is used up. None: it
        does not keep to documents."""
        return None

    def cut(self, fraction: float) -> int:
        """The longest piece when this `fraction` of the clock is used up; 0: it does not keep to documents."""
        return 0


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
    """Documents end to end in rows of data.sequence_length, front to back; attention stays inside a document.

    A document is cut into pieces of at most `cuts[i]` tokens until the fraction `until[i]` of the clock is used up, the last of
    `cuts` to the end.
    """

    cuts: tuple[int, ...]
    until: tuple[float, ...]

    def __post_init__(self) -> None:
        need(len(self.cuts) > 0 and min(self.cuts) >= 1, "data.loader.cuts", list(self.cuts), "lengths of at least 1")
        ascending = list(self.until) == sorted(set(self.until)) and all(0 < f < 1 for f in self.until)
        allowed = "one fraction fewer than data.loader.cuts, ascending between 0 and 1"
        need(ascending and len(self.until) == len(self.cuts) - 1, "data.loader.until", list(self.until), allowed)

    def build(self, windows: "Windows", batch_sequences: int, seed: int) -> "PackedRows":
        from pgolf.data.packed import PackedRows

        return PackedRows(windows, batch_sequences)

    def pieces(self, windows: "Windows", rows: "np.ndarray", fraction: float, device: "torch.device") -> "Pieces":
        from pgolf.data.packed import row_bounds
        from pgolf.model.pieces import Pieces

        cut = self.cut(fraction)
        return Pieces.of(row_bounds(rows, windows.bos, cut), min(cut, rows.shape[1]), device)

    def cut(self, fraction: float) -> int:
        """The longest piece when this `fraction` of the clock is used up."""
        return self.cuts[sum(fraction > until for until in self.until)]
