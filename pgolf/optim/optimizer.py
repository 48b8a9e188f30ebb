"""The optimiser at run time: reduces gradients over ranks, clips, and steps Muon and AdamW.

There is no DDP wrapper. Matrices of one shape form a stack; its gradient is reduce-scattered, each rank makes its
share of the updates orthogonal, and the updates are gathered. All other gradients travel in one packed all-reduce.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pgolf.machine.world import World
from pgolf.model.kinds import Role
from pgolf.optim.first_order import AdamW
from pgolf.optim.stack import Stack, gradient

if TYPE_CHECKING:
    from pgolf.optim import MuonAdamW


Regularise = Callable[[list[nn.Parameter], Tensor], None]  # weights of one shape and their reduced gradients, in place


def nothing(weights: list[nn.Parameter], gradient_BMN: Tensor) -> None:
    """The gradient is the loss's alone."""


class Optimizer(ABC):
    """What training asks of an optimiser. Every rank's `.grad` is its share: their sum is the gradient of the global mean loss.

    From the first step whose gradient is not finite on, nothing may change, weights or state.
    """

    @abstractmethod
    def step(self, lr_multiplier: float, momentum: float, regularise: Regularise = nothing) -> Tensor:
        """Reduce the gradients over ranks and apply them. Returns the norm of the reduced gradient, a scalar."""

    @abstractmethod
    def worst_gradient(self) -> tuple[str, float]:
        """The parameter with the largest gradient norm at the last step, or at the first that was not finite."""

    @abstractmethod
    def state_dict(self) -> dict:
        """This rank's state, not copied."""

    @abstractmethod
    def load_state_dict(self, state: dict) -> None:
        """Go back to a copy of this rank's state, to the bit; it may be used again."""


class MuonAdamWOptimizer(Optimizer):
    """Steps `model` by `config`. Every rank's `.grad` is its share: their sum is the gradient of the global mean loss.

    From the first step whose gradient is not finite on, nothing changes, weights or state: the last good ones survive
    until the training loop, which must stop, looks. It can do so every few steps without making the GPU wait at each.
    """

    def __init__(self, config: "MuonAdamW", model: nn.Module, world: World):
        self.config, self.world = config, world
        named, roles = dict(model.named_parameters()), model.roles()
        assert roles.keys() == named.keys(), f"roles() and parameters differ: {roles.keys() ^ named.keys()}"
        of = {role: {n: p for n, p in named.items() if roles[n] is role} for role in Role}
        self.stacks = _stacks(of[Role.MATRIX], world)
        self.others = of[Role.EMBEDDING] | of[Role.SCALAR]
        self.names = [name for stack in self.stacks for name in stack.names] + list(self.others)
        groups = [(config.embedding, of[Role.EMBEDDING]), (config.scalar, of[Role.SCALAR])]
        self.adams = [
            (c.lr, AdamW([*p.values()], c.lr, config.betas, config.eps, c.weight_decay)) for c, p in groups if p
        ]
        self._squares_P = torch.zeros(len(self.names), device=world.device)

    @torch.no_grad()
    def step(self, lr_multiplier: float, momentum: float, regularise: Regularise = nothing) -> Tensor:
        """Reduce, clip and apply the gradients. Returns the norm of the reduced gradient before clipping, a scalar.

        `regularise` may add to the matrices' gradients; it is called for those whose momentum this rank owns.
        """
        coming = [self.world.reduce_scatter(stack.gradient()) for stack in self.stacks]
        others = [gradient(p) for p in self.others.values()]
        self.world.sum_(*others)
        shares = [wait() for wait in coming]
        for stack, share in zip(self.stacks, shares, strict=True):
            regularise(stack.owned, share)
        norm = self._norm(shares, others)
        finite = self._squares_P.sum().isfinite()
        if self.config.clip_norm is not None:
            scale = (self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(shares + others, scale)
        updates = self._orthogonal(shares, momentum, finite)
        for lr, adam in self.adams:
            adam.lr = lr_multiplier * lr
            adam.step(finite)
        lr, decay = lr_multiplier * self.config.matrix.lr, self.config.matrix.weight_decay
        for stack, wait in zip(self.stacks, updates, strict=True):
            stack.apply(wait(), lr, decay, finite)
        return norm

    def worst_gradient(self) -> tuple[str, float]:
        """The parameter with the largest gradient norm at the last step; not-a-number and infinity are the largest.

        Once a step was not finite, that first one is the step meant.
        """
        norms = self._squares_P.sqrt().nan_to_num(nan=torch.inf, posinf=torch.inf)
        worst = int(norms.argmax())
        return self.names[worst], float(self._squares_P[worst].sqrt())

    def state_dict(self) -> dict:
        """This rank's state, not copied: its share of the momentum, and all of AdamW's."""
        adam = [tensor for _, adam in self.adams for tensor in (*adam.m, *adam.v, adam.t)]
        return {"state": [stack.momentum for stack in self.stacks] + adam}

    def load_state_dict(self, state: dict) -> None:
        """Go back to a copy of the same rank's state, to the bit."""
        for tensor, kept in zip(self.state_dict()["state"], state["state"], strict=True):
            tensor.copy_(kept)
        self._squares_P.zero_()

    def _norm(self, shares: list[Tensor], others: list[Tensor]) -> Tensor:
        """The global norm of the reduced gradient. Keeps every parameter's for `worst_gradient`."""
        matrices = [stack.squares(share) for stack, share in zip(self.stacks, shares, strict=True)]
        self.world.sum_(*matrices)
        kept = [squares[: len(stack.names)] for stack, squares in zip(self.stacks, matrices, strict=True)]
        if others:
            kept.append(torch.stack(torch._foreach_norm(others, dtype=torch.float32)).square())
        squares_P = torch.cat(kept)
        self._squares_P = torch.where(self._squares_P.sum().isfinite(), squares_P, self._squares_P)
        return squares_P.sum().sqrt()

    def _orthogonal(self, shares: list[Tensor], momentum: float, finite: Tensor) -> list:
        """Start to gather every stack's updates, the next one's products hiding the wait."""
        return [
            self.world.all_gather(stack.update(share, momentum, self.config.matrix, finite))
            for stack, share in zip(self.stacks, shares, strict=True)
        ]


def _stacks(matrices: dict[str, nn.Parameter], world: World) -> list[Stack]:
    shapes: dict[torch.Size, dict[str, nn.Parameter]] = {}
    for name, weight in matrices.items():
        shapes.setdefault(weight.shape, {})[name] = weight
    return [Stack(same, world) for same in shapes.values()]
