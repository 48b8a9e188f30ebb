"""Signals that ask a run to stop, and the codes that it ends with.

INT, TERM, HUP, USR1 and USR2 are one request. While ranks take steps it is passed on to them: they finish the step, keep a
checkpoint if there is a place for one, and end. At any other time, and when it is repeated, the run ends at once. A handler
that somebody else has installed (submitit's, which queues a job again) is called once the record is closed.
The codes that a run ends with are in the table of docs/stopping.md: 75 (`EX_TEMPFAIL`) where it can be taken up, else 128 + n.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
TAKE_UP = 75


class StoppedError(KeyboardInterrupt):
    """This run was told to stop. Not an Exception, which Hydra would take for a failed job and go on with the next."""

    def __init__(self, number: int, how: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{f'; {how}' if how else ''}")
        self.number, self.how = number, how

    @property
    def code(self) -> int:
        """The exit code; `how` says in which words the run is taken up, where it can be."""
        return TAKE_UP if self.how and self.number != signal.SIGINT else 128 + self.number


class Desk:
    """Where signals arrive. `passed_on` passes the first request on to the ranks, and says whether they can take it."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.passed_on: Callable[[], bool] = lambda: False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        self.number = number if first else self.number
        if not (first and self.passed_on()):
            raise StoppedError(self.number)


@contextmanager
def one_desk() -> Iterator[Desk]:
    """The desk of this process: the one that is open, or a new one while the context lasts. Ignored signals stay ignored."""
    there = next((h for h in map(signal.getsignal, STOPPING) if isinstance(h, Desk)), None)
    if there or threading.current_thread() is not threading.main_thread():
        yield there or Desk()
        return
    desk = Desk()
    before = {s: signal.getsignal(s) for s in STOPPING if signal.getsignal(s) not in (signal.SIG_IGN, None)}
    for s in before:
        signal.signal(s, desk)
    try:
        yield desk
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
        theirs = before.get(desk.number)
        if callable(theirs) and theirs is not signal.default_int_handler:
            theirs(desk.number, None)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that this thread starts meanwhile never see these signals; what comes for this one waits until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
