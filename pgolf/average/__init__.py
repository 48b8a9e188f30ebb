"""Which weights a run ends with: the last ones, or an average over the steps before.

Choosing between candidates by their score is `Best`'s alone, and only on held-out training text.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    from torch import nn

    from pgolf.average.averager import Averager


@dataclass(frozen=True, kw_only=True)
class Average(ABC):
    """How the final weights come from those of the steps."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """How often the end needs dev_bpb, which costs time on the clock."""

    @abstractmethod
    def build(self, model: "nn.Module") -> "Averager":
        """An averager that starts from the model's present weights."""


@dataclass(frozen=True, kw_only=True)
class NoAverage(Average):
    """The weights of the last step."""

    evaluations = 0

    def build(self, model: "nn.Module") -> "Averager":
        from pgolf.average.averager import Last

        return Last(model)


@dataclass(frozen=True, kw_only=True)
class EMA(Average):
    """Exponential moving average: after every step a ← decay·a + (1 − decay)·w, from the first weights on."""

    decay: float

    evaluations = 0

    def __post_init__(self) -> None:
        need(0 < self.decay < 1, "average.decay", self.decay, "between 0 and 1, both excluded")

    def build(self, model: "nn.Module") -> "Averager":
        from pgolf.average.averager import Exponential

        return Exponential(model, self.decay)


@dataclass(frozen=True, kw_only=True)
class SWA(Average):
    """The mean of the weights after every `every`-th step while the learning-rate multiplier is under `below`."""

    every: int
    below: float

    evaluations = 0

    def __post_init__(self) -> None:
        need(self.every >= 1, "average.every", self.every, "at least 1")
        need(self.below > 0, "average.below", self.below, "above 0 (above 1: from the first step)")

    def build(self, model: "nn.Module") -> "Averager":
        from pgolf.average.averager import Stochastic

        return Stochastic(model, self.every, self.below)


@dataclass(frozen=True, kw_only=True)
class Blend(Average):
    """`weight` of the EMA and 1 − `weight` of the SWA; of the EMA alone if the SWA collected nothing."""

    ema: EMA
    swa: SWA
    weight: float

    evaluations = 0

    def __post_init__(self) -> None:
        need(0 < self.weight < 1, "average.weight", self.weight, "between 0 and 1, both excluded")

    def build(self, model: "nn.Module") -> "Averager":
        from pgolf.average.averager import Blended

        return Blended(model, self.ema.build(model), self.swa.build(model), self.weight)


@dataclass(frozen=True, kw_only=True)
class Best(Average):
    """The better of two averages by dev_bpb, on held-out training text; the first if they are equal."""

    first: Average
    second: Average

    @property
    def evaluations(self) -> int:
        return 2 + self.first.evaluations + self.second.evaluations

    def build(self, model: "nn.Module") -> "Averager":
        from pgolf.average.averager import Chosen

        return Chosen(model, self.first.build(model), self.second.build(model))
