"""Where a training step's time goes on a CPU: torch's profiler, and marks around what its operators do not tell apart."""

import os
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from pgolf.bench.contest import DisagreementError, Setting, row
from pgolf.recipe import Recipe
from pgolf.stages.train import Trainer

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

STEP, NEWTON_SCHULZ, LOSS = "a step", "Newton–Schulz", "loss"  # marks, and names of kinds
PRODUCTS, ATTENTION, REST = "matrix products", "attention", "everything else"
KINDS = (PRODUCTS, ATTENTION, NEWTON_SCHULZ, LOSS, REST)
FLOOR = (PRODUCTS, ATTENTION, NEWTON_SCHULZ)
OPERATORS = dict.fromkeys(("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"), PRODUCTS)
BACKWARD = "autograd::engine::evaluate_function"


def marked(recipe: Recipe) -> Recipe:
    """The recipe with Newton–Schulz marked; a mark costs a microsecond where nothing is profiled."""
    inner = recipe.optim.matrix

    def orthogonal(U_BMN: Tensor, dtype: torch.dtype) -> Tensor:
        with record_function(NEWTON_SCHULZ):
            return inner.orthogonal(U_BMN, dtype)

    matrix = copy(inner)
    object.__setattr__(matrix, "orthogonal", orthogonal)  # a frozen part
    return replace(recipe, optim=replace(recipe.optim, matrix=matrix))


def mark_loss(trainer: Trainer) -> None:
    """Mark the loss, softcap and cross entropy, of the trainer's model."""
    inner = trainer.model.loss

    def loss(*inputs: Any) -> Tensor:
        with record_function(LOSS):
            return inner(*inputs)

    trainer.model.loss = loss


@dataclass(frozen=True)
class Shares:
    """`step` under the profiler: a row for the whole, each kind of work, and the `FLOOR` kinds alone.

    `times_faster` is what a step would gain if nothing but that row's work were left.
    """

    name: str
    step: Callable[[], Any]

    def run(self, setting: Setting) -> list[dict[str, Any]]:
        """Raises DisagreementError where a kind of work was not met: its mark is then not where the work is."""
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes two lines to stderr
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            self.step()  # the first is slow, and not counted
            for _ in range(setting.repeats):
                with record_function(STEP):
                    self.step()
        turns = by_kind(list(profiled.events()))
        for kind in KINDS:
            if not all(turn[kind] > 0 for turn in turns):
                raise DisagreementError(f"{self.name}: the profiler saw no {kind}")
        parts = {"the whole step": KINDS, **{kind: (kind,) for kind in KINDS}, "the first three alone": FLOOR}
        spent = {way: [sum(turn[kind] for kind in kinds) for turn in turns] for way, kinds in parts.items()}
        whole = spent["the whole step"]
        check = f"{len(turns)} steps under the profiler, every kind of work met"
        return [
            row(self.name, way, times, sum(whole) / sum(times), f"{sum(times) / sum(whole):.0%}", check)
            for way, times in spent.items()
        ]


def by_kind(events: list["FunctionEvent"]) -> list[dict[str, float]]:
    """Seconds of each kind, step by step. Time in none of torch's operators is Python's, and with everything else."""
    in_loss = {e.sequence_nr for e in events if e.sequence_nr >= 0 and any(outer.name == LOSS for outer in upward(e))}
    turns: dict[int, dict[str, float]] = {}
    for event in events:
        chain = list(upward(event))
        if chain[-1].name == STEP:
            turn = turns.setdefault(id(chain[-1]), dict.fromkeys(KINDS, 0.0))
            kinds = [kind for e in reversed(chain) if (kind := kind_of(e, in_loss))]
            turn[(*kinds, REST)[0]] += event.self_cpu_time_total / 1e6
    return list(turns.values())


def upward(event: "FunctionEvent | None") -> Iterator["FunctionEvent"]:
    """An event, and what it is inside of."""
    while event is not None:
        yield event
        event = event.cpu_parent


def kind_of(event: "FunctionEvent", in_loss: set[int]) -> str | None:
    """What an event says of the work inside it. The backward pass of an operator has the sequence number of the forward one."""
    if event.name in (NEWTON_SCHULZ, LOSS):
        return event.name
    if event.name.startswith(BACKWARD) and event.sequence_nr in in_loss:
        return LOSS
    return ATTENTION if event.name.startswith("aten::_scaled_dot_product") else OPERATORS.get(event.name)
