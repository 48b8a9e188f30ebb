"""Graphs are built before the clock runs that they are needed on: a batch of each kind once, of zeros, with a learner that is
thrown away. Another learner of the same kind finds them in the compiler's cache."""

from collections.abc import Iterable

import torch

from pgolf.eval.learner import Learner, Shape
from pgolf.eval.windows import Plan
from pgolf.machine.world import World


def warm_up(learner: Learner, plan: Plan, world: World, batch_windows: int) -> None:
    """Score and learn once for each graph that a compiled learner will need for `plan` on this rank. No text is read."""
    batches = (b for chunk in range(plan.chunks) for b in plan.batches(chunk, world.rank, world.size, batch_windows))
    scored = {(b.rows, b.length, b.last) for b in batches}
    for rows, length, last in kinds(scored, plan.one_shape):
        with torch.no_grad():
            learner.nll(*_zeros(rows, length, world.device), last)
    for rows, length, last in kinds(learner.shapes(), plan.one_shape):
        both = _zeros(rows, length, world.device)
        x_BT, y_BT = (t.contiguous() for t in both) if plan.one_shape else both  # as committed sequences
        learner.loss(x_BT, y_BT, last).sum().backward()


def kinds(shapes: Iterable[Shape], one_shape: bool) -> list[Shape]:
    """The shapes that are graphs of their own: all, or, where a graph is for any shape, one of each kind, the largest. How many
    positions count is a number in the graph, so each is a kind.

    >>> kinds([(1, 96, 48), (3, 96, 48), (4, 144, 48), (4, 48, 48), (4, 96, 8)], one_shape=False)
    [(1, 96, 48), (4, 144, 48), (4, 48, 48), (4, 96, 8)]
    """
    ordered = sorted(set(shapes))
    if one_shape:
        return ordered
    return list(
        {(rows == 1, last, length < last + 16): (rows, length, last) for rows, length, last in ordered}.values()
    )


def _zeros(rows: int, length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T), cut from one tensor as those of a text are."""
    both_BT = torch.zeros(rows, length + 1, dtype=torch.int64, device=device)
    return both_BT[:, :-1], both_BT[:, 1:]
