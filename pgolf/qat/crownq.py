"""CROWN-Q: a price on the error that rounding will make, so that rows on which the loss bends sharply get fine steps.

Pull request 1129 took the row maximum out of the graph and looked for h in optimiser state that its matrices did not have:
a constant without a gradient. Here the maximum is differentiated and h comes from the reduced gradient itself.
"""

import math

import torch
from torch import Tensor, nn

from pgolf.files.receipts import Receipt


def crown_q(W_MN: Tensor, h_M: Tensor, c: int) -> Tensor:
    """Σ h · Δ²/12 over rows, Δ = max|row|/c the step of the row and Δ²/12 the variance of rounding to it.

    >>> crown_q(torch.tensor([[3.0, -6.0], [0.0, 3.0]]), torch.tensor([1.0, 8.0]), 3).item()
    1.0
    """
    step_M = W_MN.abs().amax(-1) / c
    return (h_M * step_M.square()).sum() / 12


class Penalty:
    """`weight` · crown_q as a term of the gradient. `cs` holds the largest symbol of each weight that it is for.

    A rank adds it to the reduced gradients of the matrices whose momentum it owns, so the result is that of one rank.
    """

    def __init__(self, cs: dict[nn.Parameter, int], weight: float, decay: float):
        self.cs, self.weight, self.decay = cs, weight, decay
        self.reset()

    def reset(self) -> None:
        """Forget moments and sums."""
        self.moments: dict[nn.Parameter, Tensor] = {}
        self.squares = torch.zeros(())

    def add_(self, weights: list[nn.Parameter], gradient_BMN: Tensor) -> None:
        """Take note of the gradients of `weights`, all of one shape, and add the penalty's in place."""
        for w, g_MN in zip(weights, gradient_BMN, strict=False):  # what is left over is padding
            if w in self.cs:
                moment_M = g_MN.square().mean(-1)
                self.moments[w] = torch.lerp(moment_M, self.moments.get(w, moment_M), self.decay)
                g_MN += self._gradient(w)

    def _gradient(self, weight: nn.Parameter) -> Tensor:
        moment_M = self.moments[weight]
        h_M = moment_M / moment_M.mean().clamp_min(torch.finfo(torch.float32).tiny)
        with torch.enable_grad():
            W_MN = weight.detach().float().requires_grad_()
            (g_MN,) = torch.autograd.grad(self.weight * crown_q(W_MN, h_M, self.cs[weight]), W_MN)
        self.squares = self.squares.to(g_MN.device) + g_MN.square().sum()
        return g_MN

    def receipt(self, steps: int) -> Receipt:
        """The mean norm of the penalty's gradient over `steps`."""
        norm = math.sqrt(self.squares.item() / max(steps, 1))
        return Receipt("qat", "norm of the penalty's gradient, mean over steps, first rank's matrices", norm, norm > 0)
