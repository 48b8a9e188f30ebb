"""Whether submission.json, the logs and README state the same score, to the digits each of them gives."""

import math
from collections.abc import Iterator, Mapping, Sequence

from pgolf.audit.finding import Finding
from pgolf.audit.folder_json import NAME, TINY, Submission
from pgolf.audit.headline import Headline, agrees
from pgolf.audit.log_run import Log, Result
from pgolf.audit.published import BYTES, CROP, NEAR, SPREAD, STREAMS, TOKENS, stream_of
from pgolf.results import stats
from pgolf.results.seedtable import BPB, LOSS, figure
from pgolf.stages.views import digits

FIX = "generate every file from the records"
BYTES_FIX = "show that the byte table's sum is the bytes of the decoded text, over the whole split"


def check_scores(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """submission.json = logs, and the byte accounting and the tokens that the figures imply."""
    scored = [log for log in logs if log.scored()]
    if head.label is None and submission.scores and any(log.results for log in logs):
        yield _no_label(submission, [log for log in scored if log.results])
    if head.alone:
        values = [r.bpb for r in head.results.values()]
        mean = digits(stats.mean(values))
        what = f"{submission.scores.sample.mean} is the score of one run of {len(values)}; their mean is {mean}"
        yield Finding("mistake 25", "needs argument", submission.where("val_bpb"), f"{what} ({head.label})", FIX)
    yield from _by_seed(submission, head)
    yield from _mean(submission, head)
    yield from _fingerprint(submission, logs, head)
    yield from _tokens(submission, logs, head)


def _no_label(submission: Submission, logs: Sequence[Log]) -> Finding:
    log = next((log for log in logs if str(log.seed_value) in submission.scores.bpb), logs[0])
    last = log.results[-1]
    stated = submission.scores.bpb.get(str(log.seed_value), submission.scores.sample.mean)
    what = f"no score in the logs is the val_bpb of {NAME}, {stated}; the last one is {last.bpb} ({last.label})"
    return Finding("mistake 25", "fail", log.at(last.line), what, FIX)


def _by_seed(submission: Submission, head: Headline) -> Iterator[Finding]:
    """val_bpb and val_loss of every seed against its log's line under the headline label."""
    for log, result in head.results.items():
        row = submission.table.rows.get(log.seed_value, {})
        for kind, truth, decimals in ((BPB, result.bpb, result.decimals), (LOSS, result.loss, result.loss_decimals)):
            name = figure(row, kind)
            stated = row.get(name) if name else None
            if isinstance(stated, float) and truth is not None and not agrees(stated, truth, decimals):
                what = f"seed {log.seed_value}: {name} is {stated}, {log.at(result.line)} says {truth} ({result.label})"
                verdict = "note" if abs(stated - truth) <= TINY else "fail"
                yield Finding("mistake 25", verdict, submission.where(name), what, FIX)


def _mean(submission: Submission, head: Headline) -> Iterator[Finding]:
    """The mean against the logs', where submission.json has no seeds of its own to hold it against."""
    results = list(head.results.values())
    if not results or submission.scores.bpb or head.alone or len(results) != len(submission.seeds or results):
        return
    for key, values in (("val_bpb", [r.bpb for r in results]), ("val_loss", [r.loss for r in results])):
        stated = submission.number(key)
        if isinstance(stated, float) and None not in values:
            truth = stats.mean(values)
            if not agrees(stated, truth, min(r.decimals for r in results), unit=1) and abs(stated - truth) > TINY:
                what = f"{key} is {stated}, the logs' mean is {digits(truth)} ({head.label})"
                yield Finding("mistake 25", "fail", submission.where(key), what, FIX)


def ratio_of(loss: float | None, bpb: float, loss_decimals: int = 8, decimals: int = 8) -> tuple[float, float] | None:
    """(nats per bpb, by how much rounding may have moved it), None where the rounding is a fiftieth of a figure or more."""
    if not loss or not bpb:
        return None
    error = 0.5 * 10.0**-loss_decimals / loss + 0.5 * 10.0**-decimals / bpb
    return (loss / bpb, loss / bpb * error) if error < 0.02 else None


def _ratios(submission: Submission, logs: Sequence[Log], head: Headline) -> list[tuple[Log | None, int, float, float]]:
    """(log, line, nats per bpb, its error): of the headline, of a log's other end results, or else of submission.json."""
    found = []
    for log in logs:
        own = [head.results[log]] if log in head.results else []
        for r in [*own, *[r for r in reversed(log.results) if not own or r.line != own[0].line]]:
            ratio = ratio_of(r.loss, r.bpb, r.loss_decimals, r.decimals)
            if ratio:
                found.append((log, r.line, *ratio))
                break
    stated = submission.scores.nats_per_bpb if submission.scores else None
    if not found and stated:
        found.append((None, 0, stated, stated * 1e-4))
    return found


def _fingerprint(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """val_loss / val_bpb is a constant of the token stream: it shows how bytes were counted."""
    ratios = _ratios(submission, logs, head)
    if not ratios or (submission.ours and submission.value.get("track") is None):
        return
    low, high = min(ratios, key=lambda r: r[2]), max(ratios, key=lambda r: r[2])
    apart = high[2] / low[2] - 1
    streams = {log.stream for log in logs}
    if apart > SPREAD + (low[3] + high[3]) / low[2] and len(streams) == 1:
        what = f"val_loss / val_bpb differs between seeds by {apart:.2%}: they did not count the same bytes"
        yield Finding(
            "mistakes 1-6",
            "fail",
            submission.where("val_loss"),
            what,
            "score every seed on the same text with one byte table",
        )
    for log, line, ratio, error in ratios:
        known = stream_of(log.tokens[1]) if log and log.tokens else None
        expected = {known: STREAMS[known]} if known else STREAMS
        if any(abs(ratio / one - 1) <= NEAR + error / one for one in expected.values()):
            continue
        listed = ", ".join(f"{name} {one}" for name, one in expected.items())
        what = f"val_loss / val_bpb is {ratio:.4f}, but {listed}: bytes are counted in another way"
        verdict = "fail" if known and log.odd_text is None else "needs argument"
        where = log.at(line) if log else submission.where("val_loss")
        yield Finding("mistakes 1-6", verdict, where, what, BYTES_FIX)


def _tokens(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """How many tokens were scored, against the published split, and by seed against the log."""
    for log in logs:
        whole = stream_of(log.tokens[1]) if log.tokens else None
        if log.tokens and whole is None and log.stream in TOKENS and (not submission.ours or submission.timed):
            known = " or ".join(f"{n:,}" for n in TOKENS[log.stream])
            what = f"{log.tokens[1]:,} tokens of validation text, where the published split of {log.stream} has {known} to score"
            yield Finding("mistake 7", "needs argument", log.at(log.tokens[0]), what, "score the whole published split")
        stated = submission.table.rows.get(log.seed_value, {}).get("val_tokens")
        if log.tokens and isinstance(stated, int) and stated != log.tokens[1]:
            what = f"seed {log.seed_value}: val_tokens is {stated:,}, {log.at(log.tokens[0])} says {log.tokens[1]:,}"
            yield Finding("mistake 7", "fail", submission.where("val_tokens"), what, FIX)
        yield from _part(log, head.results.get(log))
        yield from _arithmetic(log)


def _part(log: Log, result: Result | None) -> Iterator[Finding]:
    """A claimed score that its own log says is over a part of the split, or over other bytes than the split has."""
    split = log.tokens[1] if log.tokens else None
    if log.subset and split and log.subset[1] < split - CROP:
        what = f"scores a subset of {log.subset[1]:,} tokens of {split:,}"
        yield Finding("mistake 7", "fail", log.at(log.subset[0]), what, "score the whole published split")
    elif log.subset and log.subset[1] >= 1000:
        what = f"speaks of a subset of {log.subset[1]:,} tokens"
        yield Finding("mistake 7", "needs argument", log.at(log.subset[0]), what, "score the whole published split")
    if result and result.tokens and split and result.tokens < split - CROP:
        what = f"the score is over {result.tokens:,} tokens of {split:,}"
        yield Finding("mistake 7", "fail", log.at(result.line), what, "score the whole published split")
    elif (
        result
        and result.bytes
        and result.tokens
        and stream_of(result.tokens)
        and not BYTES[0] <= result.bytes <= BYTES[1]
    ):
        what = f"divides by {result.bytes:,} bytes, where the split has {BYTES[0] / 1e6:.1f} to {BYTES[1] / 1e6:.1f} million"
        yield Finding("mistakes 1-6", "fail", log.at(result.line), what, BYTES_FIX)


def _arithmetic(log: Log) -> Iterator[Finding]:
    """bpb = nats / ln 2 · tokens / bytes, where a log states all four."""
    scored: Mapping[str, Result] = log.by_label()
    one = scored.get("val_bpb")
    if log.bytes and one and one.loss and log.tokens:
        again = one.loss / math.log(2) * log.tokens[1] / log.bytes[1]
        if abs(again - one.bpb) > 1e-6:
            what = f"val_bpb is {one.bpb}, but its val_loss, tokens and bytes give {digits(again)}"
            yield Finding("mistakes 1-6", "fail", log.at(one.line), what, "divide by the text's own bytes")
