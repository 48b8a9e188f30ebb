"""The leaderboard as the auditor sees it: every submission folder of a tree, read in one process, as a table and as a page."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.audit.bounded import plain
from pgolf.audit.finding import Finding, once, overall, ranked
from pgolf.audit.folder import findings, read_folder
from pgolf.audit.folder_json import NAME
from pgolf.audit.report import WIDTH, long, worst
from pgolf.config.command import Result, aligned
from pgolf.errors import UserError
from pgolf.files import write_bytes
from pgolf.results import stats

COLUMNS = ("rank", "folder", "val_bpb", "n", "std", "bytes", "verdict")
DEEPEST = 8
NAME_WIDTH = 72


@dataclass(frozen=True)
class Entry:
    """A folder's claim (mean val_bpb, seeds, deviation, the largest size its logs give) and what its audit found."""

    name: str
    bpb: float | None
    n: int
    std: float | None
    size: int | None
    found: list[Finding]

    @property
    def words(self) -> str:
        """The overall verdict of the folder."""
        return overall(self.found)


def board(root: Path, page: Path | None) -> Result:
    """The table, and the page; exit code 0 where every folder is consistent, 1 where there are findings."""
    began = time.monotonic()
    entries = sorted(
        (entry(path, root) for path in submissions(root)), key=lambda e: (e.bpb is None, e.bpb or 0.0, e.name)
    )
    if not entries:
        raise UserError(f"{str(root)!r}: no folder below it holds {NAME}")
    spent = time.monotonic() - began
    lines = [aligned([COLUMNS, *([str(cell) for cell in row] for row in rows(entries))])]
    lines.append(f"{len(entries)} folder(s) in {spent:.1f} s: {counted(entries)}")
    if page:
        write_bytes(page, as_page(root, entries).encode("utf-8", "replace"))
        lines.append(f"page {page}")
    value = {
        "path": str(root),
        "folders": [plain_entry(e) for e in entries],
        "verdicts": verdicts(entries),
        "page": page and str(page),
    }
    code = 0 if all(e.words == "consistent" for e in entries) else 1
    return Result("pgolf.audit.all/1", value, "\n".join(lines), code)


def plain_entry(e: Entry) -> dict[str, Any]:
    """A folder's row, by the names of the columns, with its verdict as that of one folder."""
    claim = {"folder": e.name, "val_bpb": e.bpb, "n": e.n, "std": e.std, "bytes": e.size}
    return claim | {"verdict": worst(e.words), "words": e.words}


def submissions(root: Path) -> Iterator[Path]:
    """Folders that hold a submission.json, links not followed."""
    for here, below, names in os.walk(root, followlinks=False):
        below[:] = sorted(b for b in below if b not in (".git", "__pycache__"))
        if NAME in names:
            yield Path(here)
        if len(Path(here).relative_to(root).parts) >= DEEPEST:
            below.clear()


def entry(path: Path, root: Path) -> Entry:
    """One folder, read and audited."""
    folder = read_folder(path)
    scores = folder.submission.scores
    sizes = [log.total[1] for log in folder.logs if log.total]
    stated = folder.submission.number("bytes_total")
    size = max(sizes, default=int(stated) if stated else None)
    sample = scores.sample if scores else stats.Sample(0, 0.0, None)
    name = plain(path.relative_to(root).as_posix() if path != root else path.name)
    found = ranked(once(dict.fromkeys(findings(folder))))
    return Entry(name, sample.mean if scores else None, sample.n, sample.std, size, found)


def rows(entries: Sequence[Entry]) -> Iterator[tuple]:
    """Cells of the table; only what no rule fails has a rank."""
    rank = 0
    for e in entries:
        standing = e.bpb is not None and not e.words.startswith("fail")
        rank += standing
        bpb = "–" if e.bpb is None else f"{e.bpb:.5f}"
        std = "–" if e.std is None else f"{e.std:.5f}"
        size = "–" if e.size is None else f"{e.size:,}"
        name = e.name if len(e.name) <= NAME_WIDTH else e.name[: NAME_WIDTH - 1] + "…"
        yield rank if standing else "–", name, bpb, e.n or "–", std, size, plain(e.words)[:WIDTH]


def verdicts(entries: Sequence[Entry]) -> dict[str, int]:
    """How many folders there are of each verdict."""
    found = [worst(e.words) for e in entries]
    return {verdict: found.count(verdict) for verdict in ("consistent", "needs argument", "fail")}


def counted(entries: Sequence[Entry]) -> str:
    """The same in words."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts(entries).items())


def as_page(root: Path, entries: Sequence[Entry]) -> str:
    """The table, and every folder's findings folded below it."""
    from pgolf.report import page as html

    details = [html.folded(f"{e.name}: {plain(e.words)}", html.code("\n".join(long(e.found)))) for e in entries]
    body = [
        html.heading("Submissions, audited", f"{len(entries)} folders: {counted(entries)}"),
        html.section("By val_bpb", html.table(COLUMNS, list(rows(entries)), ("folder", "verdict"))),
        html.section("Findings", *details),
    ]
    return html.page(f"Audit of {plain(root.name)}", body)
