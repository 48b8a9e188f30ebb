"""Paths and globs on the command line as a shell user types them, in Hydra's spelling: `~`, `#`, `[0-9]`, blanks and accents are
no words of its grammar unless they stand in quotes.
"""

import re

from pgolf.data.sources import KINDS, PACKED
from pgolf.errors import UserError

LISTS = ("data.files", "data.val_files")
PLAIN = ("data.tokenizer", "data.folder", "data.cache", "data.document_separator")
ELEMENT = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)""", re.DOTALL)


def quoted(argument: str) -> str:
    """`data.files=~/a b/[0-9].txt` as `data.files=['~/a b/[0-9].txt']`; a list keeps its elements, a sweep its choices; words of
    other keys, `null` and what is quoted whole stay as they are.

    >>> quoted("data.files=~/c/*.txt"), quoted("data.folder=~/c")
    ("data.files=['~/c/*.txt']", "data.folder='~/c'")
    """
    key, _, value = argument.partition("=")
    name, value = key.lstrip("+"), value.strip()
    if name not in (*LISTS, *PLAIN) or value in ("", "null", "[]") or "${" in value:
        return argument
    if name == "data.document_separator":
        return f"{key}={quoted_text(value)}"
    if name in PLAIN:
        return f"{key}={','.join(map(quoted_text, elements(value)))}"
    if value[0] == "[" and value[-1] == "]":
        return f"{key}=[{','.join(map(quoted_text, elements(value[1:-1])))}]"
    return f"{key}={','.join(f'[{quoted_text(choice)}]' for choice in elements(value))}"


def elements(value: str) -> list[str]:
    """What commas outside quotes divide."""
    parts, at = [], 0
    while at < len(value):
        found = ELEMENT.match(value, at)
        parts.append(found.group(1).strip())
        at = found.end()
    return parts


def quoted_text(value: str) -> str:
    """A text in the quotes of Hydra's grammar, where a backslash means itself unless a quote follows; what has quotes keeps them.

    >>> quoted_text("O'Brien"), quoted_text('"as it is"')
    ("'O\\\\'Brien'", '"as it is"')
    """
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (found[2] and "\\'"), value) + "'"


def check_words(overrides: list[str]) -> None:
    """Refuse what a shell makes of an unquoted list: the key twice, or the names of further files on their own."""
    for key in LISTS:
        values = [word.partition("=")[2] for word in overrides if word.lstrip("+").startswith(f"{key}=")]
        if len(values) > 1:
            names = ",".join(value.strip("[]").strip("'\"") for value in values)
            raise UserError(f"{key} is given {len(values)} times; write one list: '{key}=[{names}]'")
    for word in overrides:
        if "=" not in word and word.endswith(tuple(kind + packed for kind in KINDS for packed in PACKED)):
            raise UserError(
                f"{word}: a file without a key; quote the glob ('data.files=*.txt') or write a list ('data.files=[a.txt,b.txt]')"
            )


def unescaped(separator: str) -> str:
    r"""`\n` and `\t` of a command line as the characters they mean."""
    return separator.replace("\\n", "\n").replace("\\t", "\t")
