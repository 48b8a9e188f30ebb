"""What a stored tensor may hold besides symbols and steps: each kind is a class that names its streams in the file, checks what
was read and works on the weights. A file is read by the kinds that are known where it is read; an export knows those that its
recipe can write."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from pgolf.errors import ArtifactError
from pgolf.quant.tensors import QTensor


class Extra(ABC):
    """What works on the values of an integer tensor after its symbols and steps have been read."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What a table of the file says of it."""

    @abstractmethod
    def named(self) -> list[tuple[str, QTensor | Tensor]]:
        """What is stored, by what follows the tensor's name."""

    @classmethod
    def read(cls, tensors: dict[str, QTensor | Tensor]) -> None:
        """Move all of this kind from where they were read into their tensors; of no kind there are none."""
        return None

    @abstractmethod
    def applied(self, W_rn: Tensor, whole: QTensor) -> Tensor:
        """The weights with this one."""


class Streams(Extra, ABC):
    """An extra of two parts, `streams` in the file."""

    streams: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parts(self) -> tuple[QTensor | Tensor, ...]:
        """One for each of `streams`."""

    @classmethod
    @abstractmethod
    def of(cls, parts: Sequence[QTensor | Tensor | None], whole: QTensor, name: str) -> "Streams":
        """From what was read (None: the stream is not there). Raises ArtifactError where it does not suit `whole`."""

    def named(self) -> list[tuple[str, QTensor | Tensor]]:
        return list(zip(self.streams, self.parts(), strict=True))

    @classmethod
    def read(cls, tensors: dict[str, QTensor | Tensor]) -> None:
        for first in cls.streams[:1]:
            for name in [name.removesuffix(first) for name in tensors if name.endswith(first)]:
                whole, *parts = (tensors.get(name), *(tensors.pop(name + stream, None) for stream in cls.streams))
                if not isinstance(whole, QTensor):
                    raise ArtifactError(f"correction: {name} is no integer tensor")
                tensors[name] = replace(whole, extras=(*whole.extras, cls.of(parts, whole, name)))


def sizes(parts: Sequence[QTensor | Tensor | None]) -> list[int]:
    """Symbols of each part; −1 for what is no integer matrix."""
    return [t.symbols.numel() if isinstance(t, QTensor) and t.symbols.dim() == 2 else -1 for t in parts]


@dataclass(frozen=True)
class Factors(Streams):
    """Adds AᵀB, A (k, rows) and B (k, columns), a step for every row of either (LQER, arXiv 2402.02446)."""

    A: QTensor
    B: QTensor

    streams = (":left", ":right")

    @property
    def text(self) -> str:
        return f"rank{len(self.A.scale)}"

    def parts(self) -> tuple[QTensor, QTensor]:
        return self.A, self.B

    @classmethod
    def of(cls, parts: Sequence[QTensor | Tensor | None], whole: QTensor, name: str) -> "Factors":
        rows = whole.shape[0]
        columns = whole.symbols.numel() // max(1, rows)
        rank = len(parts[0].scale) if isinstance(parts[0], QTensor) else 0
        if sizes(parts) != [rank * rows, rank * columns] or len(parts[1].scale) != rank:
            raise ArtifactError(f"correction: {name} needs two integer matrices of {rank} rows, for {rows} × {columns}")
        return cls(*parts)

    def applied(self, W_rn: Tensor, whole: QTensor) -> Tensor:
        return W_rn + self.A.dequantize().mT @ self.B.dequantize()


@dataclass(frozen=True)
class GroupedFactors(Streams):
    """Adds A B, A (rows, k) in one step and B (k, columns) in a step for every group of values, row after row: LQER in the
    form of parameter-golf pull request 1797. A is stored as one row, B as a row per group."""

    A: QTensor
    B: QTensor

    streams = (":lqer_a", ":lqer_b")

    @property
    def text(self) -> str:
        return "lqer"

    def parts(self) -> tuple[QTensor, QTensor]:
        return self.A, self.B

    @classmethod
    def of(cls, parts: Sequence[QTensor | Tensor | None], whole: QTensor, name: str) -> "GroupedFactors":
        rows = max(1, whole.shape[0])
        values, rank = sizes(parts), sizes(parts)[0] // rows
        if rank < 1 or values != [rank * rows, rank * (whole.symbols.numel() // rows)] or len(parts[0].scale) != 1:
            raise ArtifactError(
                f"correction: {name} needs a factor in one step and one in groups, for {tuple(whole.shape)}"
            )
        return cls(*parts)

    def applied(self, W_rn: Tensor, whole: QTensor) -> Tensor:
        rows, columns = W_rn.shape
        return W_rn + self.A.dequantize().view(rows, -1) @ self.B.dequantize().view(-1, columns)


@dataclass(frozen=True)
class FineColumns(Streams):
    """Some neighbouring columns in a step of their own: `scale` (rows,) fp16, `span` (2,) float32, the first column and their
    number. Their symbols stand in place and may need more bits than the others (AWQ-lite, pull request 1945)."""

    scale: Tensor
    span: Tensor

    streams = (":fine", ":span")

    @property
    def columns(self) -> slice:
        """The columns that are kept at the finer width."""
        start, width = map(int, self.span.tolist())
        return slice(start, start + width)

    @property
    def text(self) -> str:
        return f"fine {self.columns.start}-{self.columns.stop}"

    def parts(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.span

    @classmethod
    def of(cls, parts: Sequence[QTensor | Tensor | None], whole: QTensor, name: str) -> "FineColumns":
        scale, span = parts
        shapes = [t.shape if isinstance(t, Tensor) else None for t in parts]
        columns = whole.symbols.numel() // max(1, whole.shape[0])
        if shapes != [whole.shape[:1], (2,)] or not (span.isfinite().all() and 0 <= span[0] <= span.sum() <= columns):
            raise ArtifactError(f"fine: {name} needs a step per row and which of its {columns} columns have it")
        return cls(scale, span)

    def applied(self, W_rn: Tensor, whole: QTensor) -> Tensor:
        W_rn[:, self.columns] = whole.symbols.flatten(1)[:, self.columns] * self.scale.float()[:, None]
        return W_rn
