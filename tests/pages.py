"""README.md and docs/ taken apart: fenced blocks, commands, transcripts, and what stands in backticks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
EXAMPLE = "docs/component.md"
FENCE = re.compile(r"(?:^`([^`\n]+)`\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADS = ("python ", "python3 ", ".venv/bin/", "./multirun.sh ", "pip ")


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` is the name in backticks on a line of its own before it."""

    page: str
    file: str
    language: str
    text: str


BLOCKS = [Block(page, *found.groups(default="")) for page, text in PAGES.items() for found in FENCE.finditer(text)]


def spoken(page: str) -> list[str]:
    """What stands in backticks in the running text of a page."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", PAGES[page]))]


def commands() -> list[str]:
    """Every command, once, without comment and without the path of its environment."""
    lines = [re.sub(r"\s+# .*", "", line) for block in BLOCKS for line in _lines(block)]
    lines += [code for page in PAGES for code in spoken(page) if code.startswith(HEADS) and " " in code]
    parts = [part.removeprefix(".venv/bin/").strip() for line in lines for part in line.split(" && ")]
    return list(dict.fromkeys(parts))


def _lines(block: Block) -> Iterator[str]:
    """In a `sh` block every line is a command, in a transcript those after `$`, in a bare block those that look so."""
    for line in block.text.splitlines():
        if block.language in ("", "console") and line.startswith("$ "):
            yield line[2:]
        elif block.language == "sh" or (not block.language and line.startswith(HEADS)):
            yield line


def transcripts(example: bool = False) -> list[tuple[str, str]]:
    """(command, what it prints) of the pages, or of the worked example."""
    shown = [b.text for b in BLOCKS if b.language in ("", "console") and (b.page == EXAMPLE) == example]
    found = [re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n?)*)", text, re.MULTILINE) for text in shown]
    return [(command, output.strip()) for pairs in found for command, output in pairs]
