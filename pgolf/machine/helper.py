"""A process beside a run, for what only shows: it may hang or fail without holding the run up or failing it."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path


def end_within(seconds: float) -> None:
    """In a helper: whatever hangs, this process ends after so long. Its parent, which would stop it, may be gone."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


class Helper:
    """`python -m MODULE WORDS…`, which works until its standard input is closed, by `finish` or by the end of this process.

    What it prints goes to `output`, a file that is removed if it stays empty.
    """

    def __init__(self, module: str, *args: str, output: Path):
        self.output, self.process, self.fault = output, None, ""
        try:
            with open(output, "wb") as out:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", module, *args],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as wrong:
            self.fault = f"could not be started: {wrong.strerror}"

    def finish(self, seconds: float) -> str:
        """Ask it to finish, wait so long, then end it and all it started. Returns what went wrong, or nothing."""
        if self.process is None:
            return self.fault
        self.process.stdin.close()
        try:
            code = self.process.wait(seconds)
            fault = f"ended with exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            fault = f"was not done {seconds:g} s after the end and was stopped"
        with suppress(OSError):
            printed = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if printed:
                return f"{fault}{'. ' if fault else ''}{printed[-1]} (see {self.output})"
            if not fault:
                self.output.unlink()
        return fault
