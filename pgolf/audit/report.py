"""Findings for a reader: the verdict first, then what decides it; or all of them; or as plain values. What comes from files is
shown without what a terminal would obey."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pgolf.audit.bounded import plain
from pgolf.audit.finding import VERDICTS, Finding, gravity, overall
from pgolf.audit.rules import anchor

DECIDING = 3
WIDTH = 200  # characters of a line


def verdict(findings: Sequence[Finding]) -> str:
    """The verdict's line."""
    return plain(f"verdict {overall(findings)}")


def short(findings: Sequence[Finding]) -> list[str]:
    """The verdict, the three findings that decide it, and how many more there are of which rules."""
    decided = sorted(
        (f for f in findings if f.verdict != "note"), key=lambda f: (_formal(f), VERDICTS.index(f.verdict))
    )
    rest = [*decided[DECIDING:], *(f for f in findings if f.verdict == "note")]
    lines = [verdict(findings)]
    for finding in decided[:DECIDING]:
        lines += _entry(finding)
    if rest:
        rules = dict.fromkeys(f.rule for f in rest)
        lines.append(plain(f"and {len(rest)} more ({', '.join(rules)}): --long shows all"))
    if decided:
        lines.append(f"the rules: {anchor(decided[0].rule)}, or --explain {decided[0].rule!r}")
    return lines


def _formal(finding: Finding) -> bool:
    """Whether a finding is about the files' form and not about the score."""
    return gravity(finding.rule) > gravity("mistake 32")


def long(findings: Sequence[Finding]) -> list[str]:
    """The verdict, then every finding, with its remedy."""
    return [verdict(findings), *(line for finding in findings for line in _entry(finding))]


def _entry(finding: Finding) -> list[str]:
    times = f" (x{finding.times})" if finding.times > 1 else ""
    place = "" if finding.what.startswith(finding.where) else f"{finding.where}: "
    lines = [f"{finding.verdict:<14}  {finding.rule:<12}  {place}{finding.what}{times}"]
    if finding.fix and finding.verdict != "note":
        lines.append(f"{'':<14}  {'':<12}  -> {finding.fix}")
    return [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in map(plain, lines)]


def plain_values(path: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """The folder, its worst word, the verdict in words, and every finding with the section that explains its rule."""
    rows = [asdict(f) | {"explained": anchor(f.rule)} for f in findings]
    words = overall(findings)
    return {"path": path, "verdict": worst(words), "words": words, "findings": rows}


def worst(words: str) -> str:
    """The gravest verdict of an overall one. worst("needs argument (C1)") == "needs argument" """
    return next((v for v in VERDICTS[:2] if words.startswith(v)), "consistent")
