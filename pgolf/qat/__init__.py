"""The qat group: train through the rounding that the export will do. Once the schedule switches it on, every linear layer that
`quant` will store as integers multiplies with its weights as they would come back from the file, same range, same row steps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    from torch import nn

    from pgolf.qat.fake import Runtime
    from pgolf.quant import Quant


@dataclass(frozen=True, kw_only=True)
class QAT(ABC):
    """Training through the rounding of the export: what `build` installs on a model."""

    @property
    @abstractmethod
    def acts(self) -> bool:
        """Whether anything happens when the schedule switches it on; if so, the schedule must."""

    @abstractmethod
    def build(self, model: "nn.Module", quant: "Quant") -> "Runtime":
        """Install what is needed in `model`, switched off, and return the switch."""


@dataclass(frozen=True, kw_only=True)
class NoQAT(QAT):
    """Train on plain weights."""

    acts = False

    def build(self, model: "nn.Module", quant: "Quant") -> "Runtime":
        from pgolf.qat.fake import Idle

        return Idle()


@dataclass(frozen=True, kw_only=True)
class Rounding(QAT, ABC):
    """`refresh_every`: optimiser steps between new row steps, which are those that the export would choose then."""

    refresh_every: int

    acts = True

    def __post_init__(self) -> None:
        need(self.refresh_every >= 1, "qat.refresh_every", self.refresh_every, "at least 1 optimiser step")


@dataclass(frozen=True, kw_only=True)
class STE(Rounding):
    """Round in the forward pass, pretend in the backward pass that nothing was rounded (straight-through)."""

    def build(self, model: "nn.Module", quant: "Quant") -> "Runtime":
        from pgolf.qat.fake import Installed, StraightThrough, install

        return Installed(install(model, quant, StraightThrough), quant, self.refresh_every, (1.0, 1.0), None)


@dataclass(frozen=True, kw_only=True)
class SoftRound(Rounding):
    """A differentiable staircase (Agustsson & Theis 2020) that grows from almost straight (α small) to almost steps."""

    alpha_start: float
    alpha_end: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need(0 < self.alpha_start <= 100, "qat.alpha_start", self.alpha_start, "above 0 and at most 100")
        need(0 < self.alpha_end <= 100, "qat.alpha_end", self.alpha_end, "above 0 and at most 100")

    def build(self, model: "nn.Module", quant: "Quant") -> "Runtime":
        from pgolf.qat.fake import Installed, SoftStairs, install

        alphas = (self.alpha_start, self.alpha_end)
        return Installed(install(model, quant, SoftStairs), quant, self.refresh_every, alphas, None)


@dataclass(frozen=True, kw_only=True)
class CrownQ(Rounding):
    """STE, and a price on coarse steps where the loss is curved: `weight` · Σ_rows h·Δ²/12 (pull request 1129).

    h is the second moment of the row's gradient, remembered with `decay` and relative to the mean row of its matrix;
    Δ = max|row|/c moves with the weights, so that the penalty has a gradient.
    """

    weight: float
    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.weight > 0, "qat.weight", self.weight, "above 0 (qat=ste is without a penalty)")
        need(0 <= self.decay < 1, "qat.decay", self.decay, "from 0 to below 1")

    def build(self, model: "nn.Module", quant: "Quant") -> "Runtime":
        from pgolf.qat.crownq import Penalty
        from pgolf.qat.fake import Installed, StraightThrough, install

        layers = install(model, quant, StraightThrough)
        cs = {layer.weight: fake.c for layer, fake in layers.fakes.items()}
        return Installed(layers, quant, self.refresh_every, (1.0, 1.0), Penalty(cs, self.weight, self.decay))
