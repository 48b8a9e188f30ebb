"""What a program reads of pgolf's commands: stdout as one JSON object, held to the table of schemas in docs/programs.md."""

import json
import re
from functools import cache
from typing import Any

from tests.pages import PAGES

PAGE = "docs/programs.md"
COMMON = ("schema", "code")


@cache
def schemas() -> dict[str, tuple[str, ...]]:
    """The keys of every schema, as the page's table has them: schema in the second column, keys in the third."""
    rows = re.findall(r"^\| [^|]+ \| `(pgolf\.[\w.]+/\d+)` \| ([^|]+) \|$", PAGES[PAGE], re.MULTILINE)
    return {schema: tuple(re.findall(r"`(\w+)`", keys)) for schema, keys in rows}


def said(stdout: str, name: str, code: int) -> dict[str, Any]:
    """The one object on stdout, which is of the schema `name`, has this exit code, and just the keys that are documented."""
    value = json.loads(stdout)
    schema, version = value["schema"].split("/")
    assert (schema, value["code"]) == (name, code)
    assert {*value} == {*COMMON, *schemas()[f"{schema}/{version}"]}
    return value


def refused(stdout: str, code: int) -> str:
    """The message of a failure."""
    return said(stdout, "pgolf.error", code)["error"]
