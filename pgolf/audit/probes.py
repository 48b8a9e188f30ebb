"""Experiments on an evaluator as a black box: the text is changed, and what must not depend on the change is compared.

Whatever a learner enters must be what its distributions say of the targets, and neither may depend on later text, on the target
itself, or on text that is not yet scored."""

import math
from collections.abc import Iterator

import numpy as np

from pgolf.audit.finding import Finding
from pgolf.audit.watch import Harness, Observed
from pgolf.data.bytes import token_bytes
from pgolf.eval.ledger import LedgerError
from pgolf.ttt import TTT

FLIPS = 4  # tokens that are changed one at a time
SUM = 1e-4  # by which a sum of probabilities may miss one
NATS = 1e-5  # by which a score may miss the predicted distribution
MEAN = 1e-6  # by which val_loss may miss the mean of what was entered, relative: both are float64 sums


def probe(harness: Harness) -> list[Finding]:
    """Every experiment, or the one finding of a referee who stopped the first of them."""
    flips = flip_positions(harness)
    try:
        base, plain = harness.observe(harness.ids, {t - 1 for t in flips}), harness.unwatched()
        found = [*distributions(base), *single_pass(base), *unmoved(harness, base, plain)]
        found += [*totals(harness, base, "score"), *totals(harness, plain, "unwatched")]
        for t in flips:
            found += flipped(base, harness.observe(harness.changed(np.array([t])), {t - 1}), t)
        found += list(chunk_text(harness, base))
        if harness.ttt.isolated:
            found += isolation(harness, base)
    except LedgerError as stopped:
        return [_fail(stopped.rule, "the referee", str(stopped))]
    return merged(found)


def evaluations(ttt: TTT) -> int:
    """How many `probe` makes of a deterministic evaluator."""
    return FLIPS + (4 if ttt.isolated else 3)


def flip_positions(harness: Harness) -> list[int]:
    """Tokens to be changed, one by chance in each part of the text; never a document's edge."""
    places, chance = harness.text_tokens(), np.random.default_rng(0).random(FLIPS)
    places = places[places > 1]
    return sorted({int(places[int(len(places) * (i + part) / FLIPS)]) for i, part in enumerate(chance)})


def distributions(seen: Observed) -> list[Finding]:
    """C2: probabilities sum to one, and the scores entered are what the distributions say of the targets."""
    off, apart = (np.nan_to_num(np.abs(d), nan=np.inf) for d in (seen.total - 1, seen.nll - seen.predicted))
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
            f"scored {seen.nll[differs]:.5f} nats, predicted {seen.predicted[differs]:.5f} before the target was known",
            "every score entered is the predicted one",
        ),
        (
            seen.shifted <= NATS,
            "made-up targets",
            f"a score differs by up to {seen.shifted:.5f} nats from the distribution predicted without the target",
            "random targets get the predicted nats",
        ),
    ]
    return [_held("C2", where, good) if ok else _fail("C2", where, bad) for ok, where, bad, good in rows]


def single_pass(seen: Observed) -> list[Finding]:
    """C4: every target is scored exactly once."""
    wrong = np.flatnonzero(seen.visits != 1)
    if len(wrong):
        return [_fail("C4", f"target {wrong[0]}", f"scored {seen.visits[wrong[0]]} times")]
    return [_held("C4", "visits", f"each of {len(seen.visits):,} targets was scored exactly once")]


def totals(harness: Harness, seen: Observed, where: str) -> list[Finding]:
    """The score is what was entered: the mean of its nats, over the bytes of the text."""
    entered, size = float(np.nansum(seen.nll, dtype=np.float64)), int(token_bytes(seen.ids, harness.table)[1:].sum())
    mean, what = entered / len(seen.nll), "val_loss is the mean of the nats entered, over the text's own bytes"
    if not math.isclose(mean, seen.loss, rel_tol=MEAN):
        return [
            _fail("mistake 25", "score", f"val_loss is {seen.loss:.6f}, the nats entered have a mean of {mean:.6f}")
        ]
    if seen.bytes != size:
        return [_fail("mistakes 1-6", where, f"{seen.bytes:,} bytes were counted, the text has {size:,}")]
    return [_held("mistake 25", where, what)]


def unmoved(harness: Harness, base: Observed, plain: Observed) -> list[Finding]:
    """C2: asking for distributions changes no score; what differs between two equal runs is neither here nor there."""
    if base.same(plain):
        return [_held("repeat", "two runs", "equal to the bit, asked for distributions or not")]
    if base.same(harness.observe(harness.ids)):
        where = first(np.flatnonzero(base.nll != plain.nll))
        return [_fail("C2", f"target {where}", "its score is another when nobody asks for the distributions before")]
    what = "two equal runs differ, so experiments that compare runs say nothing"
    return [Finding("repeat", "needs argument", "two runs", what, "make the evaluation deterministic")]


def flipped(base: Observed, other: Observed, t: int) -> list[Finding]:
    """Token `t` was changed: earlier scores (C1), its own distribution (C2) and the parameters it met (C3) were not. Earlier is
    in order of scoring, and slots of one chunk do not see each other.

    Where the entered scores moved and the ones predicted before the chunk was scored did not, the chunk was learnt from."""
    target = t - 1
    before, differs = base.before(target), base.predicted != other.predicted
    seen, learnt = np.flatnonzero(before & differs), np.flatnonzero(before & (base.nll != other.nll) & ~differs)
    yet = [c for c in range(base.chunk[target] + 1) if base.shas[c] != other.shas[c]]
    own = np.array_equal(base.rows[target], other.rows[target])
    rows = [
        ("C1", not len(seen), f"the score of target {first(seen)} depends on it", "earlier scores"),
        ("C2", own, "its own distribution depends on it", "its own distribution"),
        (
            "C3",
            not len(learnt),
            f"target {first(learnt)} was scored by what was learnt from it",
            "scores entered before it",
        ),
        ("C3", not yet, f"parameters that score chunk {first(yet)} depend on it", "parameters up to its chunk"),
    ]
    return [
        _held(rule, f"flip token {t}", f"{good} bit-equal") if ok else _fail(rule, f"flip token {t}", bad)
        for rule, ok, bad, good in rows
    ]


def first(found) -> int:
    """The first element as an int; 0 of nothing."""
    return int(found[0]) if len(found) else 0


def chunk_text(harness: Harness, base: Observed) -> Iterator[Finding]:
    """C3: with the whole text of a chunk changed, the parameters that score it, and all before it, are the same."""
    chunk = int(base.chunk.max()) // 3
    places = harness.text_tokens()
    mine = places[np.isin(places - 1, np.flatnonzero(base.chunk == chunk))]
    other = harness.observe(harness.changed(mine))
    where = f"chunk {chunk} rewritten"
    if base.shas[chunk] != other.shas[chunk]:
        yield _fail("C3", where, "it is scored by parameters that depend on its own text")
    before = base.chunk < chunk
    if (base.nll[before] != other.nll[before]).any():
        yield _fail("C1", where, "scores committed before it changed")
    learnt = sum(base.shas[c] != other.shas[c] for c in base.shas if c > chunk)
    yield _held("C3", where, f"its own parameters and all scores before are the same; {learnt} later ones are not")


def isolation(harness: Harness, base: Observed) -> list[Finding]:
    """Mistake 16: with one document (the longest) rewritten, every score of every other document is the same to the bit."""
    starts = np.unique([0, *np.flatnonzero(harness.table.boundary[harness.ids]), len(harness.ids)])
    if len(starts) < 3:
        return [Finding("mistake 16", "note", "isolation", "only one document in the excerpt: not tested", "")]
    number = int(np.diff(starts).argmax())
    start, end = starts[number], starts[number + 1]
    inside = harness.text_tokens()
    other = harness.observe(harness.changed(inside[(inside > start) & (inside < end)]))
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
