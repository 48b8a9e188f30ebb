"""The process table, for tests that kill and look what is left (Linux)."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 900.0  # seconds, generous: these machines are shared with others


def children(pid: int) -> list[int]:
    found = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
    return [p for p in found if parent_of(p) == pid]


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def command_of(pid: int) -> bytes:
    """The command line of a process; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition, whatever that takes on a busy machine."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def until_line(path: Path, text: str) -> None:
    until(lambda: path.exists() and text in path.read_text(), f"no {text} in {path}")


def until_gone(pids: list[int]) -> None:
    until(lambda: not any(map(command_of, pids)), f"still there: {pids}")
