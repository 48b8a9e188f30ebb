"""Work on units in other processes, results in the order of the units, with a few units in flight and no more."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from pgolf.errors import UserError
from pgolf.machine.signals import deaf

IN_FLIGHT = 3  # units per worker
POLL_SECONDS = 1.0

_begun: list[Callable[[Any], Any]] = []  # in a worker: what it does


def mapped(make: Callable[..., Callable], given: tuple, units: Iterable, workers: int) -> Iterator[tuple[Any, Any]]:
    """(unit, `make(*given)(unit)`) for every unit, in order. One worker is this process."""
    if workers == 1:
        work = make(*given)
        yield from ((unit, work(unit)) for unit in units)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (make, given, os.getpid()))
    try:
        waiting: deque = deque()
        for unit in units:
            with deaf():  # which starts workers, until all are there
                waiting.append((unit, pool.submit(_run, unit)))
            if len(waiting) == IN_FLIGHT * workers:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    except BrokenProcessPool:
        raise UserError(
            "a worker was killed (out of memory?); the same command goes on from the last note of progress, with fewer"
            " workers=N if memory is short"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _result(unit: Any, running: Future) -> tuple[Any, Any]:
    return unit, running.result()


def _begin(make: Callable[..., Callable], given: tuple, parent: int) -> None:
    """In a worker: an interrupt is the parent's business, and without a parent there is nobody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the pool ends those that are left by TERM
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _begun.append(make(*given))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _run(unit: Any) -> Any:
    return _begun[0](unit)
