"""The mathematics of Muon: an approximate orthogonal factor of a stack of matrices, by matrix products alone.

Jordan et al., "Muon" (2024), https://kellerjordan.github.io/posts/muon/; Amsel, Persson, Musco, Gower, "The Polar
Express" (2025), arXiv 2505.16932. The momentum's singular values are all moved towards 1, its singular vectors kept.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from pgolf.optim.kinds import Coefficients

Polynomial = tuple[float, float, float]  # (a, b, c) of p(x) = a x + b x³ + c x⁵

QUINTIC: Polynomial = (3.4445, -4.7750, 2.0315)

# Optimal for singular values from 1e-3 up, each given the ones before it (arXiv 2505.16932, algorithm 1).
POLAR_EXPRESS: tuple[Polynomial, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
SAFETY = 1.01  # for rounding (arXiv 2505.16932): singular values are kept this factor below where p would grow

# Before these steps the Gram iteration begins afresh from X. Rounding leaves X Xᵀ slightly indefinite, and every
# step without a fresh start multiplies that error by a², so fewer digits need earlier restarts.
RESTARTS = {torch.bfloat16: (2, 5, 8), torch.float32: (5,), torch.float64: ()}


def polynomials(coefficients: Coefficients, steps: int) -> list[Polynomial]:
    """The polynomial of each step. Polar Express's last one serves for all later steps.

    >>> polynomials(Coefficients.QUINTIC, 2)
    [(3.4445, -4.775, 2.0315), (3.4445, -4.775, 2.0315)]
    """
    if coefficients is Coefficients.QUINTIC:
        return [QUINTIC] * steps
    *moving, last = POLAR_EXPRESS
    safe = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in moving]
    return [safe[i] if i < len(safe) else last for i in range(steps)]


def orthogonalize(G_BMN: Tensor, steps: int, coefficients: Coefficients, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """U Vᵀ, nearly, of each G = U S Vᵀ in the stack; computed and returned in `dtype`.

    Each step is X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X on the orientation whose X Xᵀ is smaller. Matrices at least twice
    as long as wide iterate on X Xᵀ itself, which needs fewer products. A zero matrix stays zero.

    Example: diag(3, 4) is scaled to diag(.6, .8), and five quintic steps give about diag(.7, 1.2): near 1, not at it.
    """
    tall = G_BMN.size(-2) > G_BMN.size(-1)
    X_BMN = G_BMN.mT if tall else G_BMN
    margin = 1.0 if coefficients is Coefficients.QUINTIC else SAFETY
    X_BMN = (X_BMN / (X_BMN.norm(dim=(-2, -1), keepdim=True) * margin + 1e-7)).to(dtype)
    iterate = _iterate_gram if 2 * X_BMN.size(-2) <= X_BMN.size(-1) else _iterate
    X_BMN = iterate(X_BMN, polynomials(coefficients, steps))
    return X_BMN.mT if tall else X_BMN


def _iterate(X_BMN: Tensor, abc: list[Polynomial]) -> Tensor:
    for a, b, c in abc:
        A_BMM = X_BMN @ X_BMN.mT
        B_BMM = torch.baddbmm(A_BMM, A_BMM, A_BMM, beta=b, alpha=c)
        X_BMN = torch.baddbmm(X_BMN, B_BMM, X_BMN, beta=a)
    return X_BMN


def _iterate_gram(X_BMN: Tensor, abc: list[Polynomial]) -> Tensor:
    starts = [0, *(r for r in RESTARTS[X_BMN.dtype] if r < len(abc)), len(abc)]
    for first, end in pairwise(starts):
        X_BMN = _product(X_BMN @ X_BMN.mT, abc[first:end]) @ X_BMN
    return X_BMN


def _product(A_BMM: Tensor, abc: list[Polynomial]) -> Tensor:
    """Q with Q X = the iterate of X, from A = X Xᵀ: Q is the product of P = a + b A + c A², and A becomes P A P."""
    Q_BMM = None
    for i, (a, b, c) in enumerate(abc):
        B_BMM = torch.baddbmm(A_BMM, A_BMM, A_BMM, beta=b, alpha=c)
        if Q_BMM is None:
            Q_BMM = B_BMM.clone()
            Q_BMM.diagonal(dim1=-2, dim2=-1).add_(a)
        else:
            Q_BMM = torch.baddbmm(Q_BMM, B_BMM, Q_BMM, beta=a)
        if i + 1 < len(abc):
            PA_BMM = torch.baddbmm(A_BMM, B_BMM, A_BMM, beta=a)
            A_BMM = torch.baddbmm(PA_BMM, PA_BMM, B_BMM, beta=a)
    return Q_BMM


def row_normalized(U_BMN: Tensor) -> Tensor:
    """Each row at length 1 (MuonEq-R, pull request 1852); rows of zeros stay. [[3, 4]] → [[.6, .8]]."""
    return U_BMN / U_BMN.norm(dim=-1, keepdim=True).clamp_min(1e-7)


def shape_factor(rows: int, cols: int) -> float:
    """√max(1, rows/cols): how much longer than orthogonal the step of a tall matrix is. (1024, 256) → 2."""
    return math.sqrt(max(1.0, rows / cols))
