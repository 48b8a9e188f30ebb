"""CaseOps: a lossless transform that spells the case of ASCII letters as marker characters, so that a tokenizer sees lower case.

Markers: T U+E001 (first letter capital), A U+E002 (all capitals), C U+E003 (next letter capital), X U+E004 (next character is
meant literally). A run is a maximal sequence of ASCII letters. Source: parameter-golf pull request 1729.
"""

import re

import numpy as np

from pgolf.errors import UserError

TITLE, ALL_CAPS, CAPITAL, ESCAPE = MARKERS = "\ue001\ue002\ue003\ue004"
CASED = re.compile(rf"(?<![A-Za-z])[a-z]*+[A-Z][A-Za-z]*|[{MARKERS}]")
SPELLED = re.compile(
    rf"(?:(?<![A-Za-z])([{TITLE}{ALL_CAPS}])(?=[A-Za-z]))?((?:{CAPITAL}?[A-Za-z])+)|{ESCAPE}(.)|[{MARKERS}]", re.DOTALL
)
OPERATORS = re.compile(rb"\xee\x80\x84(?:\xee\x80[\x81-\x84])?|\xee\x80[\x81-\x83]")  # in UTF-8


def encode(text: str) -> str:
    """`text` with its capitals spelled by markers and its own marker characters escaped.

    >>> encode("The NASA iPhone") == "\\ue001the \\ue002nasa i\\ue003phone"
    True
    """
    return CASED.sub(lambda found: _spelled(found.group()), text)


def _spelled(run: str) -> str:
    if run in MARKERS:
        return ESCAPE + run
    if len(run) > 1 and run.isupper():
        return ALL_CAPS + run.lower()
    rest = re.sub("[A-Z]", lambda capital: CAPITAL + capital.group().lower(), run[1:])
    return (TITLE if run[0].isupper() else "") + run[0].lower() + rest


def decode(encoded: str) -> str:
    """The text that `encode` was given. Raises UserError, with the position, for a string that cannot be one of its results:
    a marker at the end or before what is no letter, T or A inside a run, C twice in a row."""

    def text(found: re.Match) -> str:
        first, run, literal = found.groups()
        if literal is not None:
            return literal
        if run is None:
            at = found.start()
            raise UserError(
                f"CaseOps text: the marker U+{ord(encoded[at]):04X} at character {at} stands where none may"
            )
        plain = re.sub(f"{CAPITAL}(.)", lambda capital: capital.group(1).upper(), run)
        return plain.upper() if first == ALL_CAPS else plain[0].upper() + plain[1:] if first else plain

    return SPELLED.sub(text, encoded)


def weights(encoded: bytes) -> np.ndarray:
    """How many bytes of the original each byte of transformed UTF-8 stands for, (n,) int32: 1, and 0 for a marker that is
    an operator. A literal marker after its escape counts its 3 bytes. The sum is the length of the original."""
    counted = np.ones(len(encoded), np.int32)
    for operator in OPERATORS.finditer(encoded):
        counted[operator.start() : operator.start() + 3] = 0
    return counted
