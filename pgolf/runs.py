"""`python -m pgolf.runs [FOLDER ...]`: the runs and sweeps below a folder, and how each of them stands.

`--clean checkpoints` removes those of complete runs, which nobody goes on from; `--clean attempts` all but the records of what
sweeps put aside when they ran a seed again. What is at work is never touched.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgolf.config.command import aligned, command
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
def main(args: Sequence[str]) -> int:
    """List what is below the folders, or clean it."""
    parser = argparse.ArgumentParser(
        prog="python -m pgolf.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path, help="runs and sweeps here if none is named")
    parser.add_argument("--clean", metavar="KIND", choices=KINDS, action="append", default=[], help=" or ".join(KINDS))
    given = parser.parse_args(args)
    folders = given.folders or [folder for folder in (Path("runs"), Path("sweeps")) if folder.is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: not a folder")
    rows = rows_of(folders)
    if given.clean:
        return cleaned(rows, given.clean)
    print(listing(rows, sweeps_of(folders)))
    return 0


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


def listing(rows: Sequence[Row], sweeps: Sequence[Path]) -> str:
    """A table of the runs, and a line for each sweep."""
    if not rows and not sweeps:
        return "no runs"
    head = ("run", "state", "val_bpb", "size", "age")
    table = [(str(row.folder), row.state, score(row.run), size(row.folder), age(row.run)) for row in rows]
    return "\n".join([aligned([head, *table]), *(sweep_line(sweep, rows) for sweep in sweeps)])


def sweep_line(sweep: Path, rows: Sequence[Row]) -> str:
    """How many of the planned runs are complete, and what is in the way."""
    try:
        plan = read_plan(sweep)
    except UserError as wrong:
        return f"sweep {sweep}: {wrong}"
    planned = sum(len(plan.seeds(arm["arm_sha256"])) for arm in plan.arms)
    states = [row.state for row in rows if row.folder.parent == sweep]
    others = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states) if s != "complete")
    added = f"; {len(plan.amendments)} amendment(s)" if plan.amendments else ""
    done = f"{states.count('complete')} of {planned} complete{f', {others}' if others else ''}"
    return f"sweep {sweep}: {done}{added}, {size(sweep)}"


def score(run: Run | None) -> str:
    """val_bpb of a complete run."""
    value = lookup(run.record, "evaluate.val_bpb") if run and run.complete else None
    return "–" if value is None else digits(value)


def size(folder: Path) -> str:
    """What a folder takes on disk. A file that goes meanwhile counts for nothing."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return f"{found / 1e6:,.1f} MB"


def age(run: Run | None) -> str:
    """Since it ended or, if it has not, since it began; by this machine's clock, which may be behind."""
    if run is None:
        return "–"
    try:
        then = datetime.fromisoformat(str(run.record.get("finished") or run.record["started"]))
        seconds = max((datetime.now(UTC) - then).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return "–"
    unit, length = next((u for u in UNITS if seconds >= u[1]), UNITS[-1])
    return f"{seconds // length:.0f} {unit}"


def cleaned(rows: Sequence[Row], kinds: Sequence[str]) -> int:
    """Remove what is asked for and nobody needs, and say it."""
    goners: list[tuple[Path, list[Path]]] = []  # a run's folder, and what goes of it
    for row in rows:
        if CHECKPOINTS in kinds and row.run and row.run.complete:
            goners.append((row.folder, [row.folder / CHECKPOINTS]))
        if ATTEMPTS in kinds and row.folder.parent.name == ATTEMPTS:
            goners.append((row.folder, [path for path in row.folder.iterdir() if path.name not in (RECORD, LOCK)]))
    there = [(folder, [path for path in paths if path.exists()]) for folder, paths in goners]
    for folder, paths in there:
        if paths:
            _remove(folder, paths)
    if not any(paths for _, paths in there):
        print("nothing to remove")
    return 0


def _remove(folder: Path, paths: list[Path]) -> None:
    before = size(folder)
    try:
        with owned(folder):
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except HeldError as busy:
        return print(f"kept: {busy}")
    print(f"{folder}: {before} before, {size(folder)} now")


if __name__ == "__main__":
    sys.exit(main())
