"""Whether the process of a run is still there: what it leaves in its record, and how a reader judges it.

On the same host and boot the kernel answers: a process of that id which started at that moment. From elsewhere only the counter
can: it must move within three of its intervals, by the reader's own clock, so that clocks set wrongly or back decide nothing.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pgolf.errors import UserError

INTERVAL = 5.0  # seconds between two beats
PATIENCE = 3  # intervals without a beat after which a run elsewhere is lost
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Process:
    """A process so that no other can be taken for it: its id, when it started (ticks since boot), and the boot of which host.

    `folder` is the inode of the folder that it writes to, so that a copy of it is not taken for the original.
    """

    host: str
    boot: str
    pid: int
    start: int
    folder: int

    @classmethod
    def this(cls, folder: Path) -> "Process":
        """The one that runs this code, and writes to `folder`."""
        return cls(socket.gethostname(), boot_id(), os.getpid(), start_of(os.getpid()) or 0, folder.stat().st_ino)

    def section(self, beat: int) -> dict[str, Any]:
        """The record's `process`: `beat` counts up every `interval` seconds."""
        return asdict(self) | {"beat": beat, "interval": INTERVAL}

    @property
    def here(self) -> bool:
        """Whether it ran on this host."""
        return self.host == socket.gethostname()

    @property
    def there(self) -> bool | None:
        """Whether it is still running; None if that cannot be asked from here."""
        if not self.here:
            return None
        return self.boot == boot_id() and _runs(self.pid) and start_of(self.pid) == self.start


def boot_id() -> str:
    """The kernel's name for the time since it was started; empty where it has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def start_of(pid: int) -> int | None:
    """When a process started, in ticks since the boot; None if there is none, or one that has ended and waits for its parent.

    Without /proc (macOS) 0 for every process there is.
    """
    if sys.platform != "linux":
        return 0 if _runs(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def beating(beat: Callable[[int], None], interval: float = INTERVAL) -> Iterator[None]:
    """Call `beat(n)`, n = 1, 2, …, every `interval` seconds from a thread; a beat that cannot be written is left out."""
    ended = threading.Event()

    def work() -> None:
        count = 0
        while not ended.wait(interval):
            count += 1
            with suppress(UserError, OSError):
                beat(count)

    thread = threading.Thread(target=work, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def state(folder: Path, record: dict[str, Any]) -> str:
    """The status of the record in `folder`, `lost` for running with nobody there; running where only its counter can tell."""
    if record.get("status") != "running":
        return str(record.get("status"))
    process = _process(record)
    if process is None:
        return "running"
    return "lost" if process.there is False or _copied(process, folder) else "running"


def _copied(process: Process, folder: Path) -> bool:
    with suppress(OSError):
        return process.folder != folder.stat().st_ino
    return False


def elsewhere(record: dict[str, Any]) -> bool:
    """Whether only the counter can tell if this run is still there."""
    process = _process(record) if record.get("status") == "running" else None
    return process is not None and process.there is None


def still(read: Callable[[Path], dict[str, Any]], folders: Iterable[Path]) -> set[Path]:
    """Those of the running runs of other hosts whose counter does not move for PATIENCE intervals while this looks, all at once.

    `read` gives the record in a folder. Returns as soon as all have moved.
    """
    waiting = {folder: record for folder in folders if elsewhere(record := read(folder))}
    end = time.monotonic() + max((PATIENCE * _interval(record) for record in waiting.values()), default=0.0)
    while waiting and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        waiting = {folder: before for folder, before in waiting.items() if before == read(folder)}
    return set(waiting)


def _interval(record: dict[str, Any]) -> float:
    found = record["process"].get("interval")
    return min(float(found), 60.0) if isinstance(found, int | float) and found > 0 else INTERVAL


def _process(record: dict[str, Any]) -> Process | None:
    """Who a record says it is written by; None in those of versions that did not say, or that was edited."""
    stated = record.get("process")
    kinds = {field.name: field.type for field in fields(Process)}
    if not isinstance(stated, dict) or any(type(stated.get(key)) is not kind for key, kind in kinds.items()):
        return None
    return Process(*(stated[key] for key in kinds))
