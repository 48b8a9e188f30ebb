"""The evaluation stage, on every rank: artifact and validation text become bits per byte, on a clock of their own.

It reads the sealed artifact and nothing else that training left.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pgolf.data import ValidationText
from pgolf.data.bytes import prove
from pgolf.errors import UserError
from pgolf.eval.ledger import Progress
from pgolf.files.events import Events
from pgolf.files.frozen import thaw
from pgolf.limits.clock import Clock
from pgolf.machine.world import World
from pgolf.model import Model
from pgolf.quant.tensors import load_quantized
from pgolf.recipe import Recipe
from pgolf.stages.artifact import unpack
from pgolf.stages.evaluate import build_graphs, evaluate

if TYPE_CHECKING:
    from pgolf.model.transformer import Transformer

    Meaning = Callable[[Any], Any]


@dataclass(frozen=True)
class Evaluation:
    """What is to be judged: the file `artifact`, whose `sha256` was taken when it was sealed, on all of `text`, by the file of
    the hash `code_sha256`; `meaning` completes what an older version states of its model."""

    recipe: Recipe
    artifact: Path
    sha256: str
    text: ValidationText
    code_sha256: str
    meaning: "Meaning | None" = None


def judge(world: World, evaluation: Evaluation, events: Events) -> dict:
    """Score the artifact. Returns the record's `evaluate`. Raises UserError for another artifact than was sealed."""
    recipe, text = evaluation.recipe, evaluation.text
    events.write("stage", stage="evaluate")
    if recipe.machine.compile:
        events.progress("warm up", 0.0, "graphs of scoring and adapting")
        another = recipe.model.build(recipe.seed.model, world.device)
        recipe.machine.kernels.install(another)
        build_graphs(world, another, text.read(), text.byte_counts(), recipe.eval, recipe.ttt)
        del another
    clock = Clock(recipe.limits.eval_seconds)
    clock.start()
    with clock.phase("load"):
        model = load(evaluation.artifact, evaluation.sha256, text.vocab_size, world, recipe.model, evaluation.meaning)
        installed = recipe.machine.kernels.install(model)
    with clock.phase("prove bytes"):
        ids, table = text.read(), text.byte_counts()
        counted = torch.tensor(prove(ids, text.tokenizer, table, world.rank, world.size))
        world.sum_(counted)
        proven = counted.item()
    events.write("validation", tokens=len(ids), bytes=proven)
    with clock.phase("score"):
        progress, compiled = EvalProgress(events, clock), recipe.machine.compile
        score = evaluate(world, model, ids, table, recipe.eval, recipe.ttt, progress, compile=compiled)
    events.write("score", val_bpb=score.val_bpb, val_loss=score.val_loss, seconds=round(clock.elapsed, 3))
    return {
        **asdict(score),
        "code_sha256": evaluation.code_sha256,
        "receipts": [asdict(r) for r in [*installed, *score.receipts]],
        "proven_bytes": proven,
        "seconds": clock.elapsed,
        "phases": clock.phases,
    }


def load(
    artifact: Path,
    sha256: str,
    vocab_size: int,
    world: World,
    expected: Model | None = None,
    meaning: "Meaning | None" = None,
) -> "Transformer":
    """The model that the sealed file holds, on this rank's device.

    `meaning` completes what an older version wrote of its model. Raises UserError unless the file has this hash, and
    a model for this vocabulary, of the `expected` shape where one is given.
    """
    data = artifact.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(f"{artifact}: its sha256 is {found}, but {sha256} was sealed. It was changed after training.")
    tensors, meta = unpack(data)
    stated = meta.get("model")
    spec = thaw(meaning(stated) if meaning else stated, Model)
    if spec.vocab_size != vocab_size:
        raise UserError(f"{artifact}: a model of {spec.vocab_size} pieces cannot score text of {vocab_size} pieces")
    if expected not in (None, spec):
        raise UserError(f"{artifact}: its model is {spec}, the recipe's is {expected}")
    model = spec.build(0, world.device)
    load_quantized(model, tensors)
    return model


class EvalProgress:
    """Tells how far scoring is, and once, early, that it will not finish inside the clock."""

    def __init__(self, events: Events, clock: Clock):
        self.events, self.clock = events, clock
        self.warned, self.chunk = False, 0

    def __call__(self, now: Progress) -> None:
        needed = now.expected - now.seconds
        bpb = f"bpb {now.bpb:.4f}  " if now.committed else ""
        text = f"{now.done:,} of {now.total:,} targets  {bpb}{needed:.0f} s to go  {self.clock}"
        self.events.progress("evaluate", now.done / now.total, text)
        if now.chunk > self.chunk:
            self.chunk = now.chunk
            self.events.write("chunk", chunk=now.chunk, val_bpb=now.bpb, seconds=round(self.clock.elapsed, 3))
        if not self.warned and self._measured(now) and needed > self.clock.left:
            self.warned = True
            left = f"limits.eval_seconds leaves {self.clock.left:.0f}"
            self.events.write("notice", text=f"at this rate evaluation needs {needed:.0f} s more, and {left}")

    def _measured(self, now: Progress) -> bool:
        """Whether the rate can be trusted: a twentieth of the text is done, or a fifth of the clock went by."""
        return now.done * 20 >= now.total or self.clock.elapsed * 4 >= self.clock.left
