"""What logs and texts state about C1 to C4 and about validation text, and figures outside the ranges of public records."""

import re
from collections.abc import Iterator, Sequence

from pgolf.audit import published as public
from pgolf.audit.finding import Finding
from pgolf.audit.folder_json import Submission
from pgolf.audit.headline import Headline
from pgolf.audit.log_run import Log, Result
from pgolf.results import stats

MIXED = re.compile(r"(?i)(?<![a-z])mix(?:ture|er)?(?![a-z])|blend|(?<![a-z])ppm|n-?gram|hedge")
BEFORE = re.compile(r"(?i)diagnostic(?!.*quantized)|\bpre-?quant|post[-_ ]ema|unquantized")
QUANTISED = re.compile(r"(?i)quantized|round_?trip")
ADAPTED = re.compile(r"(?i)ttt|slid|ngram|n-gram|mix|cache|window|adapt|stride")
PREQUANT = re.compile(
    r"(?i)\bpre-?quant(?:ization)?[ _-]*ttt\b|\bepochs?\b[^.;]{0,40}\b(?:on|over) (?:the )?val(?:idation)?\b[^.;]{0,40}\bbefore\b"
)
NEGATED = re.compile(r"(?i)\b(?:no|not|without|never|non|removed?|instead of|drop\w*|disabled?)\b[^.;]{0,40}$")
CLAIMS = ("name", "blurb", "technique_summary", "summary", "description", "key_changes", "techniques", "approach")
SCORE_FIRST = "score each chunk first, then train on it"
SHOW = "show each of C1 to C4 for what the evaluation does"


def check_legal(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """Each condition by the words that logs use; what only a text says needs an argument."""
    for log in logs:
        yield from _confessed(log)
        result = head.results.get(log)
        if result and MIXED.search(f"{head.label}"):
            what = (
                f"the claimed score is of a mixture ({head.label}): does it give every token a share, and sum to one?"
            )
            fix = "show sums over the whole alphabet, at sampled positions"
            yield Finding("C2", "needs argument", log.at(result.line), what, fix)
    if not any(log.prequant for log in logs):
        yield from _stated(submission)


def _confessed(log: Log) -> Iterator[Finding]:
    if log.prequant:
        at, epochs = log.prequant
        what = f"trains on validation text for {epochs} epoch(s) before that text is scored"
        yield Finding("C3", "fail", log.at(at), what, SCORE_FIRST)
    if log.passes:
        what = "scores the validation text in a second pass, after the first has seen all of it"
        yield Finding("C4", "fail", log.at(log.passes), what, "score every token once, in order")
    if log.chosen:
        what = "chooses between averages or settings by their score on validation text"
        yield Finding(
            "mistake 11", "needs argument", log.at(log.chosen), what, "choose on held-out training text, or by config"
        )
    if log.validation_calibration:
        what = "calibrates on validation text"
        fix = "calibrate on training text, or on text that the model writes"
        yield Finding("mistake 11", "needs argument", log.at(log.validation_calibration), what, fix)
    if log.shards and log.shards[1] > public.SHARDS:
        many = f"{log.shards[1]:,} shards of training text, where {public.SHARDS} were published"
        what = f"{many}: it may hold the validation documents"
        yield Finding(
            "mistake 9", "needs argument", log.at(log.shards[0]), what, "show that no document is in both splits"
        )


def _stated(submission: Submission) -> Iterator[Finding]:
    """Training before scoring as submission.json describes it, where no log shows it."""
    for key in CLAIMS:
        value = submission.value.get(key)
        text = value if isinstance(value, str) else " ; ".join(map(str, value)) if isinstance(value, list) else ""
        found = PREQUANT.search(text[:20_000])
        if found and not NEGATED.search(text[: found.start()]):
            what = f"speaks of training on validation text before it is scored ({found[0][:60]})"
            yield Finding("C3", "needs argument", submission.where(key), what, SCORE_FIRST)
            return


def check_plausible(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """Figures outside of the range of public records, each with that range. None of them is a failure; a study of ours on
    another text has no range."""
    if submission.ours and not submission.timed:
        return
    yield from _gain(head)
    yield from _score(submission)
    for log in logs:
        yield from _speed(log)
        yield from _passes(log)
        yield from _gap(log)
        yield from _bytes_per_token(log, head.results.get(log))
    yield from _spread(submission)


def _needs_argument(rule: str, where: str, what: str, low: str, high: str, fix: str) -> Finding:
    return Finding(rule, "needs argument", where, f"{what}; public records lie from {low} to {high}", fix)


def _gain(head: Headline) -> Iterator[Finding]:
    """What evaluation gained over the last score of the unadapted model."""
    for log, result in head.results.items():
        early = [r for r in log.results if r.line < result.line]
        flat = log.unadapted or next((r for r in early if BEFORE.search(r.label) or _plain(r)), None)
        if flat and flat.bpb - result.bpb > public.GAIN_ASKED:
            moved = f"from {flat.bpb} ({flat.label}) to {result.bpb} ({result.label})"
            what = f"evaluation gains {flat.bpb - result.bpb:.4f} bpb, {moved}"
            low, high = (f"{x:+.3f}" for x in public.GAIN)
            yield _needs_argument("C1-C4", log.at(result.line), what, low, high, SHOW)


def _score(submission: Submission) -> Iterator[Finding]:
    mean = submission.scores.sample.mean if submission.scores else None
    if mean is not None and 0 < mean < public.SCORE_ASKED:
        low, high = map(str, public.SCORES)
        yield _needs_argument("C1-C4", submission.where("val_bpb"), f"val_bpb is {mean:.4f}", low, high, SHOW)


def _speed(log: Log) -> Iterator[Finding]:
    """Tokens of training per second and GPU."""
    if not (log.step and log.batch and log.trained and log.trained[1] > 60):
        return
    ranks = log.world[1] if log.world else 8
    speed = log.step[1] * log.batch[1] / log.trained[1] / max(1, ranks)
    if speed > public.SPEED_ASKED:
        low, high = (f"{x / 1e6:.1f}" for x in public.SPEED)
        what = f"{speed / 1e6:.2f} million tokens a second on each of {ranks} {log.gpu or 'GPU(s)'}"
        yield _needs_argument(
            "plausibility", log.at(log.step[0]), what, low, high, "say what hardware it was, and how long it trained"
        )


def _passes(log: Log) -> Iterator[Finding]:
    """Steps × batch against the training text that was there."""
    if not (log.step and log.batch and log.shards and 0 < log.shards[1] <= public.SHARDS):
        return
    passes = log.step[1] * log.batch[1] / (log.shards[1] * public.SHARD_TOKENS)
    if passes > public.PASSES_ASKED:
        what = f"{log.step[1]:,} steps of {log.batch[1]:,} tokens are {passes:.1f} passes over {log.shards[1]} shard(s)"
        yield _needs_argument(
            "plausibility", log.at(log.step[0]), what, *map(str, public.PASSES), "say what the steps and the batch were"
        )


def _plain(result: Result) -> bool:
    """A score of the quantised model by plain evaluation."""
    return bool(QUANTISED.search(result.label)) and not ADAPTED.search(result.label) and not BEFORE.search(result.label)


def _gap(log: Log) -> Iterator[Finding]:
    """What quantising lost, between the last score before it and the first after it, neither adapted."""
    after = next((r for r in log.results if _plain(r)), None)
    if after is None:
        return
    early = [r for r in log.results if BEFORE.search(r.label) and r.line < after.line]
    before = early or ([log.unadapted] if log.unadapted else [])
    gap = after.bpb - before[-1].bpb if before else 0.0
    if gap > public.GAP_ASKED:
        what = f"quantising loses {gap:.4f} bpb, from {before[-1].bpb} to {after.bpb}"
        yield _needs_argument(
            "plausibility",
            log.at(after.line),
            what,
            *map(str, public.GAP),
            "show that the weights were not fitted to what is scored",
        )


def _bytes_per_token(log: Log, result: Result | None) -> Iterator[Finding]:
    if result is None or not result.loss or not result.bpb or result.loss_decimals < 3:
        return
    per = result.loss / result.bpb / 0.6931471805599453
    low, high = public.BYTES_PER_TOKEN_ASKED
    if not low <= per <= high:
        what = f"val_loss and val_bpb give {per:.2f} bytes a token"
        yield _needs_argument(
            "mistakes 1-6", log.at(result.line), what, *map(str, public.BYTES_PER_TOKEN), "show the byte table"
        )


def _spread(submission: Submission) -> Iterator[Finding]:
    """The deviation between seeds, from figures of five digits and more."""
    values = list(submission.scores.bpb.values()) if submission.scores else []
    deviation = stats.std(values)
    if len(values) < 3 or deviation is None or any(len(repr(v)) < 7 for v in values):
        return
    low, high = public.STD_ASKED
    if not low <= deviation <= high:
        what = f"the seeds deviate by {deviation:.6f} bpb"
        yield _needs_argument(
            "plausibility", submission.where("seed_results"), what, *map(str, public.STD), "show each seed's own log"
        )
