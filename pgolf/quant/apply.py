"""Quantises a whole model: every parameter in the storage its section asks for, layers of one shape solved together, and a
report that says what it cost. The model itself is left as it was."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pgolf.errors import UserError
from pgolf.files.receipts import Receipt
from pgolf.quant.estimate import levels
from pgolf.quant.rows import HALF_MAX, Solution, as_rows, entropy, objective, pruned, round_all
from pgolf.quant.tensors import QTensor

if TYPE_CHECKING:
    from pgolf.quant import Quant

MATRICES = ("attention", "mlp")  # the sections that pruning prunes
Solver = Callable[[Tensor, list[Tensor], Tensor, int], Solution]


@dataclass(frozen=True)
class TensorReport:
    """One tensor: errors are tr(E H Eᵀ) / tr(W H Wᵀ), with H = I where no Hessian was given and W as pruned; entropy in
    bits per weight."""

    name: str
    section: str
    shape: tuple[int, ...]
    bits: int
    weighted: bool
    error: float
    rounding_error: float
    entropy: float
    notice: str


@dataclass
class Quantized:
    """What is to be stored, in the model's order of parameters, and the report on it."""

    tensors: dict[str, QTensor | Tensor] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    layers: list[TensorReport] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    fit: dict | None = None

    @property
    def report(self) -> list[dict]:
        """The layers as JSON-able rows."""
        return [asdict(row) for row in self.layers]

    @property
    def notices(self) -> list[str]:
        """One line for each tensor whose Hessian was not as it should be."""
        return [f"{row.name}: {row.notice}" for row in self.layers if row.notice]


class Kind(NamedTuple):
    """Tensors that agree in all of this are solved together."""

    section: str
    bits: int
    shape: tuple[int, int]
    weighted: bool


@torch.no_grad()
def quantize(
    model: nn.Module, hessians: Mapping[str, Tensor], quant: "Quant", solver: Solver, prune: float = 0.0
) -> Quantized:
    """Every parameter of `model` as `quant` stores it. Symbols come from `solver` where there is a Hessian, and from
    rounding elsewhere (a table that is only looked up has nothing to weigh its columns by)."""
    parameters, plan = planned(model, hessians, quant)
    out = Quantized(dict.fromkeys(parameters), model.sections())
    alike: dict[Kind, list[str]] = {}
    for name, W in parameters.items():
        bits = plan[name]
        if bits > 8:
            out.tensors[name] = W.clone() if bits == 32 else W.to(torch.float16)
        else:
            kind = Kind(out.sections[name], bits, tuple(as_rows(W).shape), name in hessians)
            alike.setdefault(kind, []).append(name)
    for kind, names in alike.items():
        _solve(out, kind, {n: parameters[n] for n in names}, hessians, quant, solver, prune)
    out.layers.sort(key=lambda row: list(parameters).index(row.name))
    return out


def planned(
    model: nn.Module, hessians: Mapping[str, Tensor], quant: "Quant"
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The weights, all found fit to be stored, and the bits of each."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    plan = quant.plan({name: tuple(W.shape) for name, W in weights.items()}, model.sections())
    for name, W in weights.items():
        _check(name, W, plan[name], hessians.get(name))
    return weights, plan


def _check(name: str, W: Tensor, bits: int, H: Tensor | None) -> None:
    if not W.isfinite().all():
        raise UserError(f"{name} holds NaN or Inf: training has diverged, there is nothing to quantise")
    if bits < 32 and W.abs().max() > HALF_MAX:
        raise UserError(f"{name} holds {W.abs().max().item():.3g}, beyond fp16 (largest {HALF_MAX:.0f})")
    if H is not None and not H.isfinite().all():
        raise UserError(f"the Hessian of {name} holds NaN or Inf: an activation overflowed on the calibration text")


def _solve(
    out: Quantized,
    kind: Kind,
    weights: Mapping[str, Tensor],
    hessians: Mapping[str, Tensor],
    quant: "Quant",
    solver: Solver,
    prune: float,
) -> None:
    """Solve the tensors of one kind together and file the results."""
    W_Brn = torch.stack([as_rows(W).float() for W in weights.values()])
    eye = torch.eye(kind.shape[1], device=W_Brn.device)
    H_Bnn = [hessians.get(name, eye) for name in weights]
    if prune and kind.section in MATRICES:
        W_Brn = pruned(W_Brn, prune)
    scale_Br = torch.stack([quant.steps(W, kind.section, kind.bits) for W in W_Brn])
    if not scale_Br.isfinite().all():
        raise UserError(f"a row of {kind.section} weights has a step beyond fp16 (largest {HALF_MAX:.0f})")
    found = (solver if kind.weighted else round_all)(W_Brn, H_Bnn, scale_Br, levels(kind.bits))
    power_B = objective(W_Brn, H_Bnn).sum(1)
    error_B, rounding_B = ((e.sum(1) / power_B.clamp_min(1e-30)).tolist() for e in (found.error, found.rounding))
    for b, (name, W) in enumerate(weights.items()):
        out.tensors[name] = QTensor(found.symbols[b].view(W.shape), scale_Br[b], kind.bits)
        row = (name, kind.section, tuple(W.shape), kind.bits, kind.weighted, error_B[b], rounding_B[b])
        out.layers.append(TensorReport(*row, entropy(found.symbols[b]), found.notices[b]))


def receipts(out: Quantized, prune: float) -> list[Receipt]:
    """That quantising changed something, that the solver did better than rounding where it had a Hessian, and that
    pruning left zeros."""
    worst = max((row.error for row in out.layers), default=0.0)
    found = [Receipt("quant", "largest relative output error of a tensor", worst, alive=worst > 0)]
    solved = [row.error / row.rounding_error for row in out.layers if row.weighted and row.rounding_error > 0]
    if solved:
        mean = sum(solved) / len(solved)
        found.append(
            Receipt("quant.solver", "output error over that of rounding, mean of layers", mean, alive=mean < 1)
        )
    if prune:
        matrices = [out.tensors[row.name].symbols for row in out.layers if row.section in MATRICES]
        zeros = sum(int((q == 0).sum()) for q in matrices) / max(1, sum(q.numel() for q in matrices))
        found.append(
            Receipt("quant.prune", "share of the matrices' symbols that are 0", zeros, alive=zeros >= prune / 2)
        )
    return found
