"""Checks of log files: whole, readable, written by the shipped script, one for every claimed seed."""

import hashlib
import re
from collections.abc import Iterator, Sequence

from pgolf.audit.bounded import read
from pgolf.audit.finding import Finding
from pgolf.audit.folder_code import CODE, Code
from pgolf.audit.folder_json import Submission
from pgolf.audit.folder_log import PYTHON, SOURCE
from pgolf.audit.headline import Headline, agrees
from pgolf.audit.log_run import Log

SHA = re.compile(r"\b[0-9a-f]{64}\b")
WHOLE = "ship the whole log"
OWN_SCRIPT = "ship the script that ran"


def check_seeds(submission: Submission, logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """A log for every seed; runs that are not reported, and seeds that were run twice; enough of them to claim anything."""
    seeds, logged = submission.seeds, {log.seed_value for log in logs}
    unnamed = sum(log.seed_value is None and bool(log.scored()) for log in logs)
    missing = [seed for seed in seeds if seed not in logged]
    if logs and len(missing) > unnamed and not (len(seeds) == len(logs) == 1):
        what = f"no log of seed {', '.join(map(str, missing))}"
        yield Finding("mistake 27", "fail", submission.where("seeds"), what, "ship one whole log per seed")
    for log in logs:
        if seeds and log.results and log.seed_value is not None and log.seed_value not in seeds and len(seeds) > 1:
            what = f"a log of seed {log.seed_value}, which is not among the {len(seeds)} that are reported"
            fix = "report every seed that was run, and why one is left out"
            yield Finding("mistake 32", "needs argument", log.name, what, fix)
        named = re.findall(r"(?i)seed[_-]?(\d+)", log.path.name)
        if log.alone and named and log.seed and int(named[-1]) != log.seed[1]:
            what = f"the file is named after seed {named[-1]}, the run says {log.seed[1]}"
            verdict = "fail" if int(named[-1]) in seeds else "needs argument"
            yield Finding("mistake 28", verdict, log.at(log.seed[0]), what, "name each log after its own seed")
    yield from _twice(logs, head)
    count = max(len(seeds), len(logged - {None}), 1)
    if count < 3 and (seeds or logs):
        what = f"{count} seed(s): a record is claimed over 3, fixed beforehand"
        yield Finding("mistake 31", "note", submission.where("seeds"), what, "run three seeds")


def _twice(logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """Runs of one seed that state the claimed score differently, and runs of several seeds that state the same one."""
    label = head.label or ""
    stated = [(log, log.by_label()[label]) for log in logs if label in log.by_label() and label != "the last step"]
    for seed in dict.fromkeys(log.seed_value for log, _ in stated if log.seed_value is not None):
        own = [(log, r) for log, r in stated if log.seed_value == seed]
        apart = [r.bpb for _, r in own if not agrees(r.bpb, own[0][1].bpb)]
        if apart:
            what = f"{len(own)} runs of seed {seed}, of {own[0][1].bpb} and {apart[0]} ({label})"
            yield Finding(
                "mistake 32", "needs argument", own[-1][0].name, what, "say which run counts, and why it was run again"
            )
    exact = [(log, r) for log, r in stated if r.decimals >= 6 and r.loss is not None and log.seed_value is not None]
    for i, (log, r) in enumerate(exact):
        other = next(
            (o.seed_value for o, same in exact[:i] if same.bpb == r.bpb and o.seed_value != log.seed_value), None
        )
        if other is not None:
            what = f"seeds {other} and {log.seed_value} have one score, {r.bpb}, to {r.decimals} digits"
            yield Finding("mistake 28", "needs argument", log.name, what, "ship the log of each seed's own run")


def check_log(log: Log, code: Code | None, head: Headline) -> Iterator[Finding]:
    """Whole, readable, of this script, printed once."""
    if log.undecodable:
        yield Finding("mistake 27", "note", log.at(log.undecodable), f"is not {log.encoding} text", "write UTF-8")
    if log.skipped:
        yield Finding(
            "mistake 27",
            "note",
            log.name,
            f"is so long that {log.skipped:,} bytes in its middle were not read",
            "keep logs short",
        )
    if log.lines == 0:
        yield Finding("mistake 27", "fail", log.name, "is empty", WHOLE)
    elif not log.results and log not in head.results:
        yield Finding("mistake 27", "fail", log.at(log.lines), "ends without any end score: cut short", WHOLE)
    if log.traceback:
        ended = log.results and log.traceback > log.results[-1].line
        what = "holds a traceback: the run failed" if not ended else "holds a traceback after its last score"
        yield Finding("mistake 27", "note" if ended else "fail", log.at(log.traceback), what, "ship a run that ended")
    yield from _ends(log, code)
    if code and len(re.findall(PYTHON.pattern, log.head, re.MULTILINE)) >= SOURCE:
        inside = log.head.replace("\r\n", "\n")
        if not any(source.text.replace("\r\n", "\n").strip() in inside for source in code.sources):
            what = f"holds the source of another script than {CODE}"
            yield Finding("mistake 28", "fail", log.at(1), what, OWN_SCRIPT)
    for at, text in log.repeated:
        yield Finding(
            "mistake 29", "note", log.at(at), f"printed by every rank: {text.strip()[:70]}", "print on rank 0 only"
        )
    if log.lines and not log.environment:
        yield Finding(
            "mistake 34", "note", log.name, "does not name the PyTorch version", "print versions, GPUs and driver"
        )


def _ends(log: Log, code: Code | None) -> Iterator[Finding]:
    """pgolf's own logs name the code's sha256 at both ends, and count their lines."""
    first, last = SHA.search(log.first), SHA.search(log.last)
    if not log.first.startswith(("begin pgolf=", "code ")) or not first:
        return
    at = log.at(log.lines)
    if not last or last[0] != first[0]:
        what = "its first line names the code, its last does not: cut short, or two logs in one"
        yield Finding("mistake 27", "fail", at, what, WHOLE)
    if code and first[0] != (own := hashlib.sha256(code.data).hexdigest()):
        what = f"is the log of another script: it names {first[0][:12]}…, {CODE} is {own[:12]}…"
        yield Finding("mistake 28", "fail", log.at(1), what, OWN_SCRIPT)
    if (count := re.search(r"\blines=(\d+)", log.last)) and int(count[1][:18]) != log.lines:
        yield Finding("mistake 27", "fail", at, f"has {log.lines} lines, its end marker says {count[1]}", WHOLE)
    if (status := re.search(r"\bstatus=(\w+)", log.last)) and status[1] != "complete":
        yield Finding("mistake 27", "fail", at, f"the run is {status[1]}", "ship a run that ended")


def check_proofs(submission: Submission, logs: Sequence[Log], code: Code | None) -> Iterator[Finding]:
    """pgolf's own section: hashes of code and logs, receipts, and the verdicts of its runs."""
    proofs = submission.value.get("pgolf") if submission.ours else None
    if proofs is None:
        return
    if code and proofs.get("code_sha256") != hashlib.sha256(code.data).hexdigest():
        yield Finding("mistake 28", "fail", submission.where("code_sha256"), f"{CODE} is another file", OWN_SCRIPT)
    for log in logs:
        stated = _table(proofs, "log_sha256").get(str(log.seed_value))
        if stated and not log.skipped and stated != hashlib.sha256(read(log.path)[0]).hexdigest():
            yield Finding("mistake 27", "fail", log.name, "is not the log whose sha256 was written down", WHOLE)
    for seed, receipts in _table(proofs, "receipts").items():
        for r in receipts if isinstance(receipts, list) else ():
            if isinstance(r, dict) and r.get("alive") is False:
                what = f"seed {seed}: {r.get('part')} was on and did nothing ({r.get('what')} = {r.get('value')})"
                yield Finding("mistake 33", "fail", submission.where("receipts"), what, "switch it off, or make it act")
    for seed, claim in _table(proofs, "verdict").items():
        if found := re.fullmatch(r"(fail|needs argument) \((.*)\)", str(claim)):
            what = f"seed {seed}: the run's own verdict is {claim}"
            yield Finding(
                found[2], found[1], submission.where("verdict"), what, "mend the run, or argue for it in README"
            )


def _table(proofs: dict, name: str) -> dict:
    value = proofs.get(name)
    return value if isinstance(value, dict) else {}
