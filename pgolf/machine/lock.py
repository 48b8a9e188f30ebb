"""One owner at a time: a lock that the kernel holds for a process and takes back when that ends, however it went.

There is no stale lock: what is left of a dead owner is a file, and a file locks nothing. Locks hold between processes of one
machine, and between machines on file systems that carry `flock` (NFS from Linux 2.6.12 on, Lustre with -o flock).
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pgolf.errors import UserError


class HeldError(UserError):
    """Somebody else has it."""


@contextmanager
def locked(path: Path, what: str, wait: bool = False) -> Iterator[int]:
    """The lock file `path` is this process's while the context lasts. HeldError if another has it, unless it may `wait` for that.

    The value is the open file: a child that is started with it (`pass_fds`) keeps the lock for as long as it lives. `what` says
    in words what is locked. Raises UserError where the file system gives no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as wrong:
        raise UserError(f"{path}: cannot be opened to lock {what}: {wrong.strerror}") from None
    try:
        _take(file, path, what, wait)
        yield file
    finally:
        os.close(file)


def _take(file: int, path: Path, what: str, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise HeldError(f"{what}: another process is at it ({path} is locked)") from None
    except OSError as wrong:
        raise UserError(f"{path}: this file system gives no locks ({wrong.strerror}); choose another folder") from None


@contextmanager
def in_turn(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One process at a time, the others wait, after they have said so by `waiting`. Where no lock can be had there is none:
    a cache that cannot be written to is not built in either."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, "this cache"))
        except HeldError:
            waiting()
            held.enter_context(locked(path, "this cache", wait=True))
        except (UserError, OSError):
            pass
        yield
