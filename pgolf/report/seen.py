"""What there is of a run, read for its report: whatever is missing or damaged is a fault in words, never an error."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from pgolf.files import lookup, read_json
from pgolf.files.events import EVENTS
from pgolf.files.names import RECORD


@dataclass(frozen=True)
class Seen:
    """What there is of a run: its record (or none), its events, its config as written, and what could not be read."""

    folder: Path
    record: dict[str, Any]
    events: list[dict[str, Any]]
    config: str | None
    faults: list[str]

    def get(self, dotted: str) -> Any:
        """The value at a dotted key of the record, or None."""
        return lookup(self.record, dotted)

    def points(self, kind: str, x: str, y: str) -> list[tuple[float, float]]:
        """(x, y) of every event of a kind that has both as finite numbers."""
        rows = ((e.get(x), e.get(y)) for e in self.events if e.get("event") == kind)
        return list({a: b for a, b in rows if finite(a) and finite(b)}.items())  # steps done again count once

    @property
    def breaks(self) -> list[dict[str, Any]]:
        """The times that the run was taken up again, as its record tells them."""
        stated = ("taken_up", "stage", "status", "why")
        found = self.get("interruptions")
        rows = found if isinstance(found, list) else []
        return [row for row in rows if isinstance(row, dict) and all(key in row for key in stated)]


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def seen(folder: Path) -> Seen:
    """Read what can be read."""
    faults: list[str] = []
    record = _record(folder, faults)
    events = _events(folder, faults)
    config = folder / "config.yaml"
    if not config.exists():
        faults.append("config.yaml is not there")
    return Seen(folder, record, events, config.read_text(encoding="utf-8") if config.exists() else None, faults)


def _record(folder: Path, faults: list[str]) -> dict[str, Any]:
    if not (folder / RECORD).exists():
        faults.append(f"{RECORD} is not there: the run ended before it began to record")
        return {}
    try:
        found = read_json(folder / RECORD)
    except UserError as wrong:
        faults.append(str(wrong))
        return {}
    if isinstance(found, dict):
        return found
    faults.append(f"{RECORD} is not a record")
    return {}


def _events(folder: Path, faults: list[str]) -> list[dict[str, Any]]:
    """Whole lines that are JSON objects; a line cut short by a dying run is counted and left out."""
    if not (folder / EVENTS).exists():
        faults.append(f"{EVENTS} is not there: no curves (logger=none, or the run ended before its first step)")
        return []
    events, bad = [], 0
    for line in (folder / EVENTS).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        else:
            bad += 1
    if bad:
        faults.append(f"{EVENTS}: {bad} line(s) cannot be read")
    return events
