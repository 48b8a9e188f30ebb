"""Who watches a run: the log, the console, services and the report, all drawn by the parent from the events of the ranks.

None of them can stop, slow or fail the run: what goes wrong with one is a notice in the record.
"""

import hashlib
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.files.events import EVENTS, EventReader, line_of
from pgolf.files.names import LOG
from pgolf.machine.outlet import outlet
from pgolf.machine.programs import gpu_names
from pgolf.report import Drawing
from pgolf.show.console import Console
from pgolf.show.peaks import peak_flops

if TYPE_CHECKING:
    from pgolf.recipe import Recipe

POLL_SECONDS = 0.1


class RunLog:
    """train.log. `sha256` and `lines` are of what was written; a file that cannot be written is given up, with a `fault`."""

    def __init__(self, path: Path, go_on: bool = False):
        self.path, self.lines, self.fault = path, 0, ""
        before = whole_lines(path) if go_on else b""
        self.lines, self._sha = before.count(b"\n"), hashlib.sha256(before)
        if not before:
            self._write(b"", "wb")

    def line(self, text: str) -> None:
        """Append a line."""
        data = f"{text}\n".encode()
        self.lines += data.count(b"\n")
        self._sha.update(data)
        self._write(data, "ab")

    def _write(self, data: bytes, mode: str) -> None:
        if self.fault:
            return
        try:
            with open(self.path, mode) as log:
                log.write(data)
        except OSError as wrong:
            self.fault = f"{self.path.name}: cannot be written: {wrong.strerror}; it is not whole"

    @property
    def sha256(self) -> str | None:
        """Of the whole log; None where it is not whole."""
        return None if self.fault else self._sha.hexdigest()


def whole_lines(path: Path) -> bytes:
    """What a file holds, after a line that was cut short has been cut off; nothing of a file that is not there."""
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        os.truncate(path, len(whole))
    except OSError:
        return b""
    return whole


class Observers:
    """All of them, around one run in `folder`, while the context lasts. `go_on`: an earlier attempt's log is continued."""

    def __init__(self, folder: Path, recipe: "Recipe", console: Console, go_on: bool = False):
        self.folder, self.recipe, self.console = folder, recipe, console
        self.log, self.notices = RunLog(folder / LOG, go_on), []
        self._reader, self._lock, self._ended = EventReader(folder), threading.Lock(), threading.Event()
        if go_on:
            whole_lines(folder / EVENTS)
            self._reader.new()  # in the log already, as far as they were told
        self._peak = peak_flops(recipe, gpu_names())
        self._services, self._drawing, self._fault = ExitStack(), None, ""

    def __enter__(self) -> "Observers":
        self._services.enter_context(self.recipe.logger.mirrored(self.folder, self.notices.append))
        threading.Thread(target=self._follow, daemon=True, name="events").start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def line(self, text: str) -> None:
        """A line of the record's: for the log, and for a console without a closing table."""
        self.log.line(text)
        self.console.detail(text)

    def prepare_report(self) -> None:
        """Get ready to draw, before there is hurry."""
        self._drawing = self._drawing or Drawing(self.folder)

    def catch_up(self) -> None:
        """Pass on what the ranks have told up to now."""
        with self._lock:
            for event in self._reader.new():
                try:
                    self._pass_on(event)
                except Exception as wrong:  # whatever a drawing may throw: the run goes on
                    self._fault = self._fault or f"an event could not be shown: {type(wrong).__name__}: {wrong}"

    def finish(self) -> list[str]:
        """The record is closed: draw the report, let services finish, and return what went wrong with any observer."""
        self.prepare_report()
        found = [self.log.fault, self._fault, self._drawing.finish()]
        self._services.close()
        fault = outlet().drain()
        found.append(f"standard output: {fault}; the run went on without it" if fault else "")
        return [*filter(None, found), *self.notices]

    def _follow(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.catch_up()

    def _pass_on(self, event: dict) -> None:
        if event["event"] == "progress":
            self.console.progress(event["label"], event["done"] or 0.0, event["text"] + self._utilisation(event))
        elif line := line_of(event):
            self.log.line(line)
            self.console.line(line)

    def _utilisation(self, event: dict) -> str:
        """Model operations over what the GPUs could do in bf16, where that is known."""
        rate = event["tokens_per_second"]
        if not (self._peak and rate):
            return ""
        flops = self.recipe.model.flops_per_token(self.recipe.data.sequence_length, True)
        return f"  MFU {rate * flops / self._peak:.1%}"
