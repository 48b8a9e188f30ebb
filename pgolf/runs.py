"""`python -m pgolf.runs [FOLDER ...]`: the runs and sweeps below a folder, and how each of them stands.

`--clean checkpoints` removes those of complete runs, which nobody goes on from; `--clean attempts` all but the records of what
sweeps put aside when they ran a seed again. What is at work is never touched.
"""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgolf.config.command import Parser, Result, StatusLines, aligned, command
from pgolf.errors import UserError
from pgolf.files import lookup
from pgolf.files.names import CHECKPOINTS, RECORD
from pgolf.machine.lock import HeldError
from pgolf.results.attempts import LOCK, owned
from pgolf.results.plan import PLAN, read_plan
from pgolf.results.runfolder import Run, checked_record, read_runs
from pgolf.results.summary import ATTEMPTS
from pgolf.stages.views import digits

KINDS = (CHECKPOINTS, ATTEMPTS)
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Row:
    """A folder with a record in it; `run` is None, and `fault` says why, where that cannot be read."""

    folder: Path
    run: Run | None
    fault: str = ""

    @property
    def state(self) -> str:
        """Its status, or that it cannot be read; and whether it was put aside."""
        state = self.run.status if self.run else "unreadable"
        return f"{state} attempt" if self.folder.parent.name == ATTEMPTS else state


@command()
def main(args: Sequence[str], say: StatusLines) -> Result:
    """List what is below the folders, or clean it."""
    parser = Parser("runs", __doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path, help="runs and sweeps here if none is named")
    parser.add_argument("--clean", metavar="KIND", choices=KINDS, action="append", default=[], help=" or ".join(KINDS))
    given = parser.parse_args(args)
    folders = given.folders or [folder for folder in (Path("runs"), Path("sweeps")) if folder.is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: not a folder")
    rows = rows_of(folders)
    if given.clean:
        done = cleaned(rows, given.clean)
        text = "\n".join(map(removal_line, done)) or "nothing to remove"
        return Result("pgolf.runs.clean/1", {"cleaned": done}, text)
    runs, sweeps = [run_row(row) for row in rows], [sweep_row(sweep, rows) for sweep in sweeps_of(folders)]
    return Result("pgolf.runs/1", {"runs": runs, "sweeps": sweeps}, listing(runs, sweeps))


def rows_of(folders: Iterable[Path]) -> list[Row]:
    """Every run below `folders`; those of other machines that may be alive are watched together for a while."""
    places = sorted({record.parent for folder in folders for record in folder.rglob(RECORD)})
    faults: dict[Path, str] = {}
    for place in places:
        try:
            checked_record(place)
        except UserError as wrong:
            faults[place] = str(wrong)
    runs = {run.folder: run for run in read_runs([place for place in places if place not in faults])}
    return [Row(place, runs.get(place), faults.get(place, "")) for place in places]


def sweeps_of(folders: Iterable[Path]) -> list[Path]:
    """Every folder below that has a plan."""
    return sorted({plan.parent for folder in folders for plan in folder.rglob(PLAN)})


def run_row(row: Row) -> dict[str, Any]:
    """A run as plain values; val_bpb of a complete one, bytes on disk, seconds since it ended or, if it has not, began."""
    score = lookup(row.run.record, "evaluate.val_bpb") if row.run and row.run.complete else None
    return {
        "run": str(row.folder),
        "state": row.state,
        "val_bpb": score,
        "bytes": size(row.folder),
        "age_seconds": age(row.run),
        "fault": row.fault or None,
    }


def sweep_row(sweep: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """How many runs of a sweep are planned, and in which states there are how many."""
    found = {"sweep": str(sweep), "planned": None, "states": {}, "amendments": 0, "bytes": size(sweep), "fault": None}
    try:
        plan = read_plan(sweep)
    except UserError as wrong:
        return found | {"fault": str(wrong)}
    states = [row.state for row in rows if row.folder.parent == sweep]
    counts = {"complete": 0} | {state: states.count(state) for state in states}
    planned = sum(len(plan.seeds(arm["arm_sha256"])) for arm in plan.arms)
    return found | {"planned": planned, "states": counts, "amendments": len(plan.amendments)}


def listing(runs: Sequence[dict[str, Any]], sweeps: Sequence[dict[str, Any]]) -> str:
    """A table of the runs, and a line for each sweep."""
    if not runs and not sweeps:
        return "no runs"
    head = ("run", "state", "val_bpb", "size", "age")
    table = [
        (
            row["run"],
            row["state"],
            "–" if row["val_bpb"] is None else digits(row["val_bpb"]),
            megabytes(row["bytes"]),
            since(row["age_seconds"]),
        )
        for row in runs
    ]
    return "\n".join([aligned([head, *table]), *map(sweep_line, sweeps)])


def sweep_line(row: dict[str, Any]) -> str:
    """How many of the planned runs are complete, and what is in the way."""
    if row["fault"]:
        return f"sweep {row['sweep']}: {row['fault']}"
    others = "".join(f", {count} {state}" for state, count in row["states"].items() if state != "complete")
    added = f"; {row['amendments']} amendment(s)" if row["amendments"] else ""
    done = f"{row['states']['complete']} of {row['planned']} complete{others}"
    return f"sweep {row['sweep']}: {done}{added}, {megabytes(row['bytes'])}"


def size(folder: Path) -> int:
    """Bytes that a folder takes on disk. A file that goes meanwhile counts for nothing."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return found


def megabytes(size: int) -> str:
    """megabytes(1234567) == '1.2 MB'"""
    return f"{size / 1e6:,.1f} MB"


def age(run: Run | None) -> float | None:
    """Seconds since it ended or, if it has not, since it began; by this machine's clock, which may be behind."""
    if run is None:
        return None
    try:
        then = datetime.fromisoformat(str(run.record.get("finished") or run.record["started"]))
        return max((datetime.now(UTC) - then).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def since(seconds: float | None) -> str:
    """In the largest unit that is there once. since(7300.0) == '2 h'"""
    if seconds is None:
        return "–"
    unit, length = next((u for u in UNITS if seconds >= u[1]), UNITS[-1])
    return f"{seconds // length:.0f} {unit}"


def cleaned(rows: Sequence[Row], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Remove what is asked for and nobody needs; what became of each folder that had some of it."""
    goners: list[tuple[Path, list[Path]]] = []  # a run's folder, and what goes of it
    for row in rows:
        if CHECKPOINTS in kinds and row.run and row.run.complete:
            goners.append((row.folder, [row.folder / CHECKPOINTS]))
        if ATTEMPTS in kinds and row.folder.parent.name == ATTEMPTS:
            goners.append((row.folder, [path for path in row.folder.iterdir() if path.name not in (RECORD, LOCK)]))
    there = [(folder, [path for path in paths if path.exists()]) for folder, paths in goners]
    return [removed(folder, paths) for folder, paths in there if paths]


def removed(folder: Path, paths: list[Path]) -> dict[str, Any]:
    """The folder's bytes before and after, and, where another process is at work there, why all is kept."""
    before = size(folder)
    try:
        with owned(folder):
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except HeldError as busy:
        return {"folder": str(folder), "bytes_before": before, "bytes_after": before, "kept": str(busy)}
    return {"folder": str(folder), "bytes_before": before, "bytes_after": size(folder), "kept": None}


def removal_line(done: dict[str, Any]) -> str:
    """What became of a folder, for people."""
    if done["kept"]:
        return f"kept: {done['kept']}"
    return f"{done['folder']}: {megabytes(done['bytes_before'])} before, {megabytes(done['bytes_after'])} now"


if __name__ == "__main__":
    sys.exit(main())
