"""The auditor against labelled folders: what it says first, and whether it says it once."""

from collections import Counter
from statistics import median

import pytest

from pgolf.audit.finding import VERDICTS, overall
from pgolf.audit.folder import audit_folder
from pgolf.audit.report import short
from pgolf.audit.rules import sections
from tests.audit_cases import CASES, write


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("cases")
    return {case.name: audit_folder(write(case.files(), root / f"case_{i}")) for i, case in enumerate(CASES)}


def said(findings) -> tuple[str, str]:
    """The worst verdict and the rule that it names first."""
    first = next((f for f in findings if f.verdict != "note"), None)
    return (first.verdict, first.rule) if first else ("consistent", "")


def test_there_are_enough_of_each_kind():
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    numbers = {int(c.name.split()[1].rstrip(":")) for c in CASES if c.name.startswith("mistake")}
    assert numbers == set(range(1, 35)) - {33}, "mistake 33 shows in pgolf's own section: test_audit_folder"
    assert {int(c.name.split()[1].rstrip(":")) for c in CASES if c.name.startswith("fault")} == set(range(1, 22))


def test_verdict_and_deciding_rule(told):
    """The confusion table: rows are labels, columns what the auditor said; -s shows it."""
    pairs = Counter((case.verdict, said(told[case.name])[0]) for case in CASES)
    words = (*VERDICTS[:2], "consistent")
    lines = [f"{'label':<16}" + "".join(f"{w:>16}" for w in words)]
    lines += [f"{label:<16}" + "".join(f"{pairs[label, w]:>16}" for w in words) for label in words]
    wrong = [(c.name, (c.verdict, c.rule), overall(told[c.name]), [f.what for f in told[c.name] if f.verdict != "note"][:3])
             for c in CASES if said(told[c.name]) != (c.verdict, c.rule)]  # fmt: skip
    print("\n".join(["", *lines, f"{len(CASES) - len(wrong)} of {len(CASES)} with the right rule first"]))
    assert wrong == []


def test_legal_folders_raise_no_question(told):
    assert {
        c.name: said(told[c.name]) for c in CASES if c.verdict == "consistent" and said(told[c.name])[0] != "consistent"
    } == {}


def test_reports_are_short_and_each_cause_is_told_once(told):
    lengths = [len(short(findings)) for findings in told.values() if findings]
    assert median(lengths) <= 12
    assert max(lengths) <= 12
    (one,) = [f for f in told["fault 21: one cause in every log"] if f.rule == "mistake 18"]
    assert one.times == 3


def test_every_rule_that_is_named_is_explained(told):
    named = {f.rule for findings in told.values() for f in findings}
    assert sorted(named - {*sections()}) == []
    for name, text in sections().items():
        assert "Precedent: " in text, name
        assert "Settled by: " in text, name
