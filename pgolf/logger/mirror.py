"""The process that passes a run's events on to a service, and the parent's end of it.

`python -m pgolf.logger.mirror LOGGER FOLDER` follows FOLDER/events.jsonl until its standard input is closed, by the parent
or by the parent's death. The parent waits a stated time for it, then ends it with all it started.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from pgolf.files import read_json
from pgolf.frozen import freeze, thaw
from pgolf.logger import EVENTS, Mirrored, Say

OUTPUT = "mirror.log"
POLL_SECONDS = 0.5


class Target(ABC):
    """A service, as the mirror sees it."""

    @abstractmethod
    def event(self, event: dict[str, Any]) -> None:
        """Pass one line of events.jsonl on."""

    @abstractmethod
    def close(self) -> None:
        """The run, or the sweep, has ended: pass on what its files say now."""


@contextmanager
def mirrored(logger: Mirrored, folder: Path, say: Say) -> Iterator[None]:
    """Keep a mirror of `folder` alive for as long as the context lasts, and a while longer for it to finish."""
    command = [sys.executable, "-m", "pgolf.logger.mirror", json.dumps(freeze(logger)), str(folder)]
    output = folder / OUTPUT
    with open(output, "wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield
    finally:
        fault = _ended(process, logger.patience_seconds)
        said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if fault or said:
            last = f"{said[-1]} (see {output})" if said else ""
            say(
                f"{type(logger).__name__}: {fault}{'. ' if fault and said else ''}{last}. The run's own files are whole."
            )
        else:
            output.unlink()


def _ended(process: subprocess.Popen, patience: float) -> str:
    """Ask the mirror to finish; the sentence says what went wrong, or is empty."""
    process.stdin.close()
    try:
        code = process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"was not done {patience:g} s after the end and was stopped"
    return f"ended with exit code {code}" if code else ""


def follow(target: Target, folder: Path, ended: Callable[[float], bool]) -> None:
    """Pass on every whole line of events.jsonl, then close. `ended(seconds)` waits that long, or less, for the end."""
    at, last = 0, False
    while not last:
        last = ended(POLL_SECONDS)
        data = read_from(folder / EVENTS, at)
        at += len(data)
        for line in data.splitlines():
            target.event(json.loads(line))
    target.close()


def read_from(path: Path, at: int) -> bytes:
    """The whole lines of a file from byte `at` on; nothing where there is no file."""
    if not path.exists():
        return b""
    with open(path, "rb") as file:
        file.seek(at)
        data = file.read()
    return data[: data.rfind(b"\n") + 1]


def read_or_none(path: Path) -> Any:
    """The value in a JSON file, or None where there is none."""
    return read_json(path) if path.exists() else None


def main(logger: str, folder: str) -> None:
    """The mirror's process."""
    over = threading.Event()

    def wait_for_the_parent() -> None:
        sys.stdin.buffer.read()
        over.set()

    threading.Thread(target=wait_for_the_parent, daemon=True).start()
    try:
        follow(thaw(json.loads(logger)).target(Path(folder)), Path(folder), over.wait)
    except UserError as wrong:
        sys.exit(str(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
