"""How the step of a row is chosen: from quantiles of its weights, from their spread, or from the largest."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.quant import estimate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Scale(ABC):
    """How the step of a row is chosen."""

    @abstractmethod
    def steps(self, W_rn: "Tensor", c: int) -> "Tensor":
        """fp16 steps, one per row."""

    @abstractmethod
    def sigmas(self, columns: int, c: int) -> float:
        """The clip (step × c) to expect of a Gaussian row, in σ."""


@dataclass(frozen=True, kw_only=True)
class QuantileScale(Scale):
    """Per row, the clip among these quantiles of |w| that leaves the least squared error."""

    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        ok = len(self.quantiles) > 0 and all(0 < p <= 1 for p in self.quantiles)
        need(ok, "quant.scale.quantiles", self.quantiles, "at least one number above 0 and at most 1")

    def steps(self, W_rn: "Tensor", c: int) -> "Tensor":
        from pgolf.quant.rows import quantile_steps

        return quantile_steps(W_rn, c, self.quantiles)

    def sigmas(self, columns: int, c: int) -> float:
        clips = [estimate.quantile_sigmas(p, columns) for p in self.quantiles]
        return min(clips, key=lambda k: estimate.clip_error(k, c, columns))


@dataclass(frozen=True, kw_only=True)
class StdScale(Scale):
    """step = k·std(row)/c: the size of the file is steered by k."""

    k: float

    def __post_init__(self) -> None:
        need(1 <= self.k <= 10_000, "quant.scale.k", self.k, "between 1 and 10,000 (standard deviations)")

    def steps(self, W_rn: "Tensor", c: int) -> "Tensor":
        from pgolf.quant.rows import std_steps

        return std_steps(W_rn, c, self.k)

    def sigmas(self, columns: int, c: int) -> float:
        return self.k


@dataclass(frozen=True, kw_only=True)
class MaxScale(Scale):
    """step = max|row|/c: nothing is clipped."""

    def steps(self, W_rn: "Tensor", c: int) -> "Tensor":
        from pgolf.quant.rows import max_steps

        return max_steps(W_rn, c)

    def sigmas(self, columns: int, c: int) -> float:
        return estimate.quantile_sigmas(1.0, columns)
