"""How weights follow gradients: Muon for matrices, AdamW for embeddings, vectors and scalars.

The classes here are configuration; the optimiser they build is in `pgolf.optim.optimizer`, Muon's mathematics in
`pgolf.optim.muon`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pgolf.errors import need
from pgolf.optim.kinds import Coefficients

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

    from pgolf.machine.world import World
    from pgolf.optim.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class MatrixStep(ABC):
    """Momentum, made orthogonal by `ns_steps` polynomials; `row_normalize` first gives rows length 1 (MuonEq-R)."""

    lr: float
    weight_decay: float
    ns_steps: int
    row_normalize: bool

    most_steps: ClassVar[int] = 10

    @abstractmethod
    def orthogonal(self, U_BMN: "Tensor", dtype: "dtype") -> "Tensor":
        """The stack, each matrix nearly orthogonal, computed in `dtype`."""


@dataclass(frozen=True, kw_only=True)
class Muon(MatrixStep):
    """By one quintic or by the polynomials of Polar Express (arXiv 2505.16932)."""

    coefficients: Coefficients

    def orthogonal(self, U_BMN: "Tensor", dtype: "dtype") -> "Tensor":
        from pgolf.optim.muon import orthogonalize

        return orthogonalize(U_BMN, self.ns_steps, self.coefficients, dtype)


@dataclass(frozen=True, kw_only=True)
class MuonPr1344(MatrixStep):
    """By the five polynomials of pull request 1344, as all records after it."""

    most_steps = 5

    def orthogonal(self, U_BMN: "Tensor", dtype: "dtype") -> "Tensor":
        from pgolf.optim.pr1344 import polar

        return polar(U_BMN, self.ns_steps, dtype)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Learning rate and decoupled weight decay of one group of AdamW."""

    lr: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class Optim(ABC):
    """What a training step does with the gradients."""

    @abstractmethod
    def build(self, model: "nn.Module", world: "World") -> "Optimizer":
        """The optimiser of `model`, whose `roles()` say what each parameter is. Same on every rank."""


@dataclass(frozen=True, kw_only=True)
class MuonAdamW(Optim):
    """Muon on matrices, AdamW on the rest. `clip_norm` bounds the norm of the whole reduced gradient (null: off)."""

    matrix: MatrixStep
    embedding: Adam
    scalar: Adam
    betas: tuple[float, ...]
    eps: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        for name in ("matrix", "embedding", "scalar"):
            group = getattr(self, name)
            need(group.lr >= 0, f"optim.{name}.lr", group.lr, "at least 0")
            need(0 <= group.weight_decay < 1, f"optim.{name}.weight_decay", group.weight_decay, "from 0 to below 1")
        steps = self.matrix.ns_steps
        most = self.matrix.most_steps
        need(1 <= steps <= most, "optim.matrix.ns_steps", steps, f"between 1 and {most}")
        betas_ok = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        need(betas_ok, "optim.betas", self.betas, "two numbers, each from 0 to below 1")
        need(self.eps > 0, "optim.eps", self.eps, "above 0")
        need(
            self.clip_norm is None or self.clip_norm > 0, "optim.clip_norm", self.clip_norm, "above 0, or null for off"
        )

    def build(self, model: "nn.Module", world: "World") -> "Optimizer":
        from pgolf.optim.optimizer import MuonAdamWOptimizer

        return MuonAdamWOptimizer(self, model, world)
