"""GPTQ of one layer of 512 × 1792 and of a whole model's layers, against the column loop of Frantar et al.

The loops are written here, as Frantar et al. and the public scripts have them, to be compared with.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgolf.bench.contest import Contest, DisagreementError, Setting, matmul_floor
from pgolf.quant.gptq import GptqSolver, gptq
from pgolf.quant.rows import nearest, objective, std_steps

C, DAMP, BLOCK = 31, 0.01, 128
MODEL = (
    (22, 512, 512),
    (22, 256, 512),
    (11, 2048, 512),
    (11, 512, 2048),
    (1, 8192, 512),
)  # how many, rows, columns


def contests(setting: Setting) -> Iterator[Contest]:
    """One layer, then the layers of a whole model."""
    yield layer(setting, *setting.pick((24, 96), (512, 1792), (512, 1792)))
    share = setting.pick(16, 4, 1)  # of the number of layers; small also has smaller ones
    shrink = setting.pick(16, 1, 1)
    yield model(setting, [(max(1, n // share), r // shrink, c // shrink) for n, r, c in MODEL])


def problem(rows: int, columns: int, seed: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """W, the H of correlated inputs, and row steps."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    X = torch.randn(2 * columns, columns, generator=generator) @ mix
    W = torch.randn(rows, columns, generator=generator)
    return W.to(device), (X.mT @ X / len(X)).to(device), std_steps(W, C, 4.0).to(device)


def prepared(H: Tensor) -> tuple[Tensor, Tensor]:
    """Damped, in descending order of activation: the order and the upper Cholesky factor of H⁻¹, by three factorisations."""
    H = H.clone()
    H.diagonal().add_(DAMP * H.diagonal().mean())
    order = H.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)


def column_loop(W: Tensor, H: Tensor, scale: Tensor, block: int) -> Tensor:
    """The published loop: each column's error goes to the later ones of its block at once, and to the rest block by block."""
    order, U = prepared(H)
    W, s, Q = W[:, order].clone(), scale.float(), torch.zeros_like(W)
    for a in range(0, W.shape[1], block):
        b = min(a + block, W.shape[1])
        errors = torch.zeros_like(W[:, a:b])
        for j in range(a, b):
            Q[:, j] = (W[:, j] / s).round().clamp(-C, C)
            errors[:, j - a] = (W[:, j] - Q[:, j] * s) / U[j, j]
            W[:, j:b] -= torch.outer(errors[:, j - a], U[j, j:b])
        W[:, b:] -= errors @ U[a:b, b:]
    return Q[:, order.argsort()].to(torch.int8)


def without_elimination(W: Tensor, H: Tensor, scale: Tensor) -> Tensor:
    """What pull request 606 ran: rows of H⁻¹ itself, columns in their own order."""
    H = H.clone()
    H.diagonal().add_(DAMP * H.diagonal().mean())
    inverse, W, s, Q = torch.linalg.inv(H), W.clone(), scale.float(), torch.zeros_like(W)
    for j in range(W.shape[1]):
        Q[:, j] = (W[:, j] / s).round().clamp(-C, C)
        W[:, j:] -= torch.outer((W[:, j] - Q[:, j] * s) / inverse[j, j], inverse[j, j:])
    return Q.to(torch.int8)


def error(q: Tensor, W: Tensor, H: Tensor, scale: Tensor) -> float:
    """tr((W − s·q) H (W − s·q)ᵀ): the Hessian-weighted error of the symbols `q`."""
    return objective((W - q * scale.float()[:, None])[None], [H]).sum().item()


def layer(setting: Setting, rows: int, columns: int) -> Contest:
    """GPTQ of one matrix (rows, columns)."""
    W, H, scale = problem(rows, columns, 0, setting.device)
    rounding = error(nearest(W, scale, C), W, H, scale)

    def check(made: dict[str, Tensor]) -> str:
        same = (made["column loop"] == made["pgolf"]).float().mean().item()
        ratio = error(made["pgolf"], W, H, scale) / error(without_elimination(W, H, scale), W, H, scale)
        if same < 0.99 or ratio > 0.5:
            raise DisagreementError(f"{same:.4%} of symbols agree; error {ratio:.3f} of that without elimination")
        return f"{same:.3%} of symbols as in the column loop; error {ratio:.3f} of that without elimination"

    flops = columns**3 / 3 + 2 * rows * columns**2 / 2
    return Contest(
        f"one layer {rows}×{columns}",
        {
            "column loop": lambda: column_loop(W, H, scale, columns),
            "in blocks of 128": lambda: column_loop(W, H, scale, BLOCK),
            "pgolf": lambda: gptq(W, H, scale, C, BLOCK, DAMP),
        },
        check,
        matmul_floor(flops, torch.float32, setting.device),
        lambda way, q: f"error {error(q, W, H, scale) / rounding:.4f} of rounding's",
    )


def model(setting: Setting, kinds: list[tuple[int, int, int]]) -> Contest:
    """GPTQ of many matrices: `kinds` are (count, rows, columns)."""
    layers = [
        [problem(r, c, 100 * i + n, setting.device) for n in range(count)] for i, (count, r, c) in enumerate(kinds)
    ]

    def together() -> list[Tensor]:
        solver = GptqSolver(BLOCK, DAMP)
        return [
            q
            for same in layers
            for q in solver(
                torch.stack([W for W, _, _ in same]), [H for _, H, _ in same], torch.stack([s for _, _, s in same]), C
            ).symbols
        ]

    def check(made: dict[str, list[Tensor]]) -> str:
        looped, ours = (torch.cat([q.flatten() for q in way]) for way in made.values())
        same = (looped == ours).float().mean().item()
        errors = [
            sum(error(q, *p) for q, p in zip(way, [p for kind in layers for p in kind], strict=True))
            for way in made.values()
        ]
        if same < 0.99 or abs(errors[1] / errors[0] - 1) > 1e-3:
            raise DisagreementError(f"{same:.4%} of the model's symbols agree, errors {errors}")
        return f"{same:.3%} of symbols as in the column loop, error {errors[1] / errors[0]:.5f} of its"

    flops = sum(n * (c**3 / 3 + r * c**2) for n, r, c in kinds)
    return Contest(
        f"a model of {sum(n for n, _, _ in kinds)} layers, {sum(n * r * c for n, r, c in kinds):,} weights",
        {
            "layer by layer, blocks of 128": lambda: [column_loop(*p, BLOCK) for same in layers for p in same],
            "pgolf, same shapes together": together,
        },
        check,
        matmul_floor(flops, torch.float32, setting.device),
    )
