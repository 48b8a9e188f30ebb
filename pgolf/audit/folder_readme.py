"""README against the scores and the machines of the logs: its tables by seed, its mean, the shape of its tables."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pgolf.audit.finding import Finding
from pgolf.audit.folder_json import NAME, Submission
from pgolf.audit.folder_scores import FIX
from pgolf.audit.headline import Headline, agrees
from pgolf.audit.log_run import Log
from pgolf.stages.views import digits

README = "README.md"
NUMBER = re.compile(r"(?<![\w.])\d+\.\d{3,}(?!\.\d)")
RULE = re.compile(r"\s*\|?\s*:?-{2,}[|:\-\s]*")
GPUS = re.compile(r"\b(\d{1,3})\s?[x×]\s?(?:NVIDIA\s)?(?:H100|H200|A100|B200|L40)")
LINES = 20_000


@dataclass(frozen=True)
class Row:
    """A row of a table under its head: line number, cells, and the head's cells."""

    line: int
    cells: tuple[str, ...]
    head: tuple[str, ...]


def check_readme(
    lines: Sequence[str] | None, submission: Submission, logs: Sequence[Log], head: Headline
) -> Iterator[Finding]:
    """Table rows by seed, the mean somewhere in the text, and rows with as many cells as their heads."""
    if lines is None:
        return
    rows = list(table_rows(lines[:LINES]))
    yield from _seeds(rows, logs, head)
    for row in rows:
        if len(row.cells) != len(row.head):
            what = f"a table row of {len(row.cells)} cells under a head of {len(row.head)}"
            yield Finding("mistake 25", "note", f"{README}:{row.line}", what, FIX)
    mean = submission.scores.sample.mean if submission.scores else None
    text = "\n".join(lines[:LINES])
    if mean is not None and not any(agrees(float(n), mean, unit=1) for n in NUMBER.findall(text)):
        what = f"does not give the val_bpb of {NAME}, {digits(mean)}"
        yield Finding("mistake 25", "needs argument", README, what, FIX)


def table_rows(lines: Sequence[str]) -> Iterator[Row]:
    """Rows of every table of a Markdown text."""
    head: tuple[str, ...] | None = None
    for at, line in enumerate(lines, 1):
        if "|" not in line:
            head = None
        elif RULE.fullmatch(line) and at > 1:
            head = _cells(lines[at - 2])
        elif head is not None:
            yield Row(at, _cells(line), head)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(
        c.strip(" *`") for c in line.replace("\\|", " ").strip().removeprefix("|").removesuffix("|").split("|")
    )


def _seeds(rows: Sequence[Row], logs: Sequence[Log], head: Headline) -> Iterator[Finding]:
    """A seed's score in the tables: right in one of them, or stated wrongly."""
    exact = {log.seed_value: r for log, r in head.results.items() if log.seed_value is not None}
    for seed, result in exact.items():
        own = [row for row in rows if re.fullmatch(rf"(?i)(?:seed[ _=]*)?{seed}(?:\D.*)?", row.cells[0])]
        for name, word, truth in (("val_bpb", "bpb", result.bpb), ("val_loss", "loss", result.loss)):
            stated = [(row.line, float(n)) for row in own for n in _near(row, word, truth)] if truth else []
            others = [r for one in logs if one.seed_value == seed for r in one.scored()]
            known = [r.bpb if word == "bpb" else r.loss for r in others]
            wrong = [(line, n) for line, n in stated if not any(k is not None and agrees(n, k) for k in known)]
            if wrong and not any(agrees(n, truth) for _, n in stated):
                what = f"seed {seed}: {name} is {wrong[0][1]}, its log says {truth} ({result.label})"
                yield Finding("mistake 25", "fail", f"{README}:{wrong[0][0]}", what, FIX)


def _near(row: Row, word: str, truth: float) -> list[str]:
    """Figures of a row that may be this one: in columns that say so, and within a fiftieth."""
    pairs = zip(row.head, row.cells, strict=False)
    cells = [
        cell
        for title, cell in pairs
        if word in title.lower() and not re.search(r"(?i)pre|before|delta|gain|Δ|base", title)
    ]
    return [n for cell in cells for n in NUMBER.findall(cell) if abs(float(n) / truth - 1) < 0.02]


def check_hardware(submission: Submission, logs: Sequence[Log], lines: Sequence[str] | None) -> Iterator[Finding]:
    """The number of GPUs in prose and in the runs."""
    worlds: Mapping[int, Log] = {log.world[1]: log for log in logs if log.world}
    hardware = submission.value.get("hardware")
    stated = [(submission.where("hardware"), hardware)] if isinstance(hardware, str) else []
    for where, text in [*stated, (README, "\n".join((lines or ())[:LINES]))]:
        counts = {int(n) for n in GPUS.findall(text)}
        if counts and worlds and not counts & worlds.keys():
            ranks, log = next(iter(worlds.items()))
            what = f"speaks of {', '.join(map(str, sorted(counts)))} GPU(s), {log.at(log.world[0])} of {ranks} rank(s)"
            yield Finding("mistake 25", "needs argument", where, what, "say what the runs ran on")
