"""A step for every section of a model, as the record stack of 1.0611 to 1.0565 stores it (parameter-golf pull request 1855)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.quant import Integers, estimate
from pgolf.quant.fits import Shapes
from pgolf.quant.scales import MaxScale, Scale, StdScale

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pgolf.quant.apply import Quantized
    from pgolf.quant.apply import Solver as Solve

GATE = ".head_gate.weight"  # ends the names of the small matrices that are stored as integers all the same
INTEGERS = ("attention", "mlp", "embedding")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Integers of `bits` in steps of k·std(row)/c, c = 2^(bits−1) − 1. From k = 10 on nothing is clipped: k is the step."""

    bits: int
    k: float


@dataclass(frozen=True, kw_only=True)
class Protect:
    """AWQ-lite (pull request 1945): of all tensors below `bits`, the one group of `group` neighbouring columns whose weights
    times inputs are largest is stored at `bits`, inside the same solution."""

    group: int
    bits: int

    def __post_init__(self) -> None:
        need(self.group >= 1, "quant.protect.group", self.group, "at least 1 column (64 is usual)")
        need(3 <= self.bits <= 8, "quant.protect.bits", self.bits, "between 3 and 8")

    def check_shapes(self, matrices: Shapes) -> None:
        """Raise ConfigError where the columns of one of the quantised `matrices` do not fall into groups."""
        for name, shape in matrices.items():
            allowed = f"a divisor of the columns of every quantised matrix ({name} has {estimate.columns(shape)})"
            need(estimate.columns(shape) % self.group == 0, "quant.protect.group", self.group, allowed)


@dataclass(frozen=True, kw_only=True)
class Sections(Integers):
    """Matrices of more than `keep_below` elements by the `Step` of their section, smaller ones fp16; head gates at
    `gate_bits`, in steps of max|row|/c; all other vectors and scalars at `control_bits`. Weights of inputs that calibration
    never saw are 0."""

    attention: Step
    mlp: Step
    embedding: Step
    gate_bits: int
    control_bits: int
    protect: Protect | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for section in INTEGERS:
            step = self.step(section)
            need(2 <= step.bits <= 8, f"quant.{section}.bits", step.bits, "between 2 and 8")
            need(step.k >= 1, f"quant.{section}.k", step.k, "at least 1 (standard deviations)")
        allowed = "between 2 and 8, or 16 (fp16)"
        need(2 <= self.gate_bits <= 8 or self.gate_bits == 16, "quant.gate_bits", self.gate_bits, allowed)
        need(self.control_bits in (16, 32), "quant.control_bits", self.control_bits, "16 or 32")

    def step(self, section: str) -> Step:
        """The step of a section: attention, mlp or embedding."""
        return {"attention": self.attention, "mlp": self.mlp, "embedding": self.embedding}[section]

    def plan(self, shapes: Shapes, sections: Mapping[str, str]) -> dict[str, int]:
        return {name: self._bits(name, tuple(shape), sections[name]) for name, shape in shapes.items()}

    def _bits(self, name: str, shape: tuple[int, ...], section: str) -> int:
        if name.endswith(GATE):
            return self.gate_bits
        if section == "control":
            return self.control_bits
        return 16 if len(shape) < 2 or estimate.elements(shape) <= self.keep_below else self.step(section).bits

    def scale_of(self, section: str) -> Scale:
        return MaxScale() if section == "control" else StdScale(k=self.step(section).k)

    def check_shapes(self, shapes: Shapes, sections: Mapping[str, str], budget: Callable[[], int]) -> None:
        matrices = self._matrices(shapes, sections)
        if self.protect is not None:
            self.protect.check_shapes(matrices)
        if self.low_rank is not None:
            self.low_rank.check_shapes(matrices)
        if self.fit is not None:
            self.fit.check_shapes(self, shapes, sections, budget())

    def _matrices(self, shapes: Shapes, sections: Mapping[str, str]) -> Shapes:
        plan = self.plan(shapes, sections)
        return {name: tuple(shapes[name]) for name, bits in plan.items() if bits <= 8 and sections[name] != "control"}

    @property
    def steered(self) -> list[tuple[float, int]]:
        """(k, c) of all sections, that of the least k first."""
        return sorted((step.k, estimate.levels(step.bits)) for step in map(self.step, INTEGERS))

    def coarser(self, factor: float) -> "Sections":
        """All k times `factor`."""
        return replace(self, **{name: replace(self.step(name), k=self.step(name).k * factor) for name in INTEGERS})

    def told_steps(self) -> tuple[str, float]:
        """What the record says of the steps, and the least k."""
        each = ", ".join(f"{name} {self.step(name).k:.4g}" for name in INTEGERS)
        return f"step k of {each}", self.steered[0][0]

    def _extra_bytes(self, shapes: Shapes, sections: Mapping[str, str]) -> list[float]:
        matrices, extra = self._matrices(shapes, sections), []
        if self.protect is not None and matrices:
            extra.append(max(self._protected_bytes(shape, sections[name]) for name, shape in matrices.items()))
        return extra if self.low_rank is None else extra + self.low_rank.estimates(matrices)

    def _protected_bytes(self, shape: tuple[int, ...], section: str) -> float:
        """Bits by which the symbols of a group of columns are longer, and a step per row."""
        step, group = self.step(section), self.protect.group
        longer = [estimate.gaussian_bits(step.k, estimate.levels(bits)) for bits in (self.protect.bits, step.bits)]
        return shape[0] * (group * (longer[0] - longer[1]) / 8 + 2)

    def quantize(
        self, model: "nn.Module", hessians: Mapping[str, "Tensor"], solve: "Solve | None" = None
    ) -> "Quantized":
        from pgolf.quant.apply import quantize, receipts
        from pgolf.quant.protect import protect, without_dead

        out = quantize(model, hessians, self, without_dead(solve or self.solver.build()))
        out.receipts += receipts(out, 0.0)
        if self.protect is not None:
            protect(out, model, hessians, self)
        if self.low_rank is not None:
            self.low_rank.correct(out, model, hessians)
        return out
