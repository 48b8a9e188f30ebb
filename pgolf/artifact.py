"""`python -m pgolf.artifact FILE`: what an artifact is made of, tensor by tensor."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch

from pgolf import codec
from pgolf.config.command import Result, StatusLines, command
from pgolf.errors import ArtifactError, UserError
from pgolf.quant.rows import entropy
from pgolf.quant.tensors import QTensor
from pgolf.stages.artifact import Stream, read_index, unpack

USAGE = "python -m pgolf.artifact FILE"


@dataclass(frozen=True)
class Line:
    """A tensor as stored: all its streams together. `entropy` is of its symbols, bits per weight; None for floats."""

    name: str
    section: str
    shape: tuple[int, ...]
    kind: str
    codec: str
    bytes: int
    entropy: float | None

    @property
    def weights(self) -> int:
        """Number of values, at least 1."""
        return max(1, torch.Size(self.shape).numel())

    @property
    def bits_per_weight(self) -> float:
        """8 · bytes / weights."""
        return 8 * self.bytes / self.weights


@dataclass(frozen=True)
class Inventory:
    """All lines, and `overhead`: the bytes of header and index."""

    lines: list[Line]
    overhead: int

    @property
    def total(self) -> int:
        """Bytes of the whole file."""
        return self.overhead + sum(line.bytes for line in self.lines)

    @property
    def bits_per_weight(self) -> float:
        """8 · bytes of the file / all weights."""
        return 8 * self.total / max(1, sum(line.weights for line in self.lines))

    @property
    def tensors(self) -> dict[str, int]:
        """Bytes by tensor."""
        return {line.name: line.bytes for line in self.lines}

    @property
    def sections(self) -> dict[str, int]:
        """Bytes by section, the overhead under its own name; they add up to the file."""
        sums: dict[str, int] = {}
        for line in self.lines:
            sums[line.section] = sums.get(line.section, 0) + line.bytes
        return sums | {"overhead": self.overhead}


def inventory(data: bytes) -> Inventory:
    """What `pack` made, line by line. Raises ArtifactError for anything else."""
    rows, _, overhead = read_index(data)
    tensors, _ = unpack(data)
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.tensor] = sizes.get(row.tensor, 0) + row.length
    return Inventory([_line(row, tensors[row.name], sizes[row.name]) for row in rows if row.name in tensors], overhead)


def _line(row: Stream, stored, size: int) -> Line:
    integers = isinstance(stored, QTensor)
    kind = row.dtype
    if integers:
        kind = "+".join([f"int{row.bits}", *(extra.text for extra in stored.extras)])
    bits = entropy(stored.symbols) if integers and stored.symbols.numel() else None
    return Line(row.name, row.section, row.shape, kind, row.codec, size, bits)


@command(f"{USAGE}: what is inside an artifact, tensor by tensor.")
def main(args: Sequence[str], say: StatusLines) -> Result:
    """The table of one file."""
    if len(args) != 1 or args[0].startswith("-"):
        raise UserError(f"usage: {USAGE}")
    for module in iter_modules(codec.__path__, f"{codec.__name__}."):
        import_module(module.name)  # so that the methods of all codecs of the package are known
    try:
        found = inventory(Path(args[0]).read_bytes())
    except ArtifactError as wrong:
        raise UserError(f"{args[0]}: {wrong}") from None
    return Result("pgolf.artifact/1", {"file": args[0], **plain(found)}, "\n".join(rendered(found)))


def plain(found: Inventory) -> dict[str, Any]:
    """The inventory as plain values: the whole, then sections, then tensors."""
    rates = [{"weights": line.weights, "bits_per_weight": line.bits_per_weight} for line in found.lines]
    return {
        "bytes": found.total,
        "bits_per_weight": found.bits_per_weight,
        "sections": found.sections,
        "tensors": [asdict(line) | rate for line, rate in zip(found.lines, rates, strict=True)],
    }


def rendered(found: Inventory) -> list[str]:
    """Plain text, columns aligned: tensors, then sections, then the whole."""
    head = ("tensor", "section", "shape", "stored", "codec", "bytes", "bits/weight", "entropy")
    body = [head, *map(_cells, found.lines)]
    widths = [max(len(row[i]) for row in body) for i in range(len(head))]
    lines = ["  ".join(_aligned(cell, widths[i], i >= 5) for i, cell in enumerate(row)).rstrip() for row in body]
    lines += ["", *(f"{name:<12}{size:>12,}  {size / found.total:6.1%}" for name, size in found.sections.items())]
    return [*lines, f"{'file':<12}{found.total:>12,}  {found.bits_per_weight:.3f} bits per weight"]


def _cells(line: Line) -> tuple[str, ...]:
    shape = "×".join(map(str, line.shape)) or "scalar"
    bits = f"{line.bits_per_weight:.3f}"
    about = "" if line.entropy is None else f"{line.entropy:.3f}"
    return line.name, line.section, shape, line.kind, line.codec, f"{line.bytes:,}", bits, about


def _aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


if __name__ == "__main__":
    raise SystemExit(main())
