"""One score, three places: whether submission.json, the logs and README say the same, to the digits each of them gives.

A log holds many scores under many labels; the headline is the label whose figures submission.json repeats.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pgolf import stats
from pgolf.audit.finding import Finding
from pgolf.audit.folder_json import NAME, Submission
from pgolf.audit.folder_log import Log, Result

README = "README.md"
STREAMS = {"SP1024": 1.6885, "SP4096": 2.3007, "SP8192": 2.5831, "SP8192 CaseOps": 2.1884}  # nats per bpb
TOKENS = {
    "SP1024": (62_021_632,),
    "SP4096": (45_508_608,),
    "SP8192": (40_540_160, 40_546_304, 40_548_352),
    "SP8192 CaseOps": (47_851_520, 47_853_343),
}
NEAR = 0.01  # by which a stream's nats per bpb may differ
SPREAD = 1e-3  # by which it may differ between the seeds of one submission
FIX = "generate every file from the records"
NUMBER = re.compile(r"(?<![\w.])\d+\.\d{3,}(?!\.\d)")


def agrees(stated: float, exact: float, unit: int = 0) -> bool:
    """`stated` is `exact` rounded to the decimals it is written with, give or take `unit` in the last."""
    decimals = len(repr(stated).partition(".")[2]) if "e" not in repr(stated) else 8
    return abs(stated - exact) <= (0.5 + unit) * 10.0**-decimals + 1e-12


def headline(submission: Submission, logs: Sequence[Log]) -> str | None:
    """The label that submission.json took its scores from: for most seeds, or else in the mean; the last such one."""
    if not logs or submission.scores is None:
        return None
    tables = [log.by_label() for log in logs]
    common = [label for label in tables[0] if all(label in table for table in tables)]
    fitting = {label: _fits(submission, logs, [t[label] for t in tables]) for label in common}
    best = max(common, key=lambda label: (fitting[label], tables[0][label].line), default=None)
    return best if best is not None and fitting[best] else None


def _fits(submission: Submission, logs: Sequence[Log], results: Sequence[Result]) -> int:
    """How many stated scores these results are."""
    stated = submission.scores.bpb
    pairs = [(stated.get(str(log.seed_value)), r.bpb) for log, r in zip(logs, results, strict=True)]
    if any(s is not None for s, _ in pairs):
        return sum(s is not None and agrees(s, bpb) for s, bpb in pairs)
    return agrees(submission.scores.sample.mean, stats.mean([r.bpb for r in results]))


def check_scores(submission: Submission, logs: Sequence[Log], readme: str | None) -> Iterator[Finding]:
    """json = log = README, and the byte accounting that the figures imply."""
    scored = [log for log in logs if log.results]
    label = headline(submission, scored)
    if scored and submission.scores and label is None:
        yield _no_label(submission, scored)
    results = {log: log.by_label()[label] for log in scored} if label else {}
    if results:
        yield from _by_seed(submission, results)
        yield from _mean(submission, results)
    exact = {log.seed_value: r for log, r in results.items()}
    if readme is not None:
        yield from check_readme(readme, submission, exact)
    yield from _fingerprint(submission, logs, exact)
    yield from _tokens(submission, logs)


def _no_label(submission: Submission, logs: Sequence[Log]) -> Finding:
    log = logs[0]
    last = log.results[-1]
    stated = submission.scores.bpb.get(str(log.seed_value), submission.scores.sample.mean)
    what = (
        f"no score in the logs is the val_bpb of {NAME} ({stated}); the last is {last.label} {last.bpb} in {log.name}"
    )
    return Finding("mistake 25", "fail", f"{log.name}:{last.line}", what, FIX)


def _by_seed(submission: Submission, results: Mapping[Log, Result]) -> Iterator[Finding]:
    """val_bpb and val_loss of every seed against its log's line under the headline label."""
    losses = {seed: row.get("val_loss") for seed, row in submission.rows()}
    for log, result in results.items():
        seed = log.seed_value
        for key, stated, truth in (
            ("val_bpb", submission.scores.bpb.get(str(seed)), result.bpb),
            ("val_loss", losses.get(seed), result.loss),
        ):
            if isinstance(stated, float) and truth and not agrees(stated, truth):
                what = f"seed {seed}: {key} is {stated}, {log.name}:{result.line} says {truth} ({result.label})"
                yield Finding("mistake 25", "fail", submission.where(key), what, FIX)


def _mean(submission: Submission, results: Mapping[Log, Result]) -> Iterator[Finding]:
    """The means against the logs', where submission.json has no seeds of its own to hold them against."""
    if submission.scores.bpb or len(results) != len(submission.seeds or results):
        return
    for key, values in (
        ("val_bpb", [r.bpb for r in results.values()]),
        ("val_loss", [r.loss for r in results.values()]),
    ):
        stated = submission.value.get(key)
        if isinstance(stated, float) and None not in values and not agrees(stated, stats.mean(values), unit=1):
            label = next(iter(results.values())).label
            what = f"{key} is {stated}, the logs' mean is {stats.digits(stats.mean(values))} ({label})"
            yield Finding("mistake 25", "fail", submission.where(key), what, FIX)


def check_readme(text: str, submission: Submission, exact: Mapping[int | None, Result]) -> Iterator[Finding]:
    """README's table rows by seed, the mean somewhere in it, and tables whose rows have as many cells as their heads."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("|"):
            yield from _row(line, number, exact)
            yield from _cells(lines, number)
    mean = submission.scores.sample.mean if submission.scores else None
    if mean is not None and not any(agrees(float(n), mean, unit=1) for n in NUMBER.findall(text)):
        yield Finding(
            "mistake 25", "needs argument", README, f"does not give the val_bpb of {NAME}, {stats.digits(mean)}", FIX
        )


def _row(line: str, number: int, exact: Mapping[int | None, Result]) -> Iterator[Finding]:
    cells = [c.strip(" *`") for c in line.strip().strip("|").split("|")]
    seeds = [s for s in exact if cells and cells[0] in (str(s), f"seed {s}", f"Seed {s}")]
    for seed in seeds:
        for name, truth, width in (("val_bpb", exact[seed].bpb, 0.02), ("val_loss", exact[seed].loss, 0.02)):
            near = [float(n) for n in NUMBER.findall(line) if truth and abs(float(n) / truth - 1) < width]
            if near and not any(agrees(n, truth) for n in near):
                what = f"seed {seed}: {name} is {near[0]}, its log says {truth} ({exact[seed].label})"
                yield Finding("mistake 25", "fail", f"{README}:{number}", what, FIX)


def _cells(lines: Sequence[str], number: int) -> Iterator[Finding]:
    """A row against the rule line (|---|) above it."""
    above = number - 2
    while above >= 0 and lines[above].lstrip().startswith("|") and not re.fullmatch(r"[|:\-\s]+", lines[above]):
        above -= 1
    if above >= 0 and re.fullmatch(r"\s*\|[|:\-\s]+", lines[above]):
        have, want = (re.sub(r"\\\|", "", lines[i].strip()).count("|") for i in (number - 1, above))
        if have != want:
            what = f"a table row of {have - 1} cells under a head of {want - 1}"
            yield Finding("mistake 25", "needs argument", f"{README}:{number}", what, FIX)


def _fingerprint(submission: Submission, logs: Sequence[Log], exact: Mapping[int | None, Result]) -> Iterator[Finding]:
    """val_loss / val_bpb is a constant of the token stream: it shows how bytes were counted."""
    ratios = {f"{s}": r.loss / r.bpb for s, r in exact.items() if r.loss}
    scores = submission.scores
    if not ratios and scores and scores.nats_per_bpb:
        ratios = {NAME: scores.nats_per_bpb}
    if not ratios:
        return
    mean = stats.mean(list(ratios.values()))
    where = submission.where("val_loss") if submission.value else logs[0].name
    apart = max(ratios.values()) / min(ratios.values()) - 1
    if apart > SPREAD:
        what = f"val_loss / val_bpb differs between seeds by {apart:.2%}: they did not count the same bytes"
        yield Finding("mistakes 1-6", "fail", where, what, "score every seed on the same text with one byte table")
    stream = next((log.stream for log in logs if log.stream), None)
    if submission.ours and submission.track is None:
        return
    known = {stream: STREAMS[stream]} if stream else STREAMS
    if not any(abs(mean / ratio - 1) <= NEAR for ratio in known.values()):
        listed = ", ".join(f"{name} {ratio}" for name, ratio in known.items())
        what = f"val_loss / val_bpb is {mean:.4f}, but {listed}: bytes are counted in another way"
        fix = "show that the byte table's sum is the bytes of the decoded text, over the whole split"
        yield Finding("mistakes 1-6", "fail" if stream else "needs argument", where, what, fix)


def _tokens(submission: Submission, logs: Sequence[Log]) -> Iterator[Finding]:
    """How many tokens were scored, against the published split, and by seed against the log."""
    for log in logs:
        if log.tokens is None:
            continue
        at, count = log.tokens
        if log.stream and count not in TOKENS[log.stream]:
            known = " or ".join(f"{n:,}" for n in TOKENS[log.stream])
            what = (
                f"{count:,} tokens of validation text, where the published split of {log.stream} has {known} to score"
            )
            yield Finding("mistake 7", "needs argument", f"{log.name}:{at}", what, "score the whole published split")
        for seed, row in submission.rows():
            stated = row.get("val_tokens")
            if seed == log.seed_value and isinstance(stated, int) and stated != count:
                what = f"seed {seed}: val_tokens is {stated:,}, {log.name}:{at} says {count:,}"
                yield Finding("mistake 7", "fail", submission.where("val_tokens"), what, FIX)
        yield from _arithmetic(log)


def _arithmetic(log: Log) -> Iterator[Finding]:
    """bpb = nats / ln 2 · tokens / bytes, where a log states all four."""
    scored = log.by_label().get("val_bpb")
    if log.bytes and scored and scored.loss and log.tokens:
        again = scored.loss / math.log(2) * log.tokens[1] / log.bytes[1]
        if abs(again - scored.bpb) > 1e-6:
            what = f"val_bpb is {scored.bpb}, but its val_loss, tokens and bytes give {stats.digits(again)}"
            yield Finding("mistakes 1-6", "fail", f"{log.name}:{scored.line}", what, "divide by the text's own bytes")


def read_text(path: Path) -> str | None:
    """A text file, undecodable bytes replaced; None if it is not there."""
    return path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else None
