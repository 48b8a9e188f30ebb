"""One start of a command, with a pipe for its output that can be closed or filled, and a mark on all that it starts."""

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.command import environment

MARK = "PGOLF_CHAOS"  # in the environment of all that belongs to a life
PATIENCE = 1200.0  # seconds: these machines are shared with others


class Output:
    """The reading end of a command's standard output, and a writing end to fill it by. `text` is what was read."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.text, self._asleep, self._closing = b"", threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        os.set_blocking(self.reading, False)
        while not self._closing.is_set():
            if self._asleep.is_set():
                time.sleep(0.02)
                continue
            try:
                data = os.read(self.reading, 1 << 16)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            if not data:
                break
            self.text += data
        os.close(self.reading)

    def close(self) -> None:
        """Nobody reads any more."""
        self._closing.set()
        self._thread.join()

    def fill(self) -> None:
        """Nobody reads for now, and nothing more goes in."""
        self._asleep.set()
        with suppress(OSError), open(f"/proc/self/fd/{self.writing}", "wb", buffering=0) as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_NONBLOCK)
            while pipe.write(bytes(512)):
                pass
        with suppress(OSError):
            os.close(self.writing)
        self.writing = -1

    def wake(self) -> None:
        """Read again."""
        self._asleep.clear()

    def over(self) -> None:
        """The command has ended."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1
        self._asleep.clear()
        self._closing.set()
        self._thread.join()


class Attempt:
    """A command at work in `world` while the context lasts; what it says of errors goes to a file outside."""

    def __init__(self, command: list[str], world: Path, place: Path, mark: str):
        self.world, self.mark, self.output = world, mark, Output()
        self.errors = place / "stderr.txt"
        (world / "tmp").mkdir(exist_ok=True)
        env = environment() | {MARK: mark, "TMPDIR": str(world / "tmp")}
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                command, cwd=world, env=env, stdout=self.output.writing, stderr=errors, start_new_session=True
            )
        self.began = time.monotonic()

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, *error: object) -> None:
        """End what is left, should the tool itself be stopped."""
        for pid in [] if error[0] is None else self.family():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.output.over()

    def said(self) -> str:
        """What it said of errors."""
        return self.errors.read_text(errors="replace")

    def family(self) -> list[int]:
        """Every process with the mark."""
        return marked(self.mark)

    def ended(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Whether it ends, or is `done`, within so long."""
        late = time.monotonic() + seconds
        while self.process.poll() is None and not done():
            if time.monotonic() > late:
                return False
            time.sleep(0.02)
        return True


def marked(mark: str) -> list[int]:
    """The processes that were started under this mark, by their environment."""
    sought, found = f"{MARK}={mark}".encode(), []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                if sought in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
    return found
