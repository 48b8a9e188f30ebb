"""What an audit says: findings by rule, and the one verdict they add up to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`rule` ('C3', 'mistake 7') seen at `where` (file:line, or a part of the run): `what` it is, and how to `fix` it."""

    rule: str
    verdict: Literal["fail", "needs argument", "note"]
    where: str
    what: str
    fix: str


def overall(findings: Iterable[Finding]) -> str:
    """`fail (rules)`, `needs argument (rules)` or `consistent`: the worst verdict, and every rule that earned it.

    A C3 failure beside a note gives 'fail (C3)'; notes alone give 'consistent'. Nothing ever earns a bare PASS."""
    found = list(findings)
    for verdict in ("fail", "needs argument"):
        rules = dict.fromkeys(f.rule for f in found if f.verdict == verdict)
        if rules:
            return f"{verdict} ({', '.join(rules)})"
    return "consistent"
