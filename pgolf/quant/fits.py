"""What may be done after the symbols are chosen: a low-rank correction of the worst tensors, and ways to make the file as
large as it may be and no larger."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import ConfigError, need
from pgolf.quant import estimate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pgolf.quant import Pack, Symmetric
    from pgolf.quant.apply import Quantized
    from pgolf.quant.sections import Sections

    Fitted = Symmetric | Sections

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Correction(ABC):
    """A product of two thin matrices that takes back some of the error of the `tensors` worst tensors."""

    rank: int
    tensors: int

    def __post_init__(self) -> None:
        need(self.rank >= 1, "quant.low_rank.rank", self.rank, "at least 1 (4 is usual)")
        need(self.tensors >= 1, "quant.low_rank.tensors", self.tensors, "at least 1 tensor")

    def check_shapes(self, matrices: Shapes) -> None:
        """Raise ConfigError where one of the quantised `matrices` has not so many rows and columns."""
        for name, shape in matrices.items():
            rows, columns = shape[0], estimate.columns(shape)
            allowed = f"at most the rows and columns of every quantised matrix ({name} has {rows} × {columns})"
            need(self.rank <= min(rows, columns), "quant.low_rank.rank", self.rank, allowed)

    def estimates(self, matrices: Shapes) -> list[float]:
        """Bytes of each correction, if the largest matrices get them."""
        largest = sorted(matrices.values(), key=estimate.elements)[-self.tensors :]
        return [self._bytes(shape[0], estimate.columns(shape)) for shape in largest]

    @abstractmethod
    def _bytes(self, rows: int, columns: int) -> float:
        """Of one correction."""

    @abstractmethod
    def correct(self, out: "Quantized", model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> None:
        """Add the corrections to `out`, with a receipt."""


@dataclass(frozen=True, kw_only=True)
class LowRank(Correction):
    """The `tensors` with the largest relative output error get W ≈ Q + AᵀB, A and B of `rank` rows (LQER, arXiv 2402.02446)."""

    left_bits: int
    right_bits: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("left_bits", "right_bits"):
            bits = getattr(self, key)
            need(2 <= bits <= 8, f"quant.low_rank.{key}", bits, "between 2 and 8")

    def _bytes(self, rows: int, columns: int) -> float:
        return self.rank * (rows * self.left_bits / 8 + columns * self.right_bits / 8 + 4)

    def correct(self, out: "Quantized", model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> None:
        from pgolf.quant.lowrank import correct

        correct(out, dict(model.named_parameters()), hessians, self)


@dataclass(frozen=True, kw_only=True)
class LqerPr1797(Correction):
    """The `tensors` with the largest ‖W − Ŵ‖_F get Ŵ + A B, A in two bits and one step, B in four bits and a step for
    every `group` of its values (parameter-golf pull request 1797). The inputs weigh nothing here, as in `LowRank` they do."""

    group: int

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.group >= 1, "quant.low_rank.group", self.group, "at least 1 value (64 is usual)")

    def check_shapes(self, matrices: Shapes) -> None:
        super().check_shapes(matrices)
        for name, shape in matrices.items():
            values = self.rank * estimate.columns(shape)
            allowed = f"a divisor of quant.low_rank.rank × columns of every quantised matrix ({values} of {name})"
            need(values % self.group == 0, "quant.low_rank.group", self.group, allowed)

    def _bytes(self, rows: int, columns: int) -> float:
        return self.rank * (rows * 2 / 8 + columns * (4 / 8 + 2 / self.group))

    def correct(self, out: "Quantized", model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> None:
        from pgolf.quant.lqer import correct

        correct(out, dict(model.named_parameters()), hessians, self)


@dataclass(frozen=True, kw_only=True)
class Fit(ABC):
    """A size to fill. The file lands less than `within` bytes under its budget, after at most `encodings` packings."""

    within: int
    encodings: int

    def __post_init__(self) -> None:
        need(self.within >= 1, "quant.fit.within", self.within, "at least 1 byte")
        need(self.encodings >= 2, "quant.fit.encodings", self.encodings, "at least 2 (4 are usually enough)")

    @abstractmethod
    def check(self, quant: "Fitted") -> None:
        """Raise ConfigError where `quant` has nothing that could be moved."""

    @abstractmethod
    def most_bytes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> int:
        """Predicted size of the file where the budget sets no limit, from names and shapes alone."""

    @abstractmethod
    def least_bytes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> int:
        """Predicted size of the smallest file that there can be."""

    def check_shapes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str], budget: int) -> None:
        """Raise ConfigError, with what stands in the way, where not even the smallest file has at most `budget` bytes."""
        least = self.least_bytes(quant, shapes, sections)
        if least <= budget:
            return
        allowed = (
            f"cannot make the file fit: about {least:,} bytes are the least that it can reach, and {budget:,} are there"
            f" (limits.artifact_bytes without the code).{kept(quant, shapes, sections)}"
            f" {self._advice(quant, shapes, sections, budget)}"
        )
        raise ConfigError("quant.fit", type(self).__name__, allowed)

    def _advice(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str], budget: int) -> str:
        """The largest smaller `keep_below`, a power of 4, with which there is a way; or that there is none."""
        lower = [4**n for n in range(8, 0, -1) if 4**n < quant.keep_below]
        ways = (n for n in lower if self.least_bytes(replace(quant, keep_below=n), shapes, sections) <= budget)
        found = next(ways, None)
        return f"quant.keep_below={found} would fit." if found else "Only a smaller model or a higher cap would fit."

    @abstractmethod
    def foreseen(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str], budget: int) -> str:
        """What filling `budget` bytes will come to, in words, from names and shapes alone."""

    @abstractmethod
    def reach(
        self, quant: "Fitted", model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: "Pack", budget: int
    ) -> tuple["Quantized", bytes]:
        """The best storage that fits, and its file."""


def kept(quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> str:
    """A sentence on the matrices that `quant.keep_below` leaves at fp16, after a space; nothing where there are none."""
    plan = quant.plan(shapes, sections)
    halves = [tuple(shape) for name, shape in shapes.items() if plan[name] == 16 and sections[name] != "control"]
    held = sum(estimate.float_bytes(shape, 16) for shape in halves)
    return (
        f" quant.keep_below={quant.keep_below} keeps {len(halves)} tensors at fp16, {held:,.0f} bytes."
        if halves
        else ""
    )


@dataclass(frozen=True, kw_only=True)
class Cap(Fit):
    """Moves every k by one factor, from the k of least error (the finest) to the size that fits."""

    def check(self, quant: "Fitted") -> None:
        allowed = "used with quant.scale of the kind StdScale, whose k it moves"
        need(len(quant.steered) > 0, "quant.fit", type(self).__name__, allowed)

    def most_bytes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> int:
        """By steps of least error for Gaussian rows of the model's usual length."""
        k, c = quant.steered[0]
        usual = max((estimate.columns(tuple(s)) for s in shapes.values() if len(s) > 1), default=1)
        finest = min(estimate.CLIPS, key=lambda clip: estimate.clip_error(clip, c, usual))
        return quant.coarser(finest / k).estimate_bytes(shapes, sections)

    def least_bytes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> int:
        return quant.coarser(estimate.coarsest(quant.steered)).estimate_bytes(shapes, sections)

    def foreseen(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str], budget: int) -> str:
        low, high = 1 / min(k for k, _ in quant.steered), estimate.coarsest(quant.steered)
        for _ in range(12):
            middle = (low + high) / 2
            fits = quant.coarser(middle).estimate_bytes(shapes, sections) <= budget
            low, high = (low, middle) if fits else (middle, high)
        sigmas = max(high * k / c for k, c in quant.steered)
        what, _ = quant.coarser(high).told_steps()
        coarse = (
            f"; steps of {sigmas:.1f} standard deviations lose much.{kept(quant, shapes, sections)}"
            if sigmas > 1
            else ""
        )
        return f"{what}, the least {quant.coarser(high).steered[0][0]:.3g}{coarse}"

    def reach(
        self, quant: "Fitted", model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: "Pack", budget: int
    ) -> tuple["Quantized", bytes]:
        from pgolf.quant.budget import fit_step

        return fit_step(quant, model, hessians, pack, budget)


@dataclass(frozen=True, kw_only=True)
class PruneToCap(Fit):
    """Sets symbols of ±1 to 0, those first that matter least to the layer's output, until the file fits."""

    def check(self, quant: "Fitted") -> None:
        pass

    def most_bytes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> int:
        return quant.estimate_bytes(shapes, sections)

    def least_bytes(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str]) -> int:
        return quant.estimate_bytes(shapes, sections, thinned=True)

    def foreseen(self, quant: "Fitted", shapes: Shapes, sections: Mapping[str, str], budget: int) -> str:
        surplus = max(0, quant.estimate_bytes(shapes, sections) - budget)
        return f"{surplus:,} bytes of symbols ±1 go"

    def reach(
        self, quant: "Fitted", model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: "Pack", budget: int
    ) -> tuple["Quantized", bytes]:
        from pgolf.quant.pruning import fit_ones

        return fit_ones(quant, model, hessians, pack, budget)
