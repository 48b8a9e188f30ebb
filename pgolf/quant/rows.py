"""One step size per output row of a weight matrix, and what follows from it: symbols by plain rounding, the error they
make at the layer's output, their entropy. Symbols are integers in [−c, c], c = 2^(bits−1) − 1; value = symbol × step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

HALF_MAX = 65504.0


def as_rows(W: Tensor) -> Tensor:
    """Any weight as (rows, columns): the first dimension stays, the others are laid out in a line."""
    return W.reshape(W.shape[0], -1)


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 where the scale is 0: such a row is all zeros."""
    s = scale.float()
    return torch.where(s > 0, 1 / s.clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def nearest(W_rn: Tensor, scale_r: Tensor, c: int) -> Tensor:
    """Plain rounding (also batched, with leading dimensions).

    >>> nearest(torch.tensor([[0.9, -2.6, 9.0]]), torch.tensor([1.0]), c=3).tolist()
    [[1, -3, 3]]
    """
    return (W_rn.float() * inverse(scale_r)[..., None]).round_().clamp_(-c, c).to(torch.int8)


def quantile_steps(W_rn: Tensor, c: int, quantiles: tuple[float, ...]) -> Tensor:
    """Per row the clip among quantiles of |w| that leaves the least squared error, as fp16 steps (clip / c).

    >>> quantile_steps(torch.tensor([[0.0, 1.0, 2.0, 30.0]]), c=15, quantiles=(0.5, 1.0)).tolist()   # keeps the 30
    [2.0]
    """
    W = W_rn.float()
    best_r = torch.full((len(W),), torch.inf, device=W.device)
    scale_r = torch.full((len(W),), torch.inf, dtype=torch.float16, device=W.device)
    for clip_r in row_quantiles(W.abs(), quantiles):
        s = halves(clip_r / c)
        error_r = (W - nearest(W, s, c) * s.float()[:, None]).square_().sum(1)
        scale_r, best_r = torch.where(error_r < best_r, s, scale_r), torch.minimum(error_r, best_r)
    return scale_r


def row_quantiles(A_rn: Tensor, quantiles: tuple[float, ...]) -> list[Tensor]:
    """Linear-interpolated quantiles of every row, one tensor each: torch.quantile without its limit of 16 M elements."""
    ranked = A_rn.sort(dim=1).values
    places = [p * (A_rn.shape[1] - 1) for p in quantiles]
    return [torch.lerp(ranked[:, int(x)], ranked[:, math.ceil(x)], x - int(x)) for x in places]


def std_steps(W_rn: Tensor, c: int, k: float) -> Tensor:
    """k·std(row)/c as fp16. A row that lies off centre by more than its clip (a constant row) takes max|row|/c instead."""
    W = W_rn.float()
    clip_r = k * W.std(1, correction=min(1, W.shape[1] - 1))
    return halves(torch.where(clip_r > W.mean(1).abs(), clip_r, W.abs().amax(1)) / c)


def max_steps(W_rn: Tensor, c: int) -> Tensor:
    """max|row|/c as fp16: nothing is clipped."""
    return halves(W_rn.float().abs().amax(1) / c)


def pruned(W_Brn: Tensor, share: float) -> Tensor:
    """Each matrix with the `share` of its weights that are smallest set to 0.

    >>> pruned(torch.tensor([[[3.0, -1.0], [0.5, 2.0]]]), 0.25).tolist()
    [[[3.0, -1.0], [0.0, 2.0]]]
    """
    flat_Bi = W_Brn.flatten(1)
    places_Bk = flat_Bi.abs().topk(int(share * flat_Bi.shape[1]), dim=1, largest=False).indices
    return flat_Bi.scatter(1, places_Bk, 0.0).view_as(W_Brn)


def halves(scale_r: Tensor) -> Tensor:
    """fp16 scales. One beyond the range of fp16 becomes infinite, which the export refuses: looking here would make QAT wait."""
    return scale_r.to(torch.float16)


def objective(E_Brn: Tensor, H_Bnn: list[Tensor]) -> Tensor:
    """e H eᵀ of every row: the squared change of the layer's output, (B, r).

    >>> objective(torch.tensor([[[1.0, 2.0]]]), [torch.eye(2)]).tolist()
    [[5.0]]
    """
    return torch.stack([(E @ H.to(E.dtype)).mul_(E).sum(1) for E, H in zip(E_Brn, H_Bnn, strict=True)]).clamp_min_(0)


def entropy(symbols: Tensor) -> float:
    """Order-0 entropy in bits per symbol: what a coder that knows only the histogram pays.

    >>> entropy(torch.tensor([0, 0, 1, 1], dtype=torch.int8))
    1.0
    """
    counts = torch.bincount(symbols.flatten().int() + 128, minlength=256)
    p = counts[counts > 0].double() / symbols.numel()
    return abs(-(p * p.log2()).sum().item())


@dataclass(frozen=True)
class Solution:
    """`symbols` (B, r, n) int8, their objective e H eᵀ per row (B, r), and that of plain rounding with the same scales."""

    symbols: Tensor
    error: Tensor
    rounding: Tensor
    notices: tuple[str, ...]


def round_all(W_Brn: Tensor, H_Bnn: list[Tensor], scale_Br: Tensor, c: int) -> Solution:
    """Plain rounding, in the form of a solver."""
    symbols = nearest(W_Brn, scale_Br, c)
    error_Br = objective(W_Brn.float() - symbols * scale_Br.float()[..., None], H_Bnn)
    return Solution(symbols, error_Br, error_Br, ("",) * len(H_Bnn))
