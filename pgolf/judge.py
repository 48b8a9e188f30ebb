"""The evaluation stage, on every rank: artifact and validation text become bits per byte, on a clock of their own.

It opens the sealed artifact as a stranger would; nothing else of training reaches it.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path

import torch

from pgolf.artifact import unpack
from pgolf.data import ValidationText
from pgolf.errors import UserError
from pgolf.eval.bytes import prove
from pgolf.eval.evaluate import evaluate
from pgolf.eval.ledger import Progress
from pgolf.frozen import thaw
from pgolf.journal import Bar, Journal, open_journal
from pgolf.limits.clock import Clock
from pgolf.machine.world import World
from pgolf.quant.tensors import load_quantized
from pgolf.recipe import Recipe


def judge(
    world: World, recipe: Recipe, artifact: Path, sha256: str, text: ValidationText, folder: Path, terminal: bool
) -> dict:
    """Score `artifact`, whose hash was taken when it was sealed, on all of `text`. Returns the record's `evaluate`."""
    journal = open_journal(world, folder, recipe.logger, terminal)
    journal.event("stage", stage="evaluate")
    clock = Clock(recipe.limits.eval_seconds)
    clock.start()
    with clock.phase("load"):
        model = load(artifact, sha256, text, world)
    with clock.phase("prove bytes"):
        ids, table = text.read(), text.byte_counts()
        counted = torch.tensor(prove(ids, text.tokenizer, table, world.rank, world.size))
        world.sum_(counted)
        proven = counted.item()
    journal.line(f"validation: {len(ids):,} tokens, {proven:,} bytes, proven by document")
    with clock.phase("score"), journal.screen.bar("evaluate") as bar:
        watch, compiled = EvalProgress(journal, bar, clock), recipe.machine.compile
        score = evaluate(world, model, ids, table, recipe.eval, recipe.ttt, watch, compile=compiled)
    journal.event("score", val_bpb=score.val_bpb, val_loss=score.val_loss, seconds=round(clock.elapsed, 3))
    return {
        **asdict(score),
        "receipts": [asdict(r) for r in score.receipts],
        "proven_bytes": proven,
        "seconds": clock.elapsed,
        "phases": clock.phases,
    }


def load(artifact: Path, sha256: str, text: ValidationText, world: World):
    """The model that the sealed file holds, on this rank's device."""
    data = artifact.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(f"{artifact}: its sha256 is {found}, but {sha256} was sealed. It was changed after training.")
    tensors, meta = unpack(data)
    spec = thaw(meta["model"])
    if spec.vocab_size != text.vocab_size:
        raise UserError(
            f"{artifact}: a model of {spec.vocab_size} pieces cannot score text of {text.vocab_size} pieces"
        )
    model = spec.build(0, world.device)
    load_quantized(model, tensors)
    return model


class EvalProgress:
    """Shows how far scoring is, and says once, early, when it will not finish inside the clock."""

    def __init__(self, journal: Journal, bar: Bar, clock: Clock):
        self.journal, self.bar, self.clock = journal, bar, clock
        self.warned, self.chunk = False, 0

    def __call__(self, now: Progress) -> None:
        needed = now.expected - now.seconds
        bpb = f"bpb {now.bpb:.4f}  " if now.committed else ""
        text = f"{now.done:,} of {now.total:,} targets  {bpb}{needed:.0f} s to go"
        self.bar.update(now.done / now.total, f"{text}  {self.clock.elapsed:.0f} s used, {self.clock.left:.0f} s left")
        if now.chunk > self.chunk:
            self.chunk = now.chunk
            self.journal.event("chunk", chunk=now.chunk, val_bpb=now.bpb, seconds=round(self.clock.elapsed, 3))
        if not self.warned and self._measured(now) and needed > self.clock.left:
            self.warned = True
            self.journal.line(
                f"at this rate evaluation needs {needed:.0f} s more, and limits.eval_seconds leaves {self.clock.left:.0f}"
            )

    def _measured(self, now: Progress) -> bool:
        """Whether the rate can be trusted: a twentieth of the text is done, or a fifth of the clock went by."""
        return now.done * 20 >= now.total or self.clock.elapsed * 4 >= self.clock.left
