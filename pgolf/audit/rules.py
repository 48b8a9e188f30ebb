"""The sections of rules.md by the rules that findings name."""

import re
from functools import cache
from importlib.resources import files

from pgolf.errors import UserError, nearest

PAGE = "pgolf/audit/rules.md"


@cache
def sections() -> dict[str, str]:
    """Rule to the text of its section, in the page's order."""
    text = files("pgolf.audit").joinpath("rules.md").read_text(encoding="utf-8")
    return {head: body.strip() for head, body in re.findall(r"(?m)^## (.+)\n([\s\S]*?)(?=^## |\Z)", text)}


def anchor(rule: str) -> str:
    """Where a rule is explained. anchor("mistake 20") == "pgolf/audit/rules.md#mistake-20" """
    return f"{PAGE}#{section_of(rule).lower().replace(' ', '-')}"


def section_of(rule: str) -> str:
    """The section that a finding's rule belongs to: its own, the one of its range, or else the four conditions."""
    if rule in sections():
        return rule
    number = re.fullmatch(r"(?:mistake )?(\d+)", rule.strip())
    if number:
        inside = {1: "mistakes 1-6", 10: "C3", 12: "C4", 13: "C1", 14: "C2", 15: "C2", 16: "C1", 17: "C1"}
        n = int(number[1][:3])
        named = f"mistake {n}"
        return named if named in sections() else inside[1] if 1 <= n <= 6 else inside.get(n, "C1-C4")
    return "C1-C4"


def explain(rule: str) -> str:
    """A rule's section. explain("20") is that of mistake 20. UserError, with the rules that exist, for any other word."""
    named = {name.lower(): name for name in sections()}
    found = named.get(rule.strip().lower())
    if found is None and re.fullmatch(r"(?i)(?:mistake )?(?:[1-9]|[12]\d|3[0-4])", rule.strip()):
        found = section_of(rule.strip().lower())
    if found is None:
        raise UserError(f"{rule!r}: no such rule (allowed: {', '.join(sections())}).{nearest(rule, sections())}")
    return f"{found}\n\n{sections()[found]}"
