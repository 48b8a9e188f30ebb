"""What may be done after the symbols are chosen: a low-rank correction of the worst tensors, and ways to make the file as
large as it may be and no larger."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.quant.scales import StdScale

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pgolf.quant import Pack, Symmetric
    from pgolf.quant.apply import Quantized


@dataclass(frozen=True, kw_only=True)
class Correction(ABC):
    """What is stored beside the symbols, to take back some of the error that they make."""

    @abstractmethod
    def correct(self, out: "Quantized", model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> None:
        """Add the corrections to `out`, with a receipt."""


@dataclass(frozen=True, kw_only=True)
class LowRank(Correction):
    """The `tensors` with the largest relative output error get W ≈ Q + AᵀB, A and B of `rank` rows (LQER, arXiv 2402.02446)."""

    rank: int
    tensors: int
    left_bits: int
    right_bits: int

    def __post_init__(self) -> None:
        need(self.rank >= 1, "quant.low_rank.rank", self.rank, "at least 1 (4 is usual)")
        need(self.tensors >= 1, "quant.low_rank.tensors", self.tensors, "at least 1 tensor")
        for key in ("left_bits", "right_bits"):
            bits = getattr(self, key)
            need(2 <= bits <= 8, f"quant.low_rank.{key}", bits, "between 2 and 8")

    def correct(self, out: "Quantized", model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> None:
        from pgolf.quant.lowrank import correct

        correct(out, dict(model.named_parameters()), hessians, self)


@dataclass(frozen=True, kw_only=True)
class Fit(ABC):
    """Lands the file less than `within` bytes under its budget, packing at most `encodings` times."""

    within: int
    encodings: int

    def __post_init__(self) -> None:
        need(self.within >= 1, "quant.fit.within", self.within, "at least 1 byte")
        need(self.encodings >= 2, "quant.fit.encodings", self.encodings, "at least 2 (4 are usually enough)")

    @abstractmethod
    def check(self, quant: "Symmetric") -> None:
        """Raise ConfigError where `quant` has nothing that could be moved."""

    @abstractmethod
    def reach(
        self, quant: "Symmetric", model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: "Pack", budget: int
    ) -> tuple["Quantized", bytes]:
        """The best storage that fits, and its file."""


@dataclass(frozen=True, kw_only=True)
class Cap(Fit):
    """Moves the k of every StdScale by one factor, from the k of least error (the finest) to the size that fits."""

    def check(self, quant: "Symmetric") -> None:
        allowed = "used with quant.scale of the kind StdScale, whose k it moves"
        need(isinstance(quant.scale, StdScale), "quant.fit", type(self).__name__, allowed)

    def reach(
        self, quant: "Symmetric", model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: "Pack", budget: int
    ) -> tuple["Quantized", bytes]:
        from pgolf.quant.budget import fit_step

        return fit_step(quant, model, hessians, pack, budget)


@dataclass(frozen=True, kw_only=True)
class PruneToCap(Fit):
    """Sets symbols of ±1 to 0, those first that matter least to the layer's output, until the file fits."""

    def check(self, quant: "Symmetric") -> None:
        pass

    def reach(
        self, quant: "Symmetric", model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: "Pack", budget: int
    ) -> tuple["Quantized", bytes]:
        from pgolf.quant.pruning import fit_ones

        return fit_ones(quant, model, hessians, pack, budget)
