"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) as pure functions: choose integers q so that the layer's *output* moves
least, min tr((W − sq) H (W − sq)ᵀ) with H = XᵀX. The form here is Babai's nearest plane, which needs one Cholesky factor
and yields the symbols of the classic column loop. Layers of one shape are solved together along a batch dimension B."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pgolf.quant.rows import Solution, inverse, objective

RAISES = 5  # each multiplies the damping by 10: 1 % becomes 1000 × the mean diagonal, where H hardly speaks any more
STEP = 16  # columns that settle together: with fewer there are more operations, with more there are more turns


@dataclass(frozen=True)
class Factor:
    """H + diag(d) = L Lᵀ, all in `order` of columns; kept as T_ij = L_ij / L_jj (unit diagonal) and r_j = L_jj."""

    order_n: Tensor
    T_nn: Tensor
    r_n: Tensor
    d_n: Tensor
    damp: float
    """The damping that made H positive definite, as a share of its mean diagonal; inf if none did (then T = I)."""
    raised: bool
    dead: int


def factor(H_nn: Tensor, damp: float = 0.01, act_order: bool = True) -> Factor:
    """Factorise one Hessian for `babai`, which visits columns from last to first: so the busiest column comes last.

    Columns that were never active (H_jj = 0) get H_jj = 1, which couples them to nothing. Where H + damp·mean·I is not
    positive definite the damping grows tenfold, a few times; a matrix that resists all of it is replaced by I.

    >>> f = factor(torch.tensor([[1.0, 1.0], [1.0, 4.0]]), damp=0.0)
    >>> f.order_n.tolist(), f.T_nn.tolist()
    ([0, 1], [[1.0, 0.0], [1.0, 1.0]])
    """
    a_n = H_nn.diagonal().float()
    dead_n = (a_n <= 0).float()
    mean, dead = (a_n + dead_n).mean(), int(dead_n.sum())
    order = a_n.argsort(stable=True) if act_order else torch.arange(len(a_n) - 1, -1, -1, device=a_n.device)
    for i in range(RAISES + 1):
        G = H_nn.float().index_select(0, order).index_select(1, order)
        d_n = (dead_n + damp * mean)[order]
        G.diagonal().add_(d_n)
        L, info = torch.linalg.cholesky_ex(G)
        r_n = L.diagonal().clone()
        if info == 0 and r_n.isfinite().all():
            return Factor(order, L.div_(r_n), r_n, d_n, damp, i > 0, dead)
        damp = max(10 * damp, 1e-3) if i < RAISES else damp
    ones = torch.ones_like(a_n)
    return Factor(order, torch.diag(ones), ones, ones, float("inf"), True, dead)


def babai(y_Bnr: Tensor, T_Bnn: Tensor, c: int, block: int = 128) -> tuple[Tensor, Tensor]:
    """Integers q in [−c, c] near `y` (weights in steps, columns first, in the order of `factor`), and the residuals.

    q_j = round(a_j) with a_j = y_j + Σ_{i>j} (y_i − q_i) T_ij: each column repays what those before it owe. r_j (a_j − q_j)
    is column j of (y − q) L, so the objective is Σ_j r_j² (a_j − q_j)² without another product.
    The debts of earlier blocks arrive as one matrix product, and `STEP` columns of a block settle together.

    >>> q, _ = babai(torch.tensor([[[0.4], [0.4]]]), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), c=1)
    >>> q.flatten().tolist()                               # rounding would give 0, 0
    [1.0, 0.0]
    """
    n = y_Bnr.shape[1]
    q, e, a = torch.empty_like(y_Bnr), torch.empty_like(y_Bnr), y_Bnr.clone()
    for t in range(n, 0, -block):
        s = max(t - block, 0)
        if t < n:
            a[:, s:t].baddbmm_(T_Bnn[:, t:, s:t].mT, e[:, t:])
        for v in range(t, s, -STEP):
            u = max(v - STEP, s)
            if v < t:
                a[:, u:v].baddbmm_(T_Bnn[:, v:t, u:v].mT, e[:, v:t])
            q[:, u:v], a[:, u:v] = _settled(y_Bnr[:, u:v], a[:, u:v], T_Bnn[:, u:v, u:v], c)
            torch.sub(y_Bnr[:, u:v], q[:, u:v], out=e[:, u:v])
    return q, a.sub_(q)


def _settled(y: Tensor, a: Tensor, T: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """q = round(a + Tᵀ(y − q)), T strictly triangular, for some columns at once: repeated until q stands still.

    Every turn settles one more column for good, the last one first; four turns are usual for sixteen columns, and each is
    a handful of operations where columns one by one would take as many apiece. The result is the same.
    """
    debts = T.tril(-1).mT.contiguous()
    q = a.round().clamp_(-c, c)
    for _ in range(a.shape[1]):
        owed = torch.baddbmm(a, debts, y - q)
        settled, q = q, owed.round().clamp_(-c, c)
        if torch.equal(settled, q):
            break
    return q, owed


def triangular_objective(e_Bnr: Tensor, T_Bnn: Tensor, r_Bn: Tensor, block: int = 256) -> Tensor:
    """‖e L‖² of every row, (B, r), L_ij = T_ij r_j lower triangular: half the work of a product with L Lᵀ.

    >>> triangular_objective(torch.tensor([[[1.0], [1.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.ones(1, 2))
    tensor([[5.]])
    """
    sums = e_Bnr.new_zeros(e_Bnr.shape[0], e_Bnr.shape[2])
    for s in range(0, e_Bnr.shape[1], block):
        t = s + block
        sums += (T_Bnn[:, s:, s:t].mT @ e_Bnr[:, s:]).mul_(r_Bn[:, s:t, None]).square_().sum(1)
    return sums


def solve(
    W_Brn: Tensor, H_Bnn: list[Tensor], factors: list[Factor], scale_Br: Tensor, c: int, block: int = 128
) -> Solution:
    """GPTQ of B layers of one shape. Babai's walk is greedy and may lose a row to plain rounding: that row is rounded.

    Rows share H but nothing else once their scales are fixed, so choosing row by row is exact.
    """
    d_Bn, r_Bn, T_Bnn = (_stacked(parts) for parts in zip(*((f.d_n, f.r_n, f.T_nn) for f in factors), strict=True))
    rows = zip(W_Brn.float() * inverse(scale_Br)[..., None], factors, strict=True)
    y_Bnr = _stacked([Y.mT.index_select(0, f.order_n) for Y, f in rows])
    q_Bnr, owed_Bnr = babai(y_Bnr, T_Bnn, c, block)
    nearest_Bnr = y_Bnr.round().clamp_(-c, c)
    walked_Br = owed_Bnr.mul_(r_Bn[..., None]).square_().sum(1)
    rounding_Br = triangular_objective(y_Bnr - nearest_Bnr, T_Bnn, r_Bn)
    for error_Br, symbols_Bnr in ((walked_Br, q_Bnr), (rounding_Br, nearest_Bnr)):
        _undamp(error_Br, y_Bnr - symbols_Bnr, d_Bn, H_Bnn, factors)
    q_Bnr = torch.where((walked_Br <= rounding_Br)[:, None], q_Bnr, nearest_Bnr).to(torch.int8)
    Q = [q.index_select(0, f.order_n.argsort()).mT for q, f in zip(q_Bnr, factors, strict=True)]
    unit_Br = scale_Br.float().square()
    error_Br = torch.minimum(walked_Br, rounding_Br) * unit_Br
    return Solution(torch.stack(Q).contiguous(), error_Br, rounding_Br * unit_Br, tuple(map(_notice, factors)))


def _undamp(error_Br: Tensor, e_Bnr: Tensor, d_Bn: Tensor, H_Bnn: list[Tensor], factors: list[Factor]) -> None:
    """From e (H + diag d) eᵀ to e H eᵀ, in place; anew where the difference would be all damping and rounding noise."""
    error_Br.sub_((e_Bnr.square() * d_Bn[..., None]).sum(1)).clamp_min_(0)
    for b, f in enumerate(factors):
        if f.raised:
            E_rn = e_Bnr[b].index_select(0, f.order_n.argsort()).mT
            error_Br[b] = objective(E_rn[None], H_Bnn[b : b + 1])[0]


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(parts) if len(parts) > 1 else parts[0][None]


@dataclass(frozen=True)
class GptqSolver:
    """`solve` with its numbers, and every Hessian factorised once however many layers share it."""

    block: int
    damp: float
    factors: dict[int, Factor] = field(default_factory=dict)

    def __call__(self, W_Brn: Tensor, H_Bnn: list[Tensor], scale_Br: Tensor, c: int) -> Solution:
        for H in H_Bnn:
            if id(H) not in self.factors:
                self.factors[id(H)] = factor(H, self.damp)
        return solve(W_Brn, H_Bnn, [self.factors[id(H)] for H in H_Bnn], scale_Br, c, self.block)


def gptq(
    W_rn: Tensor,
    H_nn: Tensor,
    scale_r: Tensor,
    c: int,
    block: int = 128,
    damp: float = 0.01,
    act_order: bool = True,
) -> Tensor:
    """Symbols int8 in [−c, c] for one layer W (rows, columns), given H = XᵀX of its inputs and a step per row.

    >>> H = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    >>> gptq(torch.tensor([[0.4, 0.4]]), H, torch.ones(1), c=1).tolist()      # 0 + 1 is nearer to .4 + .4 than 0 + 0
    [[1, 0]]
    """
    return solve(W_rn[None], [H_nn], [factor(H_nn, damp, act_order)], scale_r[None], c, block).symbols[0]


def _notice(f: Factor) -> str:
    """What a reader of the report should know of a layer's Hessian; '' where all was well."""
    if f.damp == float("inf"):
        return "Hessian not positive definite under any damping tried: rounded"
    if f.dead == len(f.r_n):
        return "no input was ever active: rounded"
    if f.raised:
        return f"singular Hessian: damping raised to {f.damp:g} of its mean diagonal"
    return f"{f.dead} of {len(f.r_n)} inputs were never active" if f.dead else ""
