"""AWQ-lite (parameter-golf pull request 1945, after Lin et al. 2023, arXiv 2306.00978): the group of columns that matters most to
its layer's output gets more levels, inside the same GPTQ solution."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pgolf.files.receipts import Receipt
from pgolf.quant.apply import Quantized, Solver, TensorReport
from pgolf.quant.estimate import levels
from pgolf.quant.forms import FineColumns
from pgolf.quant.gptq import Factor, factor
from pgolf.quant.rows import Solution, as_rows, entropy, inverse, objective, std_steps

if TYPE_CHECKING:
    from pgolf.quant.sections import Sections


def without_dead(solve: Solver) -> Solver:
    """`solve` for weights whose inputs calibration never saw (H_jj = 0) set to 0: they are as good as any, and cost nothing."""

    def solved(W_Brn: Tensor, H_Bnn: list[Tensor], scale_Br: Tensor, c: int) -> Solution:
        alive_B1n = torch.stack([H.diagonal() > 0 for H in H_Bnn])[:, None]
        return solve(W_Brn * alive_B1n, H_Bnn, scale_Br, c)

    return solved


class Group(NamedTuple):
    """`width` columns of a tensor from `start` on, and their score."""

    score: float
    row: TensorReport
    start: int


def scores(W_rn: Tensor, H_nn: Tensor, width: int) -> Tensor:
    """Σ_j r_j a_j over every `width` neighbouring columns, r_j = √H_jj the inputs' root mean square, a_j = mean_i |W_ij|.

    >>> scores(torch.tensor([[1.0, 1.0, 2.0, 0.0]]), torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0])), 2).tolist()
    [3.0, 2.0]
    """
    return (H_nn.diagonal().clamp_min(0).sqrt() * W_rn.abs().mean(0)).view(-1, width).sum(1)


def best_group(out: Quantized, weights: Mapping[str, Tensor], roots: Mapping[str, Tensor], quant: "Sections") -> Group:
    """The group of highest score over all tensors below `quant.protect.bits` that have a Hessian."""
    found = []
    for row in out.layers:
        if row.weighted and row.bits < quant.protect.bits:
            score_g = scores(as_rows(weights[row.name]).float(), roots[row.name], quant.protect.group)
            g = int(score_g.argmax())
            found.append(Group(score_g[g].item(), row, g * quant.protect.group))
    return max(found, key=lambda group: group.score)


def mixed(W_rn: Tensor, f: Factor, step_rn: Tensor, c_n: Tensor) -> Tensor:
    """GPTQ where columns differ in step and range. Symbols (r, n), q_j = round(a_j / s_j), a_j = w_j + Σ_{i>j} e_i T_ij,
    e_i = w_i − q_i s_i.

    One tensor of a model needs it, so the columns go one by one.
    """
    W_nr, s_nr = (t.mT.index_select(0, f.order_n).float() for t in (W_rn, step_rn))
    per_step_nr, c_n = inverse(s_nr), c_n[f.order_n]
    q_nr, e_nr = torch.zeros_like(W_nr), torch.zeros_like(W_nr)
    for j in range(len(W_nr) - 1, -1, -1):
        owed_r = W_nr[j] + f.T_nn[j + 1 :, j] @ e_nr[j + 1 :]
        q_nr[j] = (owed_r * per_step_nr[j]).round().clamp(-c_n[j], c_n[j])
        e_nr[j] = W_nr[j] - q_nr[j] * s_nr[j]
    return q_nr.index_select(0, f.order_n.argsort()).mT.to(torch.int8)


@torch.no_grad()
def protect(out: Quantized, model: nn.Module, hessians: Mapping[str, Tensor], quant: "Sections") -> None:
    """Store the best group of `out` at `quant.protect.bits`, with a receipt."""
    weights, order = dict(model.named_parameters()), model.spec.order(True)
    roots = {name: H / visits(name, order) for name, H in hessians.items()}
    _, row, start = best_group(out, weights, roots, quant)
    W_rn, H = as_rows(weights[row.name].detach()).float(), hessians[row.name]
    stored, columns = out.tensors[row.name], slice(start, start + quant.protect.group)
    fine_r = std_steps(W_rn, levels(quant.protect.bits), quant.step(row.section).k)
    step_rn = stored.scale.float()[:, None].repeat(1, W_rn.shape[1])
    step_rn[:, columns] = fine_r.float()[:, None]
    c_n = torch.full((W_rn.shape[1],), levels(row.bits), device=W_rn.device)
    c_n[columns] = levels(quant.protect.bits)
    q_rn = mixed(W_rn * (H.diagonal() > 0), factor(H, quant.solver.damp), step_rn, c_n)
    span = torch.tensor([start, quant.protect.group], dtype=torch.float32)
    better = replace(stored, symbols=q_rn.view(stored.shape), extras=(FineColumns(fine_r, span),))
    before, after = (objective((W_rn - as_rows(t.dequantize()))[None], [H]).sum().item() for t in (stored, better))
    out.tensors[row.name], ratio = better, after / max(before, 1e-30)
    new = replace(row, error=row.error * ratio, entropy=entropy(q_rn))
    out.layers[out.layers.index(row)] = new
    what = f"output error of {row.name} with columns {start} to {columns.stop - 1} at int{quant.protect.bits}, over that without"
    out.receipts.append(Receipt("quant.protect", what, ratio, alive=ratio < 1))


def visits(name: str, order: tuple[int, ...]) -> int:
    """How often a forward pass comes by a parameter: Hessians add up the visits of a looped block."""
    parts = name.split(".")
    return order.count(int(parts[1])) if parts[0] == "blocks" else 1
