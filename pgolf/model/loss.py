"""From scores before the softcap to nats: z = C tanh(x / C), nll = logsumexp(z) − z_y, all in float32 or wider.

The fused form keeps nothing but the scores: the backward pass takes them up again, some rows at a time, and leaves the gradient
(softmax(z) − 1_y) (1 − tanh²(x / C)) in their dtype. Source: the kernel of parameter-golf pull request 1787.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def capped(x: Tensor, cap: float | None) -> Tensor:
    """C tanh(x / C), in float32 or wider; x itself where there is no cap.

    >>> capped(torch.tensor([0.0, 1e9]), 30.0).tolist()
    [0.0, 30.0]
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x if cap is None else cap * torch.tanh(x / cap)


def plain_nll(x_NV: Tensor, y_N: Tensor, cap: float | None) -> Tensor:
    """Nats of each target, (N,) float32."""
    return F.cross_entropy(capped(x_NV, cap), y_N, reduction="none")


def fused_nll(x_NV: Tensor, y_N: Tensor, cap: float | None, rows: int) -> Tensor:
    """The same, `rows` targets at a time, forward and backward."""
    return Fused.apply(x_NV, y_N, cap, rows)


class Fused(torch.autograd.Function):
    """`plain_nll` that keeps its inputs alone."""

    @staticmethod
    def forward(ctx, x_NV: Tensor, y_N: Tensor, cap: float | None, rows: int) -> Tensor:
        ctx.save_for_backward(x_NV, y_N)
        ctx.cap, ctx.rows = cap, rows
        return torch.cat([plain_nll(x, y, cap) for x, y in zip(x_NV.split(rows), y_N.split(rows), strict=True)])

    @staticmethod
    def backward(ctx, grad_N: Tensor) -> tuple[Tensor, None, None, None]:
        x_NV, y_N = ctx.saved_tensors
        out_NV = torch.empty_like(x_NV)
        parts = zip(*(t.split(ctx.rows) for t in (x_NV, y_N, grad_N, out_NV)), strict=True)
        for x, y, grad, out in parts:
            z = capped(x, ctx.cap)
            p = z.softmax(1)
            p[torch.arange(len(y), device=y.device), y] -= 1
            p *= grad[:, None]
            if ctx.cap is not None:
                p *= 1 - (z / ctx.cap).square()
            out.copy_(p)
        return out_NV, None, None, None
