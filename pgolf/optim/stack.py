"""Matrices of one shape, stepped together. Over ranks each owns an equal share of the stack, and its momentum."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.machine.world import World
from pgolf.optim.muon import row_normalized, shape_factor

if TYPE_CHECKING:
    from pgolf.optim import MatrixStep


class Stack:
    """The `weights` by name, padded with zeros to a multiple of the ranks; rank r owns the r-th run of them."""

    def __init__(self, weights: dict[str, nn.Parameter], world: World):
        self.names, self.weights = list(weights), list(weights.values())
        rows, cols = self.weights[0].shape
        self.share = -(-len(self.weights) // world.size)
        self.padding = self.share * world.size - len(self.weights)
        self.first = world.rank * self.share
        self.factor = shape_factor(rows, cols)
        self.momentum = torch.zeros(self.share, rows, cols, device=world.device)
        # bfloat16 halves the work on a GPU; many CPUs emulate it, slowly, so there the iteration is in float32.
        self.dtype = torch.bfloat16 if world.device.type == "cuda" else torch.float32

    @property
    def owned(self) -> list[nn.Parameter]:
        """This rank's weights, in the order of its share; padding has none."""
        return self.weights[self.first : self.first + self.share]

    def gradient(self) -> Tensor:
        """This rank's gradients, padded: (ranks × share, rows, cols) float32."""
        grads = [gradient(w) for w in self.weights]
        return torch.stack(grads + [torch.zeros_like(grads[0])] * self.padding).float()

    def squares(self, g_BMN: Tensor) -> Tensor:
        """Squared gradient norms of the padded stack: this rank's, zero elsewhere."""
        squares = g_BMN.new_zeros(len(self.weights) + self.padding)
        squares[self.first : self.first + self.share] = g_BMN.square().sum((-2, -1))
        return squares

    def update(self, g_BMN: Tensor, momentum: float, muon: "MatrixStep", finite: Tensor) -> Tensor:
        """Nesterov momentum of the own share, made orthogonal. A gradient that is not finite leaves the momentum be.

        b ← μ b + g;  u = g + μ b.
        """
        g_BMN = torch.where(finite, g_BMN, 0.0)
        self.momentum.mul_(torch.where(finite, momentum, 1.0)).add_(g_BMN)
        u_BMN = g_BMN.add_(self.momentum, alpha=momentum)
        if muon.row_normalize:
            u_BMN = row_normalized(u_BMN)
        return muon.orthogonal(u_BMN, self.dtype)

    def apply(self, updates_BMN: Tensor, lr: float, weight_decay: float, finite: Tensor) -> None:
        """w ← (1 − lr·decay) w − lr·√max(1, rows/cols)·update; nothing if the gradient was not finite."""
        step_BMN = updates_BMN * torch.where(finite, -lr * self.factor, 0.0)
        torch._foreach_mul_(self.weights, torch.where(finite, 1.0 - lr * weight_decay, 1.0))
        torch._foreach_add_(self.weights, list(step_BMN[: len(self.weights)].to(self.weights[0].dtype).unbind()))


def gradient(weight: nn.Parameter) -> Tensor:
    """Its gradient; zero if it took no part in the loss (on any rank: all run the same graph)."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
