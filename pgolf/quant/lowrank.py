"""LQER (Zhang et al. 2024, arXiv 2402.02446): what rounding leaves of a few tensors, E = W − Q, mostly moves the output in a
few directions; a product AᵀB of rank k, itself in a few bits, takes those back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgolf.files.receipts import Receipt
from pgolf.quant.estimate import levels
from pgolf.quant.forms import Factors
from pgolf.quant.gptq import gptq
from pgolf.quant.rows import as_rows, objective, quantile_steps
from pgolf.quant.tensors import QTensor

if TYPE_CHECKING:
    from pgolf.quant.apply import Quantized
    from pgolf.quant.fits import LowRank

ITERATIONS = 12
CLIPS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)  # of a factor's row; two bits want a clip well inside the row


@torch.no_grad()
def correct(out: "Quantized", weights: Mapping[str, Tensor], hessians: Mapping[str, Tensor], plan: "LowRank") -> None:
    """Give the `plan.tensors` tensors of largest relative error a correction, where it lowers that error."""
    worst, ratios = sorted(out.layers, key=lambda row: -row.error)[: plan.tensors], []
    for row in worst:
        stored, W = out.tensors[row.name], weights[row.name].float()
        H = hessians.get(row.name, torch.eye(as_rows(W).shape[1], device=W.device))
        better = corrected(W, stored, H, plan)
        ratio = _error(W, better, H) / max(_error(W, stored, H), 1e-30)
        ratios.append(min(ratio, 1.0))
        if ratio < 1:
            out.tensors[row.name] = better
            out.layers[out.layers.index(row)] = replace(row, error=row.error * ratio)
    mean = sum(ratios) / max(1, len(ratios))
    what = f"output error with the correction over that without, mean of {len(ratios)} tensors"
    out.receipts.append(Receipt("quant.low_rank", what, mean, alive=bool(ratios) and mean < 1))


def _error(W: Tensor, stored: QTensor, H: Tensor) -> float:
    return objective(as_rows(W - stored.dequantize())[None], [H]).sum().item()


def corrected(W: Tensor, stored: QTensor, H_nn: Tensor, plan: "LowRank") -> QTensor:
    """`stored` with A and B. A spans the directions in which the output is most wrong; B is the best for the A of the file."""
    E_rn = as_rows(W - stored.dequantize())
    basis_kr = output_directions(E_rn, H_nn, min(plan.rank, *E_rn.shape)).mT
    A_kr = in_bits(basis_kr, torch.eye(len(E_rn), device=E_rn.device), plan.left_bits)
    B_kn = torch.linalg.pinv(A_kr.dequantize().mT) @ E_rn
    return replace(stored, extras=(*stored.extras, Factors(A_kr, in_bits(B_kn, H_nn, plan.right_bits))))


def output_directions(E_rn: Tensor, H_nn: Tensor, rank: int) -> Tensor:
    """The leading eigenvectors (r, k) of E H Eᵀ, by subspace iteration from a fixed start.

    >>> output_directions(torch.diag(torch.tensor([1.0, 5.0])), torch.eye(2), 1).abs().round().tolist()
    [[0.0], [1.0]]
    """
    start = torch.randn(E_rn.shape[0], rank + 4, generator=torch.Generator().manual_seed(0)).to(E_rn)
    V = torch.linalg.qr(start)[0]
    for _ in range(ITERATIONS):
        V = torch.linalg.qr(E_rn @ (H_nn.to(E_rn) @ (E_rn.mT @ V)))[0]
    small = V.mT @ (E_rn @ (H_nn.to(E_rn) @ (E_rn.mT @ V)))
    return V @ torch.linalg.eigh((small + small.mT) / 2)[1].flip(1)[:, :rank]


def in_bits(A_kn: Tensor, H_nn: Tensor, bits: int) -> QTensor:
    """By GPTQ: what is left to correct is small where H is large, and plain rounding would put more there than it takes."""
    c = levels(bits)
    scale_k = quantile_steps(A_kn, c, CLIPS)
    return QTensor(gptq(A_kn, H_nn, scale_k, c), scale_k, bits)
