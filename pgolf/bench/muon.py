"""Muon's orthogonalisation of the 66 matrices of an 11-layer model, 5 steps, against a loop over matrices.

bf16 on a GPU, where it is what training uses; float32 on a CPU, for the same reason.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgolf.bench.contest import Contest, DisagreementError, Setting, matmul_floor
from pgolf.optim import Coefficients
from pgolf.optim.muon import QUINTIC, orthogonalize

MODEL = ((22, 512, 512), (22, 256, 512), (11, 2048, 512), (11, 512, 2048))  # how many, rows, columns
STEPS = 5


def contests(setting: Setting) -> Iterator[Contest]:
    """Newton–Schulz one matrix at a time against stacks of equal shapes."""
    kinds = [
        (max(1, n // setting.pick(11, 4, 1)), r // setting.pick(8, 1, 1), c // setting.pick(8, 1, 1))
        for n, r, c in MODEL
    ]
    dtype = torch.bfloat16 if setting.device == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    stacks = [torch.randn(kind, generator=generator).to(setting.device) for kind in kinds]

    def one_by_one() -> list[Tensor]:
        return [torch.stack([newton_schulz(G, dtype) for G in stack]) for stack in stacks]

    def stacked() -> list[Tensor]:
        return [orthogonalize(stack, STEPS, Coefficients.QUINTIC, dtype) for stack in stacks]

    def check(made: dict[str, list[Tensor]]) -> str:
        looped, ours = made.values()
        apart = max(((a - b).norm() / a.norm()).item() for a, b in zip(looped, ours, strict=True))
        if apart > (0.05 if dtype == torch.bfloat16 else 1e-3):
            raise DisagreementError(f"the results are {apart:.2e} apart, relative to their size")
        return f"results at most {apart:.1e} apart, relative to their size"

    yield Contest(
        f"{sum(n for n, _, _ in kinds)} matrices, {STEPS} steps, {str(dtype).removeprefix('torch.')}",
        {"one by one": one_by_one, "pgolf, same shapes stacked": stacked},
        check,
        matmul_floor(sum(n * least_flops(r, c) for n, r, c in kinds), dtype, setting.device),
    )


def newton_schulz(G: Tensor, dtype: torch.dtype) -> Tensor:
    """The usual loop body: X ← a X + (b A + c A²) X with A = X Xᵀ, transposed if tall."""
    X = (G.mT if G.shape[0] > G.shape[1] else G) / (G.norm() + 1e-7)
    X, (a, b, c) = X.to(dtype), QUINTIC
    for _ in range(STEPS):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if G.shape[0] > G.shape[1] else X


def least_flops(rows: int, columns: int) -> int:
    """Iterating on the Gram matrix of the short side: X Xᵀ once, four square products a step, and one with X at the end."""
    m, n = min(rows, columns), max(rows, columns)
    plain = STEPS * (4 * m * m * n + 2 * m**3)
    return min(plain, 4 * m * m * n + STEPS * 8 * m**3)
