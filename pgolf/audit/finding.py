"""What an audit says: findings by rule, and the one verdict they add up to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

# Rules of the score and its limits, the gravest first; what is not listed stands between them and the formal ones.
GRAVE = (
    "C3", "C1", "C2", "C4", "mistake 9", "mistake 20", "C1-C4", "mistakes 1-6", "mistake 7", "mistake 8", "mistake 11",
    "mistake 19", "mistake 18", "mistake 22", "mistake 28", "mistake 21", "mistake 24", "mistake 32",
)  # fmt: skip
FORMAL = ("mistake 25", "mistake 30", "mistake 23", "mistake 27", "mistake 26", "folder", "mistake 31", "plausibility")
VERDICTS = ("fail", "needs argument", "note")


@dataclass(frozen=True)
class Finding:
    """`rule` ('C3', 'mistake 7') seen at `where` (file:line, or a part of the run): `what` it is, and how to `fix` it.

    `times` counts the findings that this one stands for."""

    rule: str
    verdict: Literal["fail", "needs argument", "note"]
    where: str
    what: str
    fix: str
    times: int = 1


def gravity(rule: str) -> int:
    """Where a rule stands among all: 0 for the gravest. gravity("C3") == 0"""
    if rule in GRAVE:
        return GRAVE.index(rule)
    return len(GRAVE) + 1 + FORMAL.index(rule) if rule in FORMAL else len(GRAVE)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Fails first, then what needs an argument, then notes; within each the gravest rule first."""
    return sorted(findings, key=lambda f: (VERDICTS.index(f.verdict), gravity(f.rule)))


def once(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of one rule that differ only in figures and places as one, the first of them, with a count.

    once([Finding("mistake 20", "fail", "a.log:3", "16,000,002 bytes", ""), Finding("mistake 20", "fail", "b.log:3",
    "16,000,009 bytes", "")]) is the first with times=2."""
    kept: dict[tuple, Finding] = {}
    for f in findings:
        cause = (f.rule, f.verdict, re.sub(r"\S*\d\S*", "#", f.what))
        before = kept.get(cause)
        kept[cause] = replace(before, times=before.times + f.times) if before else f
    return list(kept.values())


def overall(findings: Iterable[Finding]) -> str:
    """`fail (rules)`, `needs argument (rules)` or `consistent`: the worst verdict and the rules that earned it, the gravest
    first; beside a failure also the questions on rules of the score.

    A C3 failure beside a note gives 'fail (C3)'; notes alone give 'consistent'. Nothing ever earns a bare PASS."""
    found = ranked(findings)
    rules = {v: list(dict.fromkeys(f.rule for f in found if f.verdict == v)) for v in VERDICTS}
    failed, arguable = rules["fail"], rules["needs argument"]
    if failed:
        arguable = [rule for rule in arguable if rule in GRAVE and rule not in failed]
    parts = [f"{verdict} ({', '.join(r)})" for verdict, r in (("fail", failed), ("needs argument", arguable)) if r]
    return "; ".join(parts) or "consistent"
