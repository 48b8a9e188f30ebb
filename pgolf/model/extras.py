"""What some models have besides blocks and skips: each a choice (`model/head_gate=`, `model/window_smear=`, `model/lanes=`,
`model/loss=`), or null."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class HeadGate(ABC):
    """What the output of each attention head is multiplied by, before the projection."""

    @abstractmethod
    def build(self, heads: int) -> "nn.Module":
        """f(y, n) for head outputs y (B, S, H, D) and the block's input n (B, S, C)."""

    @abstractmethod
    def check(self, width: int) -> None:
        """Raise ConfigError where a stream of `width` is too narrow."""


@dataclass(frozen=True, kw_only=True)
class SparseHeadGate(HeadGate):
    """σ(`scale` · G n[0:`dims`]), G (H, dims) at first zeros (pull request 1787; scale ½ in pull request 1855)."""

    dims: int
    scale: float

    def __post_init__(self) -> None:
        need(self.dims >= 1, "model.head_gate.dims", self.dims, "at least 1")
        need(self.scale > 0, "model.head_gate.scale", self.scale, "above 0")

    def check(self, width: int) -> None:
        need(self.dims <= width, "model.head_gate.dims", self.dims, f"at most model.width ({width})")

    def build(self, heads: int) -> "nn.Module":
        from pgolf.model.gates import SparseGate

        return SparseGate(heads, self.dims, self.scale)


@dataclass(frozen=True, kw_only=True)
class WindowSmear(ABC):
    """What embeddings take over from the token before, before any norm. `bos` is where it takes nothing; null: nowhere."""

    bos: int | None

    @abstractmethod
    def build(self) -> "nn.Module":
        """f(e, ids) for embeddings e (B, T, E) and their ids (B, T)."""

    @abstractmethod
    def check(self, width: int, vocab_size: int) -> None:
        """Raise ConfigError where an embedding of `width` is too narrow, or the vocabulary has no such `bos`."""


@dataclass(frozen=True, kw_only=True)
class GatedSmear(WindowSmear):
    """e'_t = e_t + λ σ(w · e_t[0:`dims`]) e_{t−1}, but e_t itself at `bos` and at the row's first token (pull request 1667). With
    `bos` null the last token of a document leaks into the next, as in pull request 2135."""

    dims: int

    def __post_init__(self) -> None:
        need(self.dims >= 1, "model.window_smear.dims", self.dims, "at least 1")

    def check(self, width: int, vocab_size: int) -> None:
        need(self.dims <= width, "model.window_smear.dims", self.dims, f"at most model.embed_width ({width})")
        inside = self.bos is None or 0 <= self.bos < vocab_size
        need(inside, "model.window_smear.bos", self.bos, f"null or an id below model.vocab_size ({vocab_size})")

    def build(self) -> "nn.Module":
        from pgolf.model.gates import SmearGate

        return SmearGate(self.dims, self.bos)


@dataclass(frozen=True, kw_only=True)
class Lanes(ABC):
    """Several streams instead of one from block `first` on."""

    first: int

    @abstractmethod
    def build(self, layers: int) -> "nn.Module":
        """Takes over from the block `first` on; see `pgolf.model.lanes`."""


@dataclass(frozen=True, kw_only=True)
class TwoLanes(Lanes):
    """Attention reads lane 0, the MLP lane 1; each writes to both, by learned weights. `residual` is the first value of what a
    lane keeps of itself (pull request 1529)."""

    residual: float

    def build(self, layers: int) -> "nn.Module":
        from pgolf.model.lanes import Pair

        return Pair(layers, self.first, self.residual)


@dataclass(frozen=True, kw_only=True)
class Loss(ABC):
    """How nats come from scores: softcap and cross entropy, float32."""

    @abstractmethod
    def build(self) -> "Callable[[Tensor, Tensor, float | None], Tensor]":
        """f(scores (N, V), targets (N,), softcap) to nats (N,)."""


@dataclass(frozen=True, kw_only=True)
class PlainLoss(Loss):
    """One operation after the other; what the backward pass needs of each is kept."""

    def build(self) -> "Callable[[Tensor, Tensor, float | None], Tensor]":
        from pgolf.model.loss import plain_nll

        return plain_nll


@dataclass(frozen=True, kw_only=True)
class FusedLoss(Loss):
    """`rows` targets at a time; only the scores are kept, and the backward pass computes the rest again."""

    rows: int

    def __post_init__(self) -> None:
        need(self.rows >= 1, "model.loss.rows", self.rows, "at least 1 target")

    def build(self) -> "Callable[[Tensor, Tensor, float | None], Tensor]":
        from pgolf.model.loss import fused_nll

        return lambda scores, targets, cap: fused_nll(scores, targets, cap, self.rows)
