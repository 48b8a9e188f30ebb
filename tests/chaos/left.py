"""What must not be left when a command has ended: processes, shared memory, locks, temporary files, half-written ones."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.chaos.attempt import marked
from tests.processes import command_of

ORPHAN_SECONDS = 300.0  # generous: these machines are shared with others, and a run has 20 s to close its record
CACHE = "torchinductor_"  # which torch keeps on purpose, for all runs of a user
SHARED_MEMORY = Path("/dev/shm")


def left_over(world: Path, mark: str, private: bool) -> Iterator[str]:
    """What a command left: nothing, once all that it started has had time to end. `private`: no other uses the shared memory."""
    late = time.monotonic() + ORPHAN_SECONDS
    while (alive := marked(mark)) and time.monotonic() < late:
        time.sleep(0.1)
    yield from (f"process {pid} lives: {command_of(pid)[:80]!r}" for pid in alive)
    if private:
        yield from (f"shared memory {path.name}" for path in SHARED_MEMORY.iterdir())
    found = [path for path in (world / "tmp").iterdir() if not path.name.startswith(CACHE)]
    yield from (f"temporary {path.relative_to(world)}" for path in found)
    for path in world.rglob("*"):
        if path.is_file():
            yield from (f"{path.relative_to(world)} {wrong}" for wrong in wrong_with(path))


def wrong_with(path: Path) -> Iterator[str]:
    """A JSON file is whole, a lock is nobody's."""
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except ValueError:
            yield "is half-written"
    if path.name == "lock" or path.suffix == ".lock" or path.name == ".lock":
        with suppress(FileNotFoundError), open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield "is locked"


def half(world: Path) -> list[str]:
    """What is only there while something is written, and has to be gone in the end."""
    return sorted(
        str(path.relative_to(world)) for path in world.rglob(".*") if path.suffix == ".tmp" or path.name[:5] == ".step"
    )
