"""CaseOps: every text comes back, malformed strings are refused, bytes of tokens."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgolf.data import caseops
from pgolf.errors import UserError

TEXT = st.one_of(st.text(), st.text(alphabet="abZQé1 '\n日" + caseops.MARKERS))


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
@example(text=caseops.MARKERS * 2 + "A")
def test_every_text_comes_back_and_its_bytes_are_counted(text):
    encoded = caseops.encode(text)
    assert caseops.decode(encoded) == text
    data = encoded.encode("utf-8", "surrogatepass")
    assert caseops.weights(data).sum() == len(text.encode("utf-8", "surrogatepass"))


@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_encoded_text_has_no_ascii_capital_outside_escapes(text):
    assert not any("A" <= c <= "Z" for c in caseops.encode(text))


@settings(deadline=None, max_examples=300)
@given(encoded=st.text(alphabet="abQ1é " + caseops.MARKERS, max_size=8))
def test_what_is_decoded_is_what_the_state_machine_reads(encoded):
    try:
        expected = machine(encoded)
    except ValueError:
        with pytest.raises(UserError):
            caseops.decode(encoded)
    else:
        assert caseops.decode(encoded) == expected


def machine(encoded: str) -> str:
    """The decoder, character by character."""
    title, all_caps, capital, escape = caseops.MARKERS
    text, waiting, shouting, inside, i = "", None, False, False, 0
    while i < len(encoded):
        c = encoded[i]
        letter = c.isascii() and c.isalpha()
        if waiting and not letter:
            raise ValueError(c)
        if letter:
            text += c.upper() if waiting in (title, capital) or shouting or waiting == all_caps else c
            shouting, waiting, inside = shouting or waiting == all_caps, None, True
        elif c == escape:
            if i + 1 == len(encoded):
                raise ValueError(c)
            text += encoded[i + 1]
            i += 1
            shouting, inside = False, encoded[i].isascii() and encoded[i].isalpha()
        elif c == capital:
            waiting = c
        elif c in (title, all_caps):
            if inside:
                raise ValueError(c)
            waiting = c
        else:
            text, shouting, inside = text + c, False, False
        i += 1
    if waiting:
        raise ValueError(waiting)
    return text
