"""Rounding that lets gradients through, as pure functions. Weights are (rows, columns), `s` is the step of each row, (rows,
1), and the symbols stay in [−c, c], exactly as in the file."""

import torch
from torch import Tensor


def straight_through(W: Tensor, s: Tensor, c: int) -> Tensor:
    """s · clamp(round(W/s)) with the gradient of the identity. Rows whose step is 0 pass as they are.

    >>> straight_through(torch.tensor([[0.6, -9.0]]), torch.ones(1, 1), 3).tolist()
    [[1.0, -3.0]]
    """
    q = (W / s.clamp_min(TINY)).round().clamp(-c, c) * s
    return W + (torch.where(s > 0, q, W) - W).detach()


def soft_round(y: Tensor, alpha: Tensor) -> Tensor:
    """s_α(y) = ⌊y⌋ + ½ tanh(α r)/tanh(α/2) + ½ with r = y − ⌊y⌋ − ½ (Agustsson & Theis 2020, arXiv 2006.09952, eq. 6).

    α → 0 is the identity, α → ∞ rounds; integers stay where they are.

    >>> soft_round(torch.tensor([0.25, 0.5, 1.0]), torch.tensor(16.0)).mul(1000).round().tolist()
    [0.0, 500.0, 1000.0]
    """
    r = y - y.floor() - 0.5
    return y.floor() + 0.5 * torch.tanh(alpha * r) / torch.tanh(alpha / 2) + 0.5


def soft_stairs(W: Tensor, s: Tensor, c: int, alpha: Tensor) -> Tensor:
    """s · clamp(s_α(W/s)): gradients grow near the edges between symbols and stop beyond ±c."""
    q = soft_round(W / s.clamp_min(TINY), alpha).clamp(-c, c) * s
    return torch.where(s > 0, q, W)


TINY = 2.0**-24  # the smallest fp16 step
