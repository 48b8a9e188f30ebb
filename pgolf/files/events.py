"""What a stage tells while it runs: rank 0 appends events to events.jsonl, and one function words them for a log.

Nothing else of a rank is ever shown: console, log, services and report are drawn from these events by whoever watches.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgolf.files import finite

EVENTS = "events.jsonl"
LINE_EVERY = 50  # steps between two lines of what is kept as an event more often
PROGRESS_SECONDS = 0.25  # at least, between two events of progress

# How a log words an event, by kind. Kinds that are not here draw curves or bars and have no line.
LINES = {
    "ready": "warm-up done and undone; {reserve:.1f} s kept for quantising and packing",
    "step": "step {step}  loss {loss:.4f}  lr x{lr:.3f}  {tokens_per_second:,} tokens/s  {seconds:.1f} s",
    "epoch": "step {step}  the training text has come to its end; pass {epoch} begins",
    "dev": "step {step}  dev_bpb {dev_bpb:.4f}  ({took:.2f} s)",
    "sealed": "sealed {bytes:,} bytes  dev_bpb raw {dev_bpb[raw]:.4f}  averaged {dev_bpb[averaged]:.4f}"
    "  quantized {dev_bpb[quantized]:.4f} (gap {gap:+.4f})  {seconds:.1f} s",
    "validation": "validation: {tokens:,} tokens, {bytes:,} bytes, proven by document",
    "notice": "{text}",
}


class Events:
    """The pen of a stage: appends to `folder`/events.jsonl, or nowhere (None, as for ranks other than 0); `then` gets each event.

    A file that cannot be written loses events and nothing else: `fault` says why, once.
    """

    def __init__(self, folder: Path | None, then: Callable[[dict], None] = lambda event: None):
        self.folder, self.then = folder, then
        self.fault: str | None = None
        self._shown = ("", -math.inf)

    def write(self, kind: str, **fields: Any) -> None:
        """One event. Numbers that are not finite become null, as JSON has none."""
        event = finite({"event": kind, "time": round(time.time(), 3), **fields})
        if self.folder is not None:
            try:
                with open(self.folder / EVENTS, "a", encoding="utf-8") as out:
                    out.write(json.dumps(event) + "\n")
            except OSError as wrong:
                self.fault = self.fault or f"{EVENTS}: cannot be written: {wrong.strerror}; events are lost"
        self.then(event)

    def progress(self, label: str, done: float, text: str, tokens_per_second: float = 0.0) -> None:
        """How much of a piece of work is done (0 to 1), for live views: an event every PROGRESS_SECONDS, and a label's first."""
        now = time.monotonic()
        if label != self._shown[0] or now - self._shown[1] >= PROGRESS_SECONDS:
            self._shown = (label, now)
            self.write("progress", label=label, done=done, text=text, tokens_per_second=tokens_per_second)


def line_of(event: dict[str, Any]) -> str | None:
    """The line that a log has for an event, or None. line_of({"event": "notice", "text": "late"}) == "late" """
    kind = event["event"]
    if kind not in LINES or (kind == "step" and event["step"] != 1 and event["step"] % LINE_EVERY):
        return None
    return LINES[kind].format_map(numbers(event))


def numbers(event: dict[str, Any]) -> dict[str, Any]:
    """An event whose nulls are NaN again, as its line shows them."""
    return {k: math.nan if v is None else numbers(v) if isinstance(v, dict) else v for k, v in event.items()}


class EventReader:
    """Follows a run's events.jsonl while others write it: whole lines only, and only those that are events."""

    def __init__(self, folder: Path):
        self.path, self._at = folder / EVENTS, 0

    def new(self) -> list[dict[str, Any]]:
        """What has come since the last call."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return [event for line in whole.splitlines() if (event := event_of(line)) is not None]


def event_of(line: bytes) -> dict[str, Any] | None:
    """The event that a line of events.jsonl holds; None for a line that was cut short by a full disk or a dying run."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
