"""How a position reads the ones before it: a choice (`model/attention=`), each a function of queries, keys and values."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AttentionKernel(ABC):
    """What happens between the projections q, k, v and `out` of every block, before exclusive self-attention."""

    @abstractmethod
    def build(self) -> "Callable[..., Tensor]":
        """f(q, k, v, pieces) for q (B, S, H, D), k and v (B, T, K, D) to (B, S, H, D): causal, H query heads over K groups.

        S < T: the queries are the last positions. With `Pieces`, in which S = T, nothing reads over a piece's beginning.
        """

    @abstractmethod
    def keys(self, sequence_length: int) -> int:
        """Keys that each query is multiplied with, as FLOPs are usually counted."""


@dataclass(frozen=True, kw_only=True)
class Causal(AttentionKernel):
    """Softmax over all positions so far, scale 1/√D."""

    def build(self) -> "Callable[..., Tensor]":
        from pgolf.model.pieces import attend

        return attend

    def keys(self, sequence_length: int) -> int:
        return sequence_length
