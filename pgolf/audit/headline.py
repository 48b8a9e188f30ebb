"""The label of a log's scores whose figures submission.json repeats, run by run: the claimed score among many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pgolf.audit.folder_json import TINY, Submission
from pgolf.audit.log_run import Log, Result
from pgolf.results import stats


@dataclass(frozen=True)
class Headline:
    """`label` of the claimed score, None where no log states it, and `results`: the run of each seed that states it, or, where
    a seed's runs state something else, the nearest. `alone`: only one of several runs has the score that is stated."""

    label: str | None = None
    results: Mapping[Log, Result] = field(default_factory=dict)
    alone: bool = False


def agrees(stated: float, exact: float, decimals: int = 8, unit: int = 0) -> bool:
    """`stated` is `exact` rounded to the fewer of the decimals they are written with, give or take `unit` in the last."""
    written = len(repr(stated).partition(".")[2]) if "e" not in repr(stated) else 8
    coarse, fine = sorted((written, decimals))
    return abs(stated - exact) <= (0.5 + unit) * 10.0**-coarse + 0.5 * 10.0**-fine + 1e-12


def headline(submission: Submission, logs: Sequence[Log]) -> Headline:
    """The label that fits most of the stated scores; among equals the last one that the logs state."""
    scored = [log for log in logs if log.scored()]
    if not scored or submission.scores is None:
        return Headline()
    tables = {log: log.by_label() for log in scored}
    labels = list(dict.fromkeys(label for table in tables.values() for label in table))
    fitting = {label: _fits(submission, {log: t[label] for log, t in tables.items() if label in t}) for label in labels}
    place = {label: max(t[label].line for t in tables.values() if label in t) for label in labels}
    best = max(labels, key=lambda label: (fitting[label][0], label != "the last step", place[label]))
    fits, alone = fitting[best]
    if not fits:
        return Headline()
    return Headline(best, _chosen(submission, {log: t[best] for log, t in tables.items() if best in t}), alone)


def _stated(submission: Submission, log: Log) -> float | None:
    """What is stated for a log's seed, or, where no seed is given figures or the log has none, the mean."""
    by_seed = submission.scores.bpb
    own = by_seed.get(str(log.seed_value))
    return own if own is not None or (by_seed and log.seed_value is not None) else None


def _fits(submission: Submission, results: Mapping[Log, Result]) -> tuple[float, bool]:
    """How many stated scores these results are, and whether it is the stated mean that only one of several has."""
    by_seed, mean = submission.scores.bpb, submission.scores.sample.mean
    if by_seed:
        seeds = {log.seed_value for log, r in results.items() if _agree(_stated(submission, log), r)}
        values = {
            s for s, v in by_seed.items() for log, r in results.items() if log.seed_value is None and _agree(v, r)
        }
        return float(len(seeds) + len(values)), False
    each = {log.seed_value if log.seed_value is not None else log: r for log, r in results.items()}
    average = stats.mean([r.bpb for r in each.values()])
    if agrees(mean, average, min(r.decimals for r in each.values()), unit=1):
        return len(each) + 0.5, False
    return float(any(_agree(mean, r) for r in results.values())), len(each) > 1


def _agree(stated: float | None, result: Result) -> bool:
    return stated is not None and (agrees(stated, result.bpb, result.decimals) or abs(stated - result.bpb) <= TINY)


def _chosen(submission: Submission, results: Mapping[Log, Result]) -> dict[Log, Result]:
    """One run per reported seed: the one that states what submission.json does, else the last. A run without a seed counts
    where it states a seed's score, or where no seed is given figures."""
    by_seed = submission.scores.bpb
    kept: dict[object, Log] = {}
    for log, result in results.items():
        seed = log.seed_value
        if (
            by_seed
            and str(seed) not in by_seed
            and not (seed is None and any(_agree(v, result) for v in by_seed.values()))
        ):
            continue
        key = log if seed is None else seed
        before = kept.get(key)
        if (
            before is None
            or not _agree(_stated(submission, before), results[before])
            or _agree(_stated(submission, log), result)
        ):
            kept[key] = log
    return {log: results[log] for log in kept.values()}
