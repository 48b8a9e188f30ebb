"""Labelled submission folders, made by code: legal ones in every grammar of logs, and one for each mistake and fault."""

from tests.audit_cases.faults import FAULTS
from tests.audit_cases.folders import Case, write
from tests.audit_cases.legal import LEGAL
from tests.audit_cases.mistakes import MISTAKES

CASES: list[Case] = [*LEGAL, *MISTAKES, *FAULTS]
__all__ = ["CASES", "Case", "write"]
