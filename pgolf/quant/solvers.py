"""How symbols are chosen once the steps are known, and on which text a solver that looks at activations looks at them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    from torch import Tensor

    from pgolf.quant.apply import Solver as Solve
    from pgolf.quant.calibration import CalibrationContext


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where calibration sequences come from."""

    @abstractmethod
    def batches(self, context: "CalibrationContext", late: Callable[[], bool]) -> "Iterator[Tensor]":
        """This rank's share of the sequences, ids (B, T) at a time; a slow source asks `late()` as it goes."""


@dataclass(frozen=True, kw_only=True)
class TrainingWindows(Source):
    """Windows of the training text, drawn at random."""

    def batches(self, context: "CalibrationContext", late: Callable[[], bool]) -> "Iterator[Tensor]":
        from pgolf.quant.calibration import training_windows

        return training_windows(context)


@dataclass(frozen=True, kw_only=True)
class SelfGenerated(Source):
    """Text that the model itself writes, token by token, `length` tokens at `temperature`: no data at all is needed."""

    length: int
    temperature: float

    def __post_init__(self) -> None:
        need(self.length >= 2, "quant.solver.source.length", self.length, "at least 2 tokens")
        allowed = "above 0 and at most 10"
        need(0 < self.temperature <= 10, "quant.solver.source.temperature", self.temperature, allowed)

    def batches(self, context: "CalibrationContext", late: Callable[[], bool]) -> "Iterator[Tensor]":
        from pgolf.quant.calibration import self_generated

        return self_generated(context, self.length, self.temperature, late)


@dataclass(frozen=True, kw_only=True)
class RandomIds(Source):
    """Tokens drawn uniformly, which no model ever meets: for comparison only."""

    def batches(self, context: "CalibrationContext", late: Callable[[], bool]) -> "Iterator[Tensor]":
        from pgolf.quant.calibration import random_ids

        return random_ids(context)


@dataclass(frozen=True)
class Calibration:
    """How many sequences to look at, and where from."""

    source: Source
    sequences: int


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """How symbols are chosen once the steps are known."""

    @property
    @abstractmethod
    def calibration(self) -> Calibration | None:
        """What it must know of the layers' inputs; None where nothing."""

    @abstractmethod
    def build(self) -> "Solve":
        """The function that chooses symbols."""


@dataclass(frozen=True, kw_only=True)
class Nearest(Solver):
    """Plain rounding."""

    @property
    def calibration(self) -> Calibration | None:
        return None

    def build(self) -> "Solve":
        from pgolf.quant.rows import round_all

        return round_all


@dataclass(frozen=True, kw_only=True)
class Gptq(Solver):
    """Least change of the layer's output on calibration text (arXiv 2210.17323), in descending order of activation."""

    block: int
    damp: float
    calibration_sequences: int
    source: Source

    def __post_init__(self) -> None:
        need(self.block >= 1, "quant.solver.block", self.block, "at least 1 column (128 is usual)")
        need(0 < self.damp <= 1, "quant.solver.damp", self.damp, "above 0 and at most 1 (share of the mean diagonal)")
        allowed = "at least 1 sequence"
        need(self.calibration_sequences >= 1, "quant.solver.calibration_sequences", self.calibration_sequences, allowed)

    @property
    def calibration(self) -> Calibration | None:
        return Calibration(self.source, self.calibration_sequences)

    def build(self) -> "Solve":
        from pgolf.quant.gptq import GptqSolver

        return GptqSolver(self.block, self.damp)
