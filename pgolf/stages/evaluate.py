"""One evaluation from model and tokens to a score: the five parts of it, each built once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.data.bytes import ByteCounts
from pgolf.errors import UserError
from pgolf.eval import Eval
from pgolf.eval.ledger import Ledger, Progress, Score
from pgolf.eval.outline import Outline
from pgolf.eval.text import Text
from pgolf.eval.warmup import warm_up
from pgolf.eval.windows import Plan
from pgolf.machine.world import World
from pgolf.ttt import TTT

if TYPE_CHECKING:
    from pgolf.eval.learner import Learner
    from pgolf.model.transformer import Transformer


def evaluate(
    world: World,
    model: "Transformer",
    ids: np.ndarray,
    table: ByteCounts,
    evaluation: Eval,
    ttt: TTT,
    progress: Callable[[Progress], None] = lambda _: None,
    on_nll: Callable[[int, torch.Tensor], None] = lambda first, nll: None,
    compile: bool = False,
) -> Score:
    """Score the whole split `ids` (uint16, in order). The first token has nothing before it and is not scored.

    Adaptation changes `model`. `progress` hears of every batch, on every rank; `on_nll` gets each batch's nats as
    (first target, nats), this rank's only; `compile` compiles scoring and learning."""
    if model.spec.vocab_size != table.vocabulary:
        raise UserError(f"a model of {model.spec.vocab_size} tokens cannot score a text of {table.vocabulary} pieces")
    text = Text(ids, table, evaluation.context, world.device)
    plan = ttt.plan(evaluation, text.outline)
    learner = _learner(world, model, plan, evaluation, ttt, compile)
    return Ledger(world, text, plan, evaluation.batch_windows, progress, on_nll).run(learner)


def build_graphs(
    world: World, model: "Transformer", ids: np.ndarray, table: ByteCounts, evaluation: Eval, ttt: TTT
) -> None:
    """Compile all that `evaluate` of such a model and text will run. Of the text only its outline is looked at."""
    plan = ttt.plan(evaluation, Outline.of(ids, table))
    learner = _learner(world, model, plan, evaluation, ttt, True)
    warm_up(learner, plan, world, evaluation.batch_windows)


def _learner(world: World, model: "Transformer", plan: Plan, evaluation: Eval, ttt: TTT, compile: bool) -> "Learner":
    model.set_looping(True)
    learner = ttt.build(model, world, plan)
    if compile:
        learner.compile(evaluation.batch_windows, plan.one_shape)
    return learner
