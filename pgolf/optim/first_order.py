"""AdamW and SGD over a list of weights, by torch's own kernels.

torch.optim has both as classes; those load torch's compiler, two seconds of every process that trains or judges."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class FirstOrder(ABC):
    """Steps `weights`, each of which must have its gradient, at the rate `lr`, which may be set between steps."""

    weights: list[Tensor]
    lr: float

    @abstractmethod
    def step(self) -> None:
        """Apply the gradients."""


class AdamW(FirstOrder):
    """m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  w ← (1 − lr·decay) w − lr·m̂ / (√v̂ + ε), where m̂ = m / (1 − β₁ᵗ) and
    v̂ = v / (1 − β₂ᵗ) (arXiv 1711.05101)."""

    def __init__(self, weights: list[Tensor], lr: float, betas: tuple[float, ...], eps: float, weight_decay: float):
        self.weights, self.lr = weights, lr
        self.constants = dict(zip(("beta1", "beta2"), betas, strict=True), eps=eps, weight_decay=weight_decay)
        self.m, self.v = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
        self.t = torch.zeros((), device=weights[0].device)

    @torch.no_grad()
    def step(self, finite: Tensor | None = None) -> None:
        """Apply the gradients; where `finite`, a scalar, is false, nothing changes."""
        self.t += 1 if finite is None else finite
        torch._fused_adamw_(
            self.weights,
            [w.grad for w in self.weights],
            self.m,
            self.v,
            [],
            [self.t] * len(self.weights),
            lr=self.lr,
            **self.constants,
            amsgrad=False,
            maximize=False,
            found_inf=None if finite is None else (~finite).float(),
        )


class SGD(FirstOrder):
    """b ← μ b + g,  w ← w − lr·b."""

    def __init__(self, weights: list[Tensor], lr: float, momentum: float):
        self.weights, self.lr, self.momentum = weights, lr, momentum
        self.b = [torch.zeros_like(w) for w in weights]

    @torch.no_grad()
    def step(self) -> None:
        torch._foreach_mul_(self.b, self.momentum)
        torch._foreach_add_(self.b, [w.grad for w in self.weights])
        torch._foreach_add_(self.weights, self.b, alpha=-self.lr)
