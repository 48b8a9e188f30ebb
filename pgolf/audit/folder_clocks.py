"""Both clocks of every run, calibration and adaptation included, as logs and submission.json state them."""

import re
from collections.abc import Iterator, Sequence

from pgolf.audit.finding import Finding
from pgolf.audit.folder_json import Submission
from pgolf.audit.headline import Headline
from pgolf.audit.log_run import Log
from pgolf.audit.published import CLOCK, STEP

TRAIN = re.compile(
    r"(?i)^(total_)?(train|training)_?(wallclock_?)?(time|seconds|wallclock)(_s|_sec|_seconds|_ms)?$|^wallclock_seconds$"
)
EVAL = re.compile(
    r"(?i)^(total_)?(ttt_)?(eval|evaluation)_?(time|seconds)(_s|_sec|_seconds|_ms)?$|^ttt_(time|seconds)(_s|_ms|_seconds)?$"
)
STOP = "stop before the step that would cross the clock"
RESERVE = "keep a reserve: what reads data to change the model is training time"


def check_clocks(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """Ten minutes to train and ten to evaluate; not where another track's limits were set."""
    if not submission.timed:
        return
    for log in logs:
        if log.trained:
            yield from _training(log, *log.trained)
        yield from _evaluation(log, head)
    for seed, row in [(None, submission.value), *submission.table.rows.items()]:
        who = "" if seed is None else f"seed {seed}: "
        for key, value in row.items():
            rule = "mistake 18" if TRAIN.match(key) else "mistake 19" if EVAL.match(key) else None
            if rule and isinstance(value, int | float) and not isinstance(value, bool):
                spent = value / 1000 if key.endswith("_ms") or value > 50_000 else value
                if spent > CLOCK + STEP:
                    what = f"{who}{key} is {value:g}, over {CLOCK:g} s"
                    yield Finding(rule, "fail", submission.where(key), what, "stay inside the clock")


def _training(log: Log, at: int, spent: float) -> Iterator[Finding]:
    if spent > CLOCK:
        verdict = "note" if spent <= CLOCK + STEP else "fail"
        yield Finding("mistake 18", verdict, log.at(at), f"training took {spent:.3f} s of {CLOCK:g}", STOP)
    after = [(line, seconds) for line, seconds in log.calibrated if line > at]
    extra = sum(seconds for _, seconds in after)
    if not extra or not spent <= CLOCK + STEP < spent + extra:
        return
    what = f"calibration took {extra:.1f} s after {spent:.1f} s of training: {spent + extra:.1f} s of {CLOCK:g}"
    where = log.at(after[0][0])
    if log.generated:
        yield Finding(
            "mistake 18",
            "needs argument",
            where,
            f"{what}; it says it read no data",
            "say which text it read, and when",
        )
    else:
        yield Finding("mistake 18", "fail", where, what, RESERVE)


def _evaluation(log: Log, head: Headline) -> Iterator[Finding]:
    """The claimed score's own time; and all that read validation text after training, each score once."""
    result = head.results.get(log)
    took = [log.evaluated] if log.evaluated else []
    took += [(result.line, result.seconds)] if result and result.seconds else []
    if not took:
        return
    at, spent = max(took, key=lambda t: t[1])
    if spent > CLOCK:
        verdict = "note" if spent <= CLOCK + STEP else "fail"
        yield Finding("mistake 19", verdict, log.at(at), f"evaluation took {spent:.1f} s of {CLOCK:g}", "score faster")
        return
    scores = {round(r.bpb, 4): r.seconds for r in log.by_label().values() if r.seconds and r.line <= at}
    whole = sum(scores.values()) + sum(seconds for line, seconds in log.adapted if line < at)
    if whole > CLOCK + STEP:
        what = f"{len(scores)} evaluation(s) and {len(log.adapted)} adaptation(s) took {whole:.1f} s together, of {CLOCK:g}"
        fix = "say which of them the score needs, and leave out the others"
        yield Finding("mistake 19", "needs argument", log.at(at), what, fix)
