"""Experiments on an evaluator as a black box: change the text, and see what may not change.

The learner is asked for its whole distributions before it is shown the paper to grade. Whatever it then enters must be what
those say of the targets, and neither may depend on later text, on the target itself, or on text that is not yet scored."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.audit.finding import Finding
from pgolf.eval import Eval
from pgolf.eval.bytes import ByteTable, token_bytes
from pgolf.eval.evaluate import evaluate
from pgolf.eval.ledger import LedgerError, Progress, Score
from pgolf.eval.windows import Batch, Plan
from pgolf.machine.world import World
from pgolf.ttt import TTT
from pgolf.ttt.learner import Learner

if TYPE_CHECKING:
    from pgolf.eval.ledger import Paper
    from pgolf.model.transformer import Transformer

ALONE = World.alone()
SUM = 1e-4  # by which a sum of probabilities may miss one
NATS = 1e-5  # by which a score may miss the declared distribution
MEAN = 1e-6  # by which val_loss may miss the mean of what was entered, relative: both are float64 sums


@dataclass
class Observed:
    """What one evaluation of `ids` did, target by target: nats entered, nats declared, total probability, row of `watched`
    targets; and `loss` and `bytes` of the score that came of it."""

    ids: np.ndarray
    nll: np.ndarray
    declared: np.ndarray
    total: np.ndarray
    visits: np.ndarray
    chunk: np.ndarray
    rows: dict[int, np.ndarray] = field(default_factory=dict)
    shas: dict[int, str] = field(default_factory=dict)
    shifted: float = 0.0  # largest difference between entered and declared scores of made-up targets
    loss: float = math.nan
    bytes: int = 0

    @classmethod
    def blank(cls, ids: np.ndarray) -> "Observed":
        targets = len(ids) - 1
        empty = (np.full(targets, np.nan, np.float32) for _ in range(3))
        return cls(ids, *empty, np.zeros(targets, int), np.full(targets, -1))

    def enter(self, first: int, nll: torch.Tensor) -> None:
        """The nats of a batch, as the referee was given them."""
        self.nll[first : first + len(nll)] = nll
        self.visits[first : first + len(nll)] += 1

    def end(self, score: Score) -> None:
        self.shas = {row.chunk: row.sha for row in score.trace if row.phase == "score"}
        self.loss, self.bytes = score.val_loss, score.bytes

    def same(self, other: "Observed") -> bool:
        """Whether both did the same, to the bit."""
        return np.array_equal(self.nll, other.nll) and self.shas == other.shas


class Watched:
    """A TTT option whose learner is asked first and watched afterwards."""

    def __init__(self, ttt: TTT, seen: Observed, watch: set[int]):
        self.ttt, self.seen, self.watch = ttt, seen, watch
        self.plan = ttt.plan

    def build(self, model: "Transformer", world: World, plan: Plan) -> "WatchedLearner":
        return WatchedLearner(self.ttt.build(model, world, plan), self.seen, self.watch)


class WatchedLearner:
    """Passes everything on to `inner`, but hears its distributions before it sees a paper."""

    def __init__(self, inner: Learner, seen: Observed, watch: set[int]):
        self.inner, self.seen, self.watch = inner, seen, watch
        self.adapt, self.state, self.receipts = inner.adapt, inner.state, inner.receipts

    def score(self, paper: "Paper") -> None:
        with torch.no_grad():
            for number, (batch, x_BT, y_BT) in enumerate(paper.batches()):
                check_handed_out(batch, y_BT, self.seen.ids)
                log_p_BSV = self.inner.log_p(x_BT, batch.last).double()
                if number == 0:
                    self._made_up_targets(log_p_BSV, x_BT, y_BT, batch.last)
                spoken = -log_p_BSV.gather(-1, y_BT[:, -batch.last :, None]).squeeze(-1)
                self._note(paper.chunk, batch, spoken, log_p_BSV)
        self.inner.score(paper)

    def _made_up_targets(self, log_p_BSV: torch.Tensor, x_BT: torch.Tensor, y_BT: torch.Tensor, last: int) -> None:
        """Other targets, drawn by chance: each must get the nats that were declared for it."""
        generator = torch.Generator().manual_seed(0)
        other = torch.randint(log_p_BSV.shape[-1], y_BT.shape, generator=generator)
        entered = self.inner.nll(x_BT, other, last).double()
        apart = (entered + log_p_BSV.gather(-1, other[:, -last:, None]).squeeze(-1)).abs().max().item()
        self.seen.shifted = max(self.seen.shifted, apart)

    def _note(self, chunk: int, batch: Batch, spoken_BS: torch.Tensor, log_p_BSV: torch.Tensor) -> None:
        """What was declared, taken from where the plan says that each target's score stands."""
        targets, places = targets_of(batch), places_of(batch, spoken_BS.shape)
        spoken, rows = spoken_BS.flatten()[places], log_p_BSV.flatten(0, 1)
        if not torch.allclose(batch.scored(spoken_BS), spoken, rtol=0.0, atol=0.0, equal_nan=True):
            raise LedgerError("mistake 8", f"chunk {chunk}: the plan changes the scores that it hands on")
        self.seen.declared[targets] = spoken
        self.seen.total[targets] = rows.exp().sum(-1)[places]
        self.seen.chunk[targets] = chunk
        at = zip(targets.tolist(), places.tolist(), strict=True)
        self.seen.rows |= {target: rows[place].numpy() for target, place in at if target in self.watch}


def targets_of(batch: Batch) -> np.ndarray:
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
class Bench:
    """What is examined: an evaluator with its learner, fresh copies of the model, and a text. `heard` is told how far each
    evaluation is."""

    evaluation: Eval
    ttt: TTT
    model: Callable[[], "Transformer"]
    table: ByteTable
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


def probe(bench: Bench) -> list[Finding]:
    """Every experiment, or the one finding of a referee who stopped the first of them."""
    flips = flip_positions(bench)
    try:
        base, plain = bench.observe(bench.ids, {t - 1 for t in flips}), bench.unwatched()
        found = [
            *distributions(base),
            *single_pass(base),
            *totals(bench, base, "score"),
            *totals(bench, plain, "unwatched"),
        ]
        found += unmoved(bench, base, plain)
        for t in flips:
            found += flipped(base, bench.observe(bench.changed(np.array([t])), {t - 1}), t)
        found += list(chunk_text(bench, base))
        if bench.ttt.isolated:
            found += isolation(bench, base)
    except LedgerError as stopped:
        return [_fail(stopped.rule, "the referee", str(stopped))]
    return merged(found)


FLIPS = 4


def evaluations(ttt: TTT) -> int:
    """How many `probe` makes of a deterministic evaluator."""
    return FLIPS + (4 if ttt.isolated else 3)


def flip_positions(bench: Bench) -> list[int]:
    """Tokens to be changed, one by chance in each part of the text; never a document's edge."""
    places, chance = bench.text_tokens(), np.random.default_rng(0).random(FLIPS)
    places = places[places > 1]
    return sorted({int(places[int(len(places) * (i + part) / FLIPS)]) for i, part in enumerate(chance)})


def distributions(seen: Observed) -> list[Finding]:
    """C2: probabilities sum to one, and the scores entered are what the distributions say of the targets."""
    off, apart = (np.nan_to_num(np.abs(d), nan=np.inf) for d in (seen.total - 1, seen.nll - seen.declared))
    worst, differs = int(off.argmax()), int(apart.argmax())
    rows = [
        (
            off[worst] <= SUM,
            f"target {worst}",
            f"probabilities of all pieces sum to {seen.total[worst]:.6f}",
            f"at all {len(off):,} targets",
        ),
        (
            apart[differs] <= NATS,
            f"target {differs}",
            f"scored {seen.nll[differs]:.5f} nats, declared {seen.declared[differs]:.5f} before the target was known",
            "every score entered is the declared one",
        ),
        (
            seen.shifted <= NATS,
            "made-up targets",
            f"a score differs by up to {seen.shifted:.5f} nats from the distribution declared without the target",
            "random targets get the declared nats",
        ),
    ]
    return [_held("C2", where, good) if ok else _fail("C2", where, bad) for ok, where, bad, good in rows]


def single_pass(seen: Observed) -> list[Finding]:
    wrong = np.flatnonzero(seen.visits != 1)
    if len(wrong):
        return [_fail("C4", f"target {wrong[0]}", f"scored {seen.visits[wrong[0]]} times")]
    return [_held("C4", "visits", f"each of {len(seen.visits):,} targets was scored exactly once")]


def totals(bench: Bench, seen: Observed, where: str) -> list[Finding]:
    """The score is what was entered: the mean of its nats, over the bytes of the text."""
    entered, size = float(np.nansum(seen.nll, dtype=np.float64)), int(token_bytes(seen.ids, bench.table)[1:].sum())
    mean, what = entered / len(seen.nll), "val_loss is the mean of the nats entered, over the text's own bytes"
    if not math.isclose(mean, seen.loss, rel_tol=MEAN):
        return [
            _fail("mistake 25", "score", f"val_loss is {seen.loss:.6f}, the nats entered have a mean of {mean:.6f}")
        ]
    if seen.bytes != size:
        return [_fail("mistakes 1-6", where, f"{seen.bytes:,} bytes were counted, the text has {size:,}")]
    return [_held("mistake 25", where, what)]


def unmoved(bench: Bench, base: Observed, plain: Observed) -> list[Finding]:
    """C2: asking for distributions changes no score; what differs between two equal runs is neither here nor there."""
    if base.same(plain):
        return [_held("repeat", "two runs", "equal to the bit, asked for distributions or not")]
    if base.same(bench.observe(bench.ids)):
        where = first(np.flatnonzero(base.nll != plain.nll))
        return [_fail("C2", f"target {where}", "its score is another when nobody asks for the distributions before")]
    what = "two equal runs differ, so experiments that compare runs say nothing"
    return [Finding("repeat", "needs argument", "two runs", what, "make the evaluation deterministic")]


def flipped(base: Observed, other: Observed, t: int) -> list[Finding]:
    """Token `t` was changed: earlier scores (C1), its own distribution (C2) and the parameters it met (C3) were not.

    Where the entered scores moved and the ones declared before the paper was seen did not, the paper was learnt from."""
    target = t - 1
    seen = np.flatnonzero(base.declared[:target] != other.declared[:target])
    learnt = np.flatnonzero(
        (base.nll[:target] != other.nll[:target]) & (base.declared[:target] == other.declared[:target])
    )
    yet = [c for c in range(base.chunk[target] + 1) if base.shas[c] != other.shas[c]]
    own = np.array_equal(base.rows[target], other.rows[target])
    rows = [
        ("C1", not len(seen), f"the score of target {first(seen)} depends on it", "earlier scores"),
        ("C2", own, "its own distribution depends on it", "its own distribution"),
        (
            "C3",
            not len(learnt),
            f"target {first(learnt)} was graded by what was learnt from it",
            "scores entered before it",
        ),
        ("C3", not yet, f"parameters that score chunk {first(yet)} depend on it", "parameters up to its chunk"),
    ]
    return [
        _held(rule, f"flip token {t}", f"{good} bit-equal") if ok else _fail(rule, f"flip token {t}", bad)
        for rule, ok, bad, good in rows
    ]


def first(found) -> int:
    return int(found[0]) if len(found) else 0


def chunk_text(bench: Bench, base: Observed) -> Iterator[Finding]:
    """C3: with the whole text of a chunk changed, the parameters that score it, and all before it, are the same."""
    chunk = int(base.chunk.max()) // 3
    places = bench.text_tokens()
    mine = places[np.isin(places - 1, np.flatnonzero(base.chunk == chunk))]
    other = bench.observe(bench.changed(mine))
    where = f"chunk {chunk} rewritten"
    if base.shas[chunk] != other.shas[chunk]:
        yield _fail("C3", where, "it is scored by parameters that depend on its own text")
    before = base.chunk < chunk
    if (base.nll[: mine[0] - 1] != other.nll[: mine[0] - 1]).any() or (base.nll[before] != other.nll[before]).any():
        yield _fail("C1", where, "scores committed before it changed")
    learnt = sum(base.shas[c] != other.shas[c] for c in base.shas if c > chunk)
    yield _held("C3", where, f"its own parameters and all scores before are the same; {learnt} later ones are not")


def isolation(bench: Bench, base: Observed) -> list[Finding]:
    """Mistake 16: with one document (the longest) rewritten, every score of every other document is the same to the bit."""
    starts = np.unique([0, *np.flatnonzero(bench.table.boundary[bench.ids]), len(bench.ids)])
    if len(starts) < 3:
        return [Finding("mistake 16", "note", "isolation", "only one document in the excerpt: not tested", "")]
    number = int(np.diff(starts).argmax())
    start, end = starts[number], starts[number + 1]
    inside = bench.text_tokens()
    other = bench.observe(bench.changed(inside[(inside > start) & (inside < end)]))
    outside = (np.arange(len(base.nll)) < start) | (np.arange(len(base.nll)) >= end)
    moved, where = np.flatnonzero(outside & (base.nll != other.nll)), f"document {number} rewritten"
    if len(moved):
        return [_fail("mistake 16", where, f"target {moved[0]} of another document changed its score")]
    return [_held("mistake 16", where, f"{outside.sum():,} scores of other documents are bit-equal")]


def merged(found: list[Finding]) -> list[Finding]:
    """One line for equal findings at several places."""
    rows: dict[tuple[str, str, str], Finding] = {}
    for f in found:
        key = (f.rule, f.verdict, f.what)
        where = f"{rows[key].where}, {f.where.split()[-1]}" if key in rows else f.where
        rows[key] = Finding(f.rule, f.verdict, where, f.what, f.fix)
    return list(rows.values())


FIXES = {
    "C1": "let a prediction see earlier tokens only",
    "C2": "score with one full distribution, made before the target is known",
    "C3": "commit a chunk's score before anything learns from it",
    "C4": "score each target once, left to right",
}


def _fail(rule: str, where: str, what: str) -> Finding:
    return Finding(rule, "fail", where, what, FIXES.get(rule, "see the rule"))


def _held(rule: str, where: str, what: str) -> Finding:
    return Finding(rule, "note", where, f"holds: {what}", "")
