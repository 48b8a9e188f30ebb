"""LQER as parameter-golf pull request 1797 stores it: the error of a few tensors, unweighted, by its leading singular
vectors in few bits. `lowrank` weighs the error by the Hessian and fits one factor to what is stored of the other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgolf.files.receipts import Receipt
from pgolf.quant.forms import GroupedFactors
from pgolf.quant.rows import as_rows, halves, inverse, objective
from pgolf.quant.tensors import QTensor

if TYPE_CHECKING:
    from pgolf.quant.apply import Quantized
    from pgolf.quant.fits import LqerPr1797


@torch.no_grad()
def correct(
    out: "Quantized", weights: Mapping[str, Tensor], hessians: Mapping[str, Tensor], plan: "LqerPr1797"
) -> None:
    """Give the `plan.tensors` tensors with the largest ‖W − Ŵ‖_F a correction, whatever it does to their outputs."""
    solved = [row for row in out.layers if row.weighted]
    errors = {row.name: as_rows(weights[row.name].float() - out.tensors[row.name].dequantize()) for row in solved}
    ratios = []
    for row in sorted(solved, key=lambda row: -errors[row.name].norm().item())[: plan.tensors]:
        E_rn, H, stored = errors[row.name], hessians[row.name], out.tensors[row.name]
        better = replace(stored, extras=(*stored.extras, in_few_bits(*factors(E_rn, plan.rank), plan.group)))
        left_rn = as_rows(weights[row.name].float() - better.dequantize())
        after, before = (objective(e[None], [H]).sum().item() for e in (left_rn, E_rn))
        ratios.append(after / max(before, 1e-30))
        out.tensors[row.name] = better
        out.layers[out.layers.index(row)] = replace(row, error=row.error * ratios[-1])
    mean = sum(ratios) / max(1, len(ratios))
    what = f"output error with the correction over that without, mean of {len(ratios)} tensors"
    out.receipts.append(Receipt("quant.low_rank", what, mean, alive=bool(ratios) and mean != 1))


def factors(E_rn: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (k, n), E ≈ A B: U_k S_k and V_kᵀ of the singular value decomposition, with the signs it returns."""
    U, S, Vt = torch.linalg.svd(E_rn, full_matrices=False)
    return U[:, :rank] * S[:rank], Vt[:rank]


def in_few_bits(A_rk: Tensor, B_kn: Tensor, group: int) -> GroupedFactors:
    """A in one step max|A|/1.5, symbols −2 to 1; B row after row in groups of `group`, steps max|B_g|/7.5, symbols −8 to 7.

    A's positive half reaches ⅔ of its largest value only, and 1.5 is rounded to 2, then cut to 1: so it is published.

    >>> made = in_few_bits(torch.tensor([[3.0], [-1.0]]), torch.tensor([[0.5, -0.25]]), 2)
    >>> made.A.symbols.tolist(), made.A.scale.tolist(), made.B.symbols.tolist()
    ([[1, 0]], [2.0], [[7, -4]])
    """
    a_1 = halves(A_rk.abs().max()[None] / 1.5)
    B_gi = B_kn.reshape(-1, group)
    b_g = halves(B_gi.abs().amax(1) / 7.5)
    left = (A_rk.reshape(1, -1) * inverse(a_1)[:, None]).round().clamp(-2, 1).to(torch.int8)
    right = (B_gi * inverse(b_g)[:, None]).round().clamp(-8, 7).to(torch.int8)
    return GroupedFactors(QTensor(left, a_1, 2), QTensor(right, b_g, 4))
