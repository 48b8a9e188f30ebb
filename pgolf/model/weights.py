"""Lists of weights, in the order of `model.parameters()`: copies of them, a look with others in their place, distances."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def copies(weights: Iterable[Tensor]) -> list[Tensor]:
    """Their present values."""
    return [w.detach().clone() for w in weights]


@torch.no_grad()
def score_with(values: list[Tensor], weights: list[Tensor], score: Callable[[], float]) -> float:
    """`score()` once `weights` have these values, which they keep."""
    torch._foreach_copy_(weights, values)
    return score()


def distance(before: list[Tensor], after: list[Tensor]) -> float:
    """L2 distance between two lists of tensors."""
    apart = torch._foreach_sub([a.detach() for a in after], before)
    return torch.stack(torch._foreach_norm(apart, dtype=torch.float64)).norm().item()
