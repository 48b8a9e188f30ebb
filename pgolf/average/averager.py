"""Averages at run time: float32 copies of the weights, moved by a handful of fused operations after each step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgolf.files.receipts import Receipt
from pgolf.model.weights import copies, score_with


@dataclass(frozen=True)
class Candidate:
    """Weights that training may end with, in the order of `model.parameters()`, and what made them."""

    name: str
    weights: list[Tensor]


class Averager(ABC):
    """Follows the weights of `model`. Every rank holds the same and computes the same."""

    def __init__(self, model: nn.Module):
        self.weights = list(model.parameters())

    @abstractmethod
    def update(self, step: int, lr_multiplier: float) -> None:
        """Take note of the weights after step number `step`, counted from 0."""

    @abstractmethod
    def candidate(self, score: Callable[[], float]) -> tuple[Candidate | None, list[Receipt]]:
        """The weights to end with (None: nothing was collected), and what each part did, measured on the raw weights."""

    @abstractmethod
    def state_dict(self) -> dict:
        """The state, not copied."""

    @abstractmethod
    def load_state_dict(self, state: dict) -> None:
        """Go back to a copy of the state, to the bit; it may be used again."""

    @torch.no_grad()
    def finish(self, model: nn.Module, score: Callable[[], float]) -> list[Receipt]:
        """Load the averaged weights into `model`, in place. `score()` is dev_bpb with the model's present weights."""
        assert all(a is b for a, b in zip(self.weights, model.parameters(), strict=True)), "built for another model"
        found, receipts = self.candidate(score)
        if found is not None:
            torch._foreach_copy_(self.weights, found.weights)
        return receipts

    def receipt(self, found: Candidate) -> Receipt:
        """How far the chosen weights are from the last ones, relative to these."""
        moved = relative_distance(found.weights, self.weights)
        return Receipt("average", f"{found.name}: distance from the last weights, relative to them", moved, moved > 0)


class Last(Averager):
    """No average: nothing to note, nothing to load, nothing to prove."""

    def update(self, step: int, lr_multiplier: float) -> None:
        pass

    def candidate(self, score: Callable[[], float]) -> tuple[Candidate | None, list[Receipt]]:
        return Candidate("last", copies(self.weights)), []

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class Exponential(Averager):
    """a ← decay·a + (1 − decay)·w, begun at the weights that the averager was built with."""

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model)
        self.decay = decay
        self.average = [w.clone() for w in as_float32(self.weights)]

    @torch.no_grad()
    def update(self, step: int, lr_multiplier: float) -> None:
        torch._foreach_lerp_(self.average, as_float32(self.weights), 1 - self.decay)

    def candidate(self, score: Callable[[], float]) -> tuple[Candidate | None, list[Receipt]]:
        found = Candidate("EMA", self.average)
        return found, [self.receipt(found)]

    def state_dict(self) -> dict:
        return {"average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        torch._foreach_copy_(self.average, state["average"])


class Stochastic(Averager):
    """The mean of the weights after every `every`-th step with a multiplier under `below`."""

    def __init__(self, model: nn.Module, every: int, below: float):
        super().__init__(model)
        self.every, self.below, self.count = every, below, 0
        self.total = [torch.zeros_like(w) for w in as_float32(self.weights)]

    @torch.no_grad()
    def update(self, step: int, lr_multiplier: float) -> None:
        if (step + 1) % self.every == 0 and lr_multiplier < self.below:
            torch._foreach_add_(self.total, as_float32(self.weights))
            self.count += 1

    def candidate(self, score: Callable[[], float]) -> tuple[Candidate | None, list[Receipt]]:
        if not self.count:
            return None, [Receipt("average", "SWA: weights collected", 0.0, False)]
        found = Candidate("SWA", list(torch._foreach_div(self.total, float(self.count))))
        return found, [Receipt("average", "SWA: weights collected", float(self.count), True), self.receipt(found)]

    def state_dict(self) -> dict:
        return {"total": self.total, "count": self.count}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        torch._foreach_copy_(self.total, state["total"])
        self.count = state["count"]


class Pair(Averager):
    """Two averages kept side by side."""

    def __init__(self, model: nn.Module, first: Averager, second: Averager):
        super().__init__(model)
        self.first, self.second = first, second

    def update(self, step: int, lr_multiplier: float) -> None:
        self.first.update(step, lr_multiplier)
        self.second.update(step, lr_multiplier)

    def both(self, score: Callable[[], float]) -> tuple[list[Candidate], list[Receipt]]:
        """The candidates that exist, and all receipts."""
        parts = [self.first.candidate(score), self.second.candidate(score)]
        return [found for found, _ in parts if found], [r for _, receipts in parts for r in receipts]

    def state_dict(self) -> dict:
        return {"first": self.first.state_dict(), "second": self.second.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.first.load_state_dict(state["first"])
        self.second.load_state_dict(state["second"])


class Blended(Pair):
    """`weight` of the first and 1 − `weight` of the second."""

    def __init__(self, model: nn.Module, first: Averager, second: Averager, weight: float):
        super().__init__(model, first, second)
        self.weight = weight

    def candidate(self, score: Callable[[], float]) -> tuple[Candidate | None, list[Receipt]]:
        found, receipts = self.both(score)
        if len(found) < 2:
            return next(iter(found), None), receipts
        first, second = (as_float32(f.weights) for f in found)
        name = f"{self.weight:g} {found[0].name} + {1 - self.weight:g} {found[1].name}"
        blend = Candidate(name, list(torch._foreach_lerp(second, first, self.weight)))
        return blend, [*receipts, self.receipt(blend)]


class Chosen(Pair):
    """The candidate with the lowest score; the first of equals."""

    def candidate(self, score: Callable[[], float]) -> tuple[Candidate | None, list[Receipt]]:
        found, receipts = self.both(score)
        if not found:
            return None, receipts
        raw = copies(self.weights)
        scored = [score_with(one.weights, self.weights, score) for one in found]
        torch._foreach_copy_(self.weights, raw)
        for one, at in zip(found, scored, strict=True):
            receipts.append(Receipt("average", f"{one.name}: dev_bpb", at, True))
        best = found[scored.index(min(scored))]
        return best, [*receipts, Receipt("average", f"chosen: {best.name}", min(scored), True)]


def as_float32(weights: list[Tensor]) -> list[Tensor]:
    """The same tensors where they are float32 already, converted copies elsewhere."""
    return [w.detach() if w.dtype == torch.float32 else w.detach().float() for w in weights]


def relative_distance(a: list[Tensor], b: list[Tensor]) -> float:
    """‖a − b‖ / ‖b‖ over all tensors together. Of [3, 4] and [3, 0]: 4/3."""
    a, b = as_float32(a), as_float32(b)
    apart = torch.stack(torch._foreach_norm(torch._foreach_sub(a, b)))
    return (apart.norm() / torch.stack(torch._foreach_norm(b)).norm().clamp_min(1e-30)).item()
