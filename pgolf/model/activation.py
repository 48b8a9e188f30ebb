"""What an MLP does between its matrices: a choice (`model/activation=`), each a function with the matrices that feed it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pgolf.errors import need

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Activation(ABC):
    """What an MLP does between its matrices. Of an input n it gives `down(f(up(n)))`, and `build` gives f.

    `inputs` names the matrices, (hidden, width) each, whose outputs f joins into one; `down`, (width, hidden), follows.
    """

    inputs: ClassVar[tuple[str, ...]] = ("up",)

    @abstractmethod
    def build(self) -> "Callable[..., Tensor]":
        """f: one tensor (…, hidden) for each of `inputs`, in their order, to one tensor (…, hidden)."""

    def multiplications(self, width: int, hidden: int) -> int:
        """Per token, one for each element of the MLP's matrices. SwiGLU of 2 and 3: 3 · 2 · 3 = 18."""
        return (len(self.inputs) + 1) * width * hidden


@dataclass(frozen=True, kw_only=True)
class LeakyReluSquared(Activation):
    """leaky_relu(x, `slope`)²; slope 0 is relu² (Primer, arXiv 2109.08668).

    >>> import torch
    >>> LeakyReluSquared(slope=0.5).build()(torch.tensor([-4.0, 3.0])).tolist()
    [4.0, 9.0]
    """

    slope: float

    def __post_init__(self) -> None:
        need(0 <= self.slope <= 1, "model.activation.slope", self.slope, "between 0 (relu²) and 1")

    def build(self) -> "Callable[[Tensor], Tensor]":
        from torch.nn.functional import leaky_relu

        return lambda x: leaky_relu(x, self.slope).square()


@dataclass(frozen=True, kw_only=True)
class Gelu(Activation):
    """x · Φ(x), Φ the distribution function of the normal (arXiv 1606.08415).

    >>> import torch
    >>> Gelu().build()(torch.tensor([0.0, 1.0])).tolist()
    [0.0, 0.8413447141647339]
    """

    def build(self) -> "Callable[[Tensor], Tensor]":
        from torch.nn.functional import gelu

        return gelu


@dataclass(frozen=True, kw_only=True)
class SwiGLU(Activation):
    """silu(gate(n)) · up(n), silu(x) = x · sigmoid(x) (arXiv 2002.05202).

    Three matrices: two thirds of `model.mlp_hidden` cost the same.

    >>> import torch
    >>> SwiGLU().build()(torch.tensor([2.0]), torch.tensor([0.0])).tolist()
    [0.0]
    """

    inputs = ("up", "gate")

    def build(self) -> "Callable[[Tensor, Tensor], Tensor]":
        from torch.nn.functional import silu

        return lambda up, gate: silu(gate) * up
