"""Pruning after quantisation: symbols of ±1 become 0, those first that matter least to the layer's output, until the file
fits its budget. All tensors compete in one ranking."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.quant import estimate
from pgolf.quant.apply import MATRICES, Quantized, TensorReport
from pgolf.quant.budget import Search, Trial, symbol_bytes, with_receipt
from pgolf.quant.rows import as_rows, objective
from pgolf.quant.tensors import QTensor

if TYPE_CHECKING:
    from pgolf.quant import Pack, Symmetric


def fit_ones(
    quant: "Symmetric", model: nn.Module, hessians: Mapping[str, Tensor], pack: "Pack", budget: int
) -> tuple[Quantized, bytes]:
    """Quantise once, then find the share of ±1 symbols to give up."""
    whole = quant.quantize(model, hessians)
    candidates = PruningCandidates.of(whole, dict(model.named_parameters()), hessians)

    def encode(share: float) -> Trial:
        out = candidates.without(share)
        return Trial(share, out, pack(out))

    search = Search(encode, candidates.guess, 0.0, 1.0, candidates.rest, quant.fit.within, quant.fit.encodings)
    best, encodings = search.best(budget)
    what = "share of the symbols ±1 set to 0" if best.variable else "nothing had to be set to 0"
    return with_receipt(best, encodings, budget, what, best.variable)


def cost(stored: QTensor, H_nn: Tensor) -> Tensor:
    """s² H_jj where a symbol is ±1, elsewhere inf: the output error of losing that weight, in the layer's own units.

    Counting in what rounding has already left (2 q s (e H)_j) promises more and keeps less, because many go at once; and
    so does measuring each layer against its own output.

    >>> stored = QTensor(torch.tensor([[1, 0, -2]], dtype=torch.int8), torch.tensor([0.5], dtype=torch.float16), 5)
    >>> cost(stored, torch.diag(torch.tensor([4.0, 1.0, 1.0]))).tolist()
    [[1.0, inf, inf]]
    """
    q_rn, s_r1 = as_rows(stored.symbols), stored.scale.float()[:, None]
    return torch.where(q_rn.abs() == 1, s_r1.square() * H_nn.diagonal(), torch.inf)


@dataclass(frozen=True)
class PruningCandidates:
    """A quantised model, its weights (as rows) and Hessians, and what each of the matrices' ±1 symbols costs, by tensor."""

    whole: Quantized
    weights: Mapping[str, Tensor]
    hessians: Mapping[str, Tensor]
    costs: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, whole: Quantized, weights: Mapping[str, Tensor], hessians: Mapping[str, Tensor]) -> "PruningCandidates":
        """The symbols ±1 of all matrices, with the cost of zeroing each."""
        rows = {row.name: as_rows(weights[row.name].detach()).float() for row in whole.layers}
        made = cls(whole, rows, hessians, {})
        for row in whole.layers:
            if row.section in MATRICES:
                made.costs[row.name] = cost(whole.tensors[row.name], made.hessian(row.name))
        return made

    def hessian(self, name: str) -> Tensor:
        """The layer's H, or I where it has none."""
        W_rn = self.weights[name]
        return self.hessians[name] if name in self.hessians else torch.eye(W_rn.shape[1], device=W_rn.device)

    @cached_property
    def ranked(self) -> Tensor:
        """The costs of all ±1 symbols, ascending."""
        return torch.cat([c[c.isfinite()] for c in self.costs.values()]).sort().values

    def threshold(self, share: float) -> float:
        """Symbols that cost at most this are the cheapest `share` of all."""
        count = int(share * len(self.ranked))
        return self.ranked[count - 1].item() if count else -torch.inf

    @cached_property
    def by_sign(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The sorted costs of a tensor's symbols −1 and of its symbols 1."""
        found = {}
        for name, c in self.costs.items():
            q = as_rows(self.whole.tensors[name].symbols)
            found[name] = tuple(c[q == sign].sort().values for sign in (-1, 1))
        return found

    @cached_property
    def counts(self) -> dict[str, Tensor]:
        """The histogram of every integer tensor, with symbol q at q + 128."""
        integers = {name: t.symbols for name, t in self.whole.tensors.items() if isinstance(t, QTensor)}
        return {name: torch.bincount(q.flatten().int() + 128, minlength=256) for name, q in integers.items()}

    @property
    def rest(self) -> float:
        """About what the file holds besides symbols."""
        return estimate.file_bytes(
            2 * len(t.scale) if isinstance(t, QTensor) else estimate.float_bytes(tuple(t.shape), 8 * t.itemsize)
            for t in self.whole.tensors.values()
        )

    def guess(self, share: float) -> float:
        """Bytes of all symbols when the cheapest `share` of ±1 are 0."""
        limit, histograms = self.threshold(share), []
        for name, counts in self.counts.items():
            left = counts.clone()
            for sign, costs in zip((-1, 1), self.by_sign.get(name, ()), strict=name in self.by_sign):
                gone = torch.searchsorted(costs, limit, right=True)
                left[128 + sign] -= gone
                left[128] += gone
            histograms.append(left)
        sizes = torch.stack([h.sum() for h in histograms])
        return symbol_bytes(torch.stack(histograms), sizes)

    @torch.no_grad()
    def without(self, share: float) -> Quantized:
        """The model without the cheapest `share` of ±1, and the report on that."""
        limit, tensors, layers = self.threshold(share), dict(self.whole.tensors), []
        for row in self.whole.layers:
            if row.name in self.costs and share:
                stored = tensors[row.name]
                kept = as_rows(stored.symbols).masked_fill(self.costs[row.name] <= limit, 0)
                tensors[row.name] = replace(stored, symbols=kept.view(stored.shape))
                row = self._again(row, tensors[row.name])
            layers.append(row)
        return replace(self.whole, tensors=tensors, layers=layers, receipts=list(self.whole.receipts))

    def _again(self, row: TensorReport, stored: QTensor) -> TensorReport:
        """A report's row with the error as it is now."""
        W_rn, H = self.weights[row.name], self.hessian(row.name)
        error, power = (objective(A[None], [H]).sum() for A in (W_rn - as_rows(stored.dequantize()), W_rn))
        return replace(row, error=(error / power.clamp_min(1e-30)).item())
