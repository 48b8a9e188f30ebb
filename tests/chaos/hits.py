"""What is done to a command: kinds of hit, what each does, the exit codes that may follow, and how it is undone."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.attempt import Attempt
from tests.processes import children, command_of

BALLAST = "ballast"
DONE = 0  # the exit code of a command that a hit did not stop, or came too late to stop


def terminated(attempt: Attempt, luck: random.Random) -> None:
    """What an operator or a scheduler sends."""
    attempt.process.send_signal(signal.SIGTERM)


def interrupted(attempt: Attempt, luck: random.Random) -> None:
    """Ctrl-C reaches all processes of the terminal's group."""
    with suppress(ProcessLookupError):
        os.killpg(attempt.process.pid, signal.SIGINT)


def killed(attempt: Attempt, luck: random.Random) -> None:
    """By the kernel, say for memory: nothing can be put in order."""
    attempt.process.kill()


def out_of_time(attempt: Attempt, luck: random.Random) -> None:
    """A batch system whose clock for the job has run out: a warning, and the end a little later."""
    attempt.process.send_signal(signal.SIGUSR2)
    with suppress(subprocess.TimeoutExpired):
        attempt.process.wait(luck.uniform(0.0, 5.0))
    attempt.process.kill()


def frozen(attempt: Attempt, luck: random.Random) -> None:
    """A lid that is closed: all of it stands still for a while, and clocks go on."""
    family = attempt.family()
    for number, rest in ((signal.SIGSTOP, luck.uniform(0.5, 4.0)), (signal.SIGCONT, 0.0)):
        for pid in family:
            with suppress(OSError):
                os.kill(pid, number)
        time.sleep(rest)


def reader_gone(attempt: Attempt, luck: random.Random) -> None:
    """The terminal is closed, or `| head` has read enough."""
    attempt.output.close()


def reader_asleep(attempt: Attempt, luck: random.Random) -> None:
    """A pager that is not scrolled: the pipe is full and nobody reads."""
    attempt.output.fill()


def rank_killed(attempt: Attempt, luck: random.Random) -> None:
    """One rank of two."""
    if found := ranks_of(attempt.process.pid):
        with suppress(ProcessLookupError):
            os.kill(luck.choice(found), signal.SIGKILL)


def disk_full(attempt: Attempt, luck: random.Random) -> None:
    """Somebody else fills the disk, to the last byte."""
    with suppress(OSError), open(attempt.world / BALLAST, "ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with suppress(OSError), open(attempt.world / BALLAST, "ab", buffering=0) as file:
        while True:
            file.write(bytes(64))


def disk_freed(attempt: Attempt) -> None:
    (attempt.world / BALLAST).unlink(missing_ok=True)


def made_read_only(attempt: Attempt, luck: random.Random) -> None:
    """What a file system becomes after an error: a read-only mount lies over the folder."""
    mount("--bind", attempt.world, attempt.world)
    mount("-o", "remount,bind,ro", attempt.world)


def made_writable(attempt: Attempt) -> None:
    subprocess.run(["umount", "--lazy", attempt.world], check=True)


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def ranks_of(pid: int) -> list[int]:
    """The ranks below a run: children of the server that it forks them from, or programs that judge."""
    below = children(pid)
    servers = [one for one in below if b"forkserver" in command_of(one)]
    forked = [child for server in servers for child in children(server)]
    return forked + [one for one in below if b"judge" in command_of(one).split(b"\0")]


@dataclass(frozen=True)
class Kind:
    """A kind of hit. `codes` may follow it; `needs` names what the world must be: "mounts", "ranks" or nothing.

    The code 2 after a closed pipe is that of a command which did its work and could not show the result."""

    strike: Callable[[Attempt, random.Random], None]
    codes: tuple[int, ...]
    undo: Callable[[Attempt], None] = lambda attempt: None
    needs: str = ""


KINDS: dict[str, Kind] = {
    "TERM": Kind(terminated, (DONE, 75, 128 + 15, -15)),
    "INT": Kind(interrupted, (DONE, 130, -2)),
    "KILL": Kind(killed, (DONE, -9)),
    "time": Kind(out_of_time, (DONE, 75, 128 + 12, -12, -9)),
    "freeze": Kind(frozen, (DONE,)),
    "closed": Kind(reader_gone, (DONE, 2)),
    "full": Kind(reader_asleep, (DONE,)),
    "rank": Kind(rank_killed, (DONE, 1), needs="ranks"),
    "disk": Kind(disk_full, (DONE, 1, 2), disk_freed, needs="mounts"),
    "readonly": Kind(made_read_only, (DONE, 1, 2), made_writable, needs="mounts"),
}
