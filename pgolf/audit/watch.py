"""An evaluation watched: the learner is asked for its whole distributions before it is given the chunk to score."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.data.bytes import ByteCounts
from pgolf.eval import Eval
from pgolf.eval.learner import Learner
from pgolf.eval.ledger import LedgerError, Progress, Score
from pgolf.eval.windows import Batch, Plan
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import TTT

if TYPE_CHECKING:
    from pgolf.eval.ledger import ChunkScorer
    from pgolf.model.transformer import Transformer

ALONE = World.alone()


@dataclass
class Observed:
    """What one evaluation of `ids` did, target by target: nats entered, nats declared, total probability, row of `watched`
    targets; and `loss` and `bytes` of the score that came of it."""

    ids: np.ndarray
    nll: np.ndarray
    predicted: np.ndarray
    total: np.ndarray
    visits: np.ndarray
    chunk: np.ndarray
    slot: np.ndarray  # which of its chunk's spans a target is in
    rows: dict[int, np.ndarray] = field(default_factory=dict)
    shas: dict[int, str] = field(default_factory=dict)
    shifted: float = 0.0  # largest difference between entered and declared scores of made-up targets
    loss: float = math.nan
    bytes: int = 0

    @classmethod
    def blank(cls, ids: np.ndarray) -> "Observed":
        """Nothing seen yet of `ids`: nats NaN, visits 0."""
        targets = len(ids) - 1
        empty = (np.full(targets, np.nan, np.float32) for _ in range(3))
        return cls(ids, *empty, np.zeros(targets, int), np.full(targets, -1), np.full(targets, -1))

    def enter(self, first: int, nll: torch.Tensor) -> None:
        """The nats of a batch, as the referee was given them."""
        self.nll[first : first + len(nll)] = nll
        self.visits[first : first + len(nll)] += 1

    def end(self, score: Score) -> None:
        """Take what the ledger's score says: the fingerprint before each chunk, loss and bytes."""
        self.shas = {row.chunk: row.sha for row in score.trace if row.phase == "score"}
        self.loss, self.bytes = score.val_loss, score.bytes

    def before(self, target: int) -> np.ndarray:
        """Targets that may not depend on `target`'s token: of earlier chunks, of the other slots of its chunk, and those that
        come before it in its own slot."""
        mine = (self.chunk == self.chunk[target]) & (self.slot == self.slot[target])
        earlier = np.arange(len(self.chunk)) < target
        return np.where(mine, earlier, self.chunk <= self.chunk[target])

    def same(self, other: "Observed") -> bool:
        """Whether both did the same, to the bit."""
        return np.array_equal(self.nll, other.nll) and self.shas == other.shas


class Watched:
    """A TTT option whose learner is asked first and watched afterwards."""

    def __init__(self, ttt: TTT, seen: Observed, watch: set[int]):
        self.ttt, self.seen, self.watch = ttt, seen, watch
        self.plan = ttt.plan

    def build(self, model: "Transformer", world: World, plan: Plan) -> "WatchedLearner":
        """The learner of `ttt`, watched."""
        return WatchedLearner(self.ttt.build(model, world, plan), self.seen, self.watch)


class WatchedLearner:
    """Passes everything on to `inner`, but takes its distributions before it scores a chunk."""

    def __init__(self, inner: Learner, seen: Observed, watch: set[int]):
        self.inner, self.seen, self.watch = inner, seen, watch
        self.adapt, self.state, self.receipts = inner.adapt, inner.state, inner.receipts

    def score(self, scorer: "ChunkScorer") -> None:
        """Note the whole distributions of each batch, then let `inner` score the chunk."""
        for slot, (first, end) in enumerate(scorer.spans):
            self.seen.slot[first:end] = slot
        with torch.no_grad():
            for number, (batch, x_BT, y_BT) in enumerate(scorer.batches()):
                check_handed_out(batch, y_BT, self.seen.ids)
                log_p_BSV = self.inner.log_p(x_BT, batch.last).double()
                if number == 0:
                    self._made_up_targets(log_p_BSV, x_BT, y_BT, batch.last)
                nll = -log_p_BSV.gather(-1, y_BT[:, -batch.last :, None]).squeeze(-1)
                self._note(scorer.chunk, batch, nll, log_p_BSV)
        self.inner.score(scorer)

    def _made_up_targets(self, log_p_BSV: torch.Tensor, x_BT: torch.Tensor, y_BT: torch.Tensor, last: int) -> None:
        """Other targets, drawn by chance: each must get the nats that were declared for it."""
        generator = torch.Generator().manual_seed(0)
        other = torch.randint(log_p_BSV.shape[-1], y_BT.shape, generator=generator)
        entered = self.inner.nll(x_BT, other, last).double()
        apart = (entered + log_p_BSV.gather(-1, other[:, -last:, None]).squeeze(-1)).abs().max().item()
        self.seen.shifted = max(self.seen.shifted, apart)

    def _note(self, chunk: int, batch: Batch, nll_BS: torch.Tensor, log_p_BSV: torch.Tensor) -> None:
        """What was declared, taken from where the plan says that each target's score stands."""
        targets, places = targets_of(batch), places_of(batch, nll_BS.shape)
        nll, rows = nll_BS.flatten()[places], log_p_BSV.flatten(0, 1)
        if not torch.allclose(batch.scored(nll_BS), nll, rtol=0.0, atol=0.0, equal_nan=True):
            raise LedgerError("mistake 8", f"chunk {chunk}: the plan changes the scores that it hands on")
        self.seen.predicted[targets] = nll
        self.seen.total[targets] = rows.exp().sum(-1)[places]
        self.seen.chunk[targets] = chunk
        at = zip(targets.tolist(), places.tolist(), strict=True)
        self.seen.rows |= {target: rows[place].numpy() for target, place in at if target in self.watch}


def targets_of(batch: Batch) -> np.ndarray:
    """The targets that a batch scores, in order, (N,)."""
    return np.concatenate([np.arange(first, end) for first, end in batch.spans()])


def places_of(batch: Batch, shape: tuple[int, int]) -> torch.Tensor:
    """Where, among the (B, last) positions of a batch, the scores of its targets stand."""
    return batch.scored(torch.arange(math.prod(shape)).view(shape)).long()


def check_handed_out(batch: Batch, y_BT: torch.Tensor, ids: np.ndarray) -> None:
    """The targets of a batch are the text's own tokens, each at a place of its own."""
    targets, y_BS = targets_of(batch), y_BT[:, -batch.last :]
    places = places_of(batch, y_BS.shape)
    if len(places) != len(targets) or len(places.unique()) != len(places):
        raise LedgerError("mistake 8", f"{len(targets)} targets are scored at {len(places.unique())} places")
    wrong = np.flatnonzero(y_BS.flatten()[places].numpy() != ids[targets + 1])
    if len(wrong):
        raise LedgerError("mistake 7", f"the token handed out for target {targets[wrong[0]]} is not the text's")


@dataclass(frozen=True)
class Harness:
    """What the probes run: an evaluator with its learner, fresh copies of the model, and a text. `heard` is told how far each
    evaluation is."""

    evaluation: Eval
    ttt: TTT
    model: Callable[[], "Transformer"]
    table: ByteCounts
    ids: np.ndarray
    heard: Callable[[Progress], None] = lambda _: None

    def observe(self, ids: np.ndarray, watch: set[int] = frozenset()) -> Observed:
        """One evaluation of `ids`, from a fresh model."""
        seen = Observed.blank(ids)
        return self._evaluated(Watched(self.ttt, seen, watch), seen)

    def unwatched(self) -> Observed:
        """One evaluation of the text as in a run: nobody asks the learner anything but its scores."""
        return self._evaluated(self.ttt, Observed.blank(self.ids))

    def _evaluated(self, ttt: TTT, seen: Observed) -> Observed:
        # A copy of the text, so that one that is overwritten on the way is held against what it was.
        given = seen.ids.copy()
        score = evaluate(ALONE, self.model(), given, self.table, self.evaluation, ttt, self.heard, seen.enter)
        seen.end(score)
        return seen

    def text_tokens(self) -> np.ndarray:
        """Positions that may be changed without moving a document's edge."""
        return np.flatnonzero(~self.table.boundary[self.ids])

    def changed(self, positions: np.ndarray) -> np.ndarray:
        """The text with other pieces, none a boundary, at `positions`."""
        pieces = np.flatnonzero(~self.table.boundary)
        ids = self.ids.copy()
        rank = np.searchsorted(pieces, ids[positions])
        ids[positions] = pieces[(rank + 1 + np.arange(len(positions)) % (len(pieces) - 1)) % len(pieces)]
        return ids
