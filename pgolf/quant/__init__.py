"""The quant group: how every tensor of a trained model is stored. `Unquantised` stores fp16; `Symmetric` stores integers in
[−c, c], c = 2^(bits−1) − 1, times one fp16 step per row, with nested choices of the step (`Scale`), of the symbols
(`Solver`), of a correction (`LowRank`) and of a size to fill (`Fit`). Numbers and checks live here and in the modules
imported at the top; the arithmetic in the others."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.quant import estimate
from pgolf.quant.fits import Cap, Correction, Fit, LowRank, LqerPr1797, PruneToCap, Shapes
from pgolf.quant.scales import MaxScale, QuantileScale, Scale, StdScale
from pgolf.quant.solvers import (
    Calibration,
    Gptq,
    Nearest,
    RandomIds,
    SelfGenerated,
    Solver,
    Source,
    TrainingWindows,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pgolf.model import Model
    from pgolf.quant.apply import Quantized
    from pgolf.quant.apply import Solver as Solve

__all__ = [
    "Cap",
    "Correction",
    "Fit",
    "Gptq",
    "LowRank",
    "LqerPr1797",
    "MaxScale",
    "Nearest",
    "PruneToCap",
    "Quant",
    "QuantileScale",
    "RandomIds",
    "Scale",
    "SelfGenerated",
    "Solver",
    "Source",
    "StdScale",
    "Symmetric",
    "TrainingWindows",
    "Unquantised",
]

Pack = Callable[["Quantized"], bytes]


@dataclass(frozen=True, kw_only=True)
class Quant(ABC):
    """What the pipeline and QAT need of a storage plan."""

    @property
    @abstractmethod
    def calibration(self) -> Calibration | None:
        """The sequences to collect Hessians from; None where none are needed."""

    @abstractmethod
    def plan(self, shapes: Mapping[str, tuple[int, ...]], sections: Mapping[str, str]) -> dict[str, int]:
        """Bits of every tensor: 2–8 are integers with row steps, 16 is fp16, 32 is fp32."""

    @abstractmethod
    def scale_of(self, section: str) -> Scale:
        """Where the steps of a section's rows come from. Asked only where `plan` says integers."""

    @abstractmethod
    def quantize(self, model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> "Quantized":
        """Everything to be stored and the report on it; `model` stays as it is."""

    @abstractmethod
    def compress(
        self, model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: Pack, budget: int
    ) -> tuple["Quantized", bytes]:
        """`quantize` and the file that `pack` makes of it, for which there are `budget` bytes."""

    @property
    @abstractmethod
    def encodings(self) -> int:
        """How often `compress` may pack before it is content."""

    def steps(self, W_rn: "Tensor", section: str, bits: int) -> "Tensor":
        """The fp16 steps of W's rows: the same for the export and for training that anticipates it."""
        return self.scale_of(section).steps(W_rn, estimate.levels(bits))

    def check_model(self, model: "Model", budget: Callable[[], int]) -> None:
        """Raise ConfigError for a model whose tensors cannot be stored so, or never in `budget()` bytes."""
        outline = model.outline()
        shapes = {name: tuple(p.shape) for name, p in outline.named_parameters()}
        self.check_shapes(shapes, outline.sections(), budget)

    @abstractmethod
    def check_shapes(self, shapes: Shapes, sections: Mapping[str, str], budget: Callable[[], int]) -> None:
        """The same for tensors of these shapes and sections."""

    def estimate_bytes(self, shapes: Shapes, sections: Mapping[str, str], thinned: bool = False) -> int:
        """Predicted size of the packed file, from names and shapes alone, before anything is trained; `thinned`: without any
        symbol ±1 in the matrices."""
        plan = self.plan(shapes, sections)
        sizes = [self._tensor_bytes(tuple(s), plan[n], sections[n], thinned) for n, s in shapes.items()]
        return estimate.file_bytes([*sizes, *self._extra_bytes(shapes, sections)])

    def _tensor_bytes(self, shape: tuple[int, ...], bits: int, section: str, thinned: bool) -> float:
        if bits > 8:
            return estimate.float_bytes(shape, bits)
        columns = estimate.columns(shape)
        sigmas = self.scale_of(section).sigmas(columns, estimate.levels(bits))
        return estimate.integer_bytes(shape, bits, sigmas, thinned and section in ("attention", "mlp"))

    @abstractmethod
    def _extra_bytes(self, shapes: Shapes, sections: Mapping[str, str]) -> list[float]:
        """Predicted sizes of what is stored besides the tensors' symbols and steps."""


@dataclass(frozen=True, kw_only=True)
class Unquantised(Quant):
    """Nothing is quantised: floats of `bits`, control vectors fp32."""

    bits: int

    def __post_init__(self) -> None:
        need(self.bits in (16, 32), "quant.bits", self.bits, "16 or 32")

    @property
    def calibration(self) -> Calibration | None:
        return None

    @property
    def encodings(self) -> int:
        return 1

    def plan(self, shapes: Mapping[str, tuple[int, ...]], sections: Mapping[str, str]) -> dict[str, int]:
        return {name: 32 if sections[name] == "control" else self.bits for name in shapes}

    def check_shapes(self, shapes: Shapes, sections: Mapping[str, str], budget: Callable[[], int]) -> None:
        pass

    def _extra_bytes(self, shapes: Shapes, sections: Mapping[str, str]) -> list[float]:
        return []

    def scale_of(self, section: str) -> Scale:
        raise AssertionError("nothing is stored as integers")

    def quantize(self, model: "nn.Module", hessians: Mapping[str, "Tensor"]) -> "Quantized":
        from pgolf.quant.apply import quantize
        from pgolf.quant.rows import round_all

        return quantize(model, {}, self, round_all)

    def compress(
        self, model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: Pack, budget: int
    ) -> tuple["Quantized", bytes]:
        kept = self.quantize(model, hessians)
        return kept, pack(kept)


@dataclass(frozen=True, kw_only=True)
class Integers(Quant, ABC):
    """Matrices of more than `keep_below` elements as integers that a solver chooses, a correction of the worst, and a size to
    fill."""

    keep_below: int
    solver: Solver
    low_rank: Correction | None
    fit: Fit | None

    def __post_init__(self) -> None:
        halves = "at least 0 (elements up to which fp16 is kept)"
        need(self.keep_below >= 0, "quant.keep_below", self.keep_below, halves)
        if self.fit is not None:
            self.fit.check(self)

    @property
    def calibration(self) -> Calibration | None:
        return self.solver.calibration

    @property
    def encodings(self) -> int:
        return 1 if self.fit is None else self.fit.encodings

    def compress(
        self, model: "nn.Module", hessians: Mapping[str, "Tensor"], pack: Pack, budget: int
    ) -> tuple["Quantized", bytes]:
        if self.fit is not None:
            return self.fit.reach(self, model, hessians, pack, budget)
        out = self.quantize(model, hessians)
        return out, pack(out)


@dataclass(frozen=True, kw_only=True)
class Symmetric(Integers):
    """Integers of `bits` (or a section's own bits), fp16 up to `keep_below` elements, control vectors fp32.

    `prune` is the share of each matrix's smallest weights that become 0 before anything is rounded.
    """

    bits: int
    attention_bits: int | None
    mlp_bits: int | None
    embedding_bits: int | None
    last_layers: int
    last_layers_bits: int | None
    prune: float
    scale: Scale
    embedding_scale: Scale

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("bits", "attention_bits", "mlp_bits", "embedding_bits", "last_layers_bits"):
            bits = getattr(self, key)
            null = "" if key == "bits" else ", or null for quant.bits"
            need(bits is None or 2 <= bits <= 8, f"quant.{key}", bits, f"between 2 and 8{null}")
        need(self.last_layers >= 0, "quant.last_layers", self.last_layers, "at least 0 layers")
        both = (self.last_layers > 0) == (self.last_layers_bits is not None)
        need(both, "quant.last_layers_bits", self.last_layers_bits, "given exactly when quant.last_layers is above 0")
        need(0 <= self.prune < 1, "quant.prune", self.prune, "from 0 to below 1 (share of a matrix's weights)")

    def plan(self, shapes: Mapping[str, tuple[int, ...]], sections: Mapping[str, str]) -> dict[str, int]:
        late = estimate.last_layers(shapes, self.last_layers)
        return {name: self._bits(tuple(s), sections[name], name in late) for name, s in shapes.items()}

    def _bits(self, shape: tuple[int, ...], section: str, late: bool) -> int:
        if section == "control":
            return 32
        if len(shape) < 2 or estimate.elements(shape) <= self.keep_below:
            return 16
        own = {"attention": self.attention_bits, "mlp": self.mlp_bits, "embedding": self.embedding_bits}[section]
        if late:
            own = self.last_layers_bits
        return self.bits if own is None else own

    def scale_of(self, section: str) -> Scale:
        return self.embedding_scale if section == "embedding" else self.scale

    def check_shapes(self, shapes: Shapes, sections: Mapping[str, str], budget: Callable[[], int]) -> None:
        if self.low_rank is not None:
            self.low_rank.check_shapes(self._matrices(shapes, sections))
        if self.fit is not None:
            self.fit.check_shapes(self, shapes, sections, budget())

    def _matrices(self, shapes: Shapes, sections: Mapping[str, str]) -> Shapes:
        return {name: tuple(shapes[name]) for name, bits in self.plan(shapes, sections).items() if bits <= 8}

    def _extra_bytes(self, shapes: Shapes, sections: Mapping[str, str]) -> list[float]:
        return [] if self.low_rank is None else self.low_rank.estimates(self._matrices(shapes, sections))

    @property
    def steered(self) -> list[tuple[float, int]]:
        """(k, c) of every StdScale, that of the matrices first; none where they have another kind."""
        bits = self.bits if self.embedding_bits is None else self.embedding_bits
        both = [(self.scale, self.bits), (self.embedding_scale, bits)]
        found = [(scale.k, estimate.levels(n)) for scale, n in both if isinstance(scale, StdScale)]
        return found if isinstance(self.scale, StdScale) else []

    def coarser(self, factor: float) -> "Symmetric":
        """The k of every StdScale times `factor`."""
        both = {"scale": self.scale, "embedding_scale": self.embedding_scale}
        stds = {key: scale for key, scale in both.items() if isinstance(scale, StdScale)}
        return replace(self, **{key: replace(scale, k=scale.k * factor) for key, scale in stds.items()})

    def told_steps(self) -> tuple[str, float]:
        """What the record says of the steps."""
        return "step k", self.scale.k

    def quantize(
        self, model: "nn.Module", hessians: Mapping[str, "Tensor"], solve: "Solve | None" = None
    ) -> "Quantized":
        """`solve` is a solver built before, which may remember the Hessians."""
        from pgolf.quant.apply import quantize, receipts

        out = quantize(model, hessians, self, solve or self.solver.build(), self.prune)
        out.receipts += receipts(out, self.prune)
        if self.low_rank is not None:
            self.low_rank.correct(out, model, hessians)
        return out
