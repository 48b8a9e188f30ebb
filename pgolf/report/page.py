"""The few pieces of HTML that reports are made of. Everything from a file is escaped here and nowhere else."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = Path(__file__).with_name("style.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a page that could load anything would not be self-contained


def page(title: str, body: Sequence[str]) -> str:
    """A whole document."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(title: str, below: str, tone: str = "") -> str:
    """The page's title, with one line below it."""
    return f'<h1>{escape(title)}</h1>\n<p class="{tone or "muted"}">{escape(below)}</p>'


def section(title: str, *parts: str) -> str:
    """A headed part of the page."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def text(content: str, tone: str = "") -> str:
    """A paragraph; `tone` is muted, good or bad."""
    return f'<p class="{tone}">{escape(content)}</p>'


def cards(facts: Mapping[str, str]) -> str:
    """The figures that matter most, by what they are."""
    made = (
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in facts.items()
    )
    return '<div class="cards">' + "".join(made) + "</div>"


def chart(svg: str, caption: str) -> str:
    """A drawing with what it shows."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def charts(drawn: Sequence[str]) -> str:
    """Drawings beside each other where there is room."""
    return '<div class="charts">' + "\n".join(drawn) + "</div>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], wide: Sequence[str] = ()) -> str:
    """Rows under their columns. Numbers align right; columns named in `wide` are not squeezed on a small screen."""
    kinds = [_kind(column, [row[i] for row in rows], wide) for i, column in enumerate(columns)]
    head = "".join(f'<th class="{kind}">{escape(column)}</th>' for column, kind in zip(columns, kinds, strict=True))
    lines = ("".join(f'<td class="{k}">{cell(v)}</td>' for v, k in zip(row, kinds, strict=True)) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _kind(column: str, values: Sequence[Any], wide: Sequence[str]) -> str:
    if column in wide:
        return "w"
    given = [v for v in values if v is not None]
    return "n" if given and all(isinstance(v, int | float | Exact) and not isinstance(v, bool) for v in given) else ""


class Exact(str):
    """A number as it must be read, to the digit."""


class Link(str):
    """A relative address, shown as a link."""


def cell(value: Any) -> str:
    """A value as people read it. cell(1234567) == '1,234,567', cell(None) == '–'"""
    if isinstance(value, Link):
        return f'<a href="{escape(value)}">{escape(value)}</a>'
    return escape(number(value) if isinstance(value, int | float) and not isinstance(value, bool) else plain(value))


def plain(value: Any) -> str:
    """A cell: a dash for None, yes or no for booleans."""
    return {None: "–", True: "yes", False: "no"}.get(value) or str(value)


def number(value: float) -> str:
    """number(12345) == '12,345', number(0.5) == '0.5', number(1e-7) == '1e-07'"""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def meter(parts: Sequence[tuple[str, float]]) -> str:
    """A bar whose (class, share) parts fill it from the left."""
    return (
        '<div class="meter">'
        + "".join(f'<i class="{c}" style="width:{100 * s:.3f}%"></i>' for c, s in parts)
        + "</div>"
    )


def folded(title: str, inside: str) -> str:
    """What is looked up rather than read."""
    return f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"


def code(content: str) -> str:
    """Preformatted text."""
    return f"<pre>{escape(content)}</pre>"
