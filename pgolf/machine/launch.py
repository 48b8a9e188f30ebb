"""Ranks: start N processes for one stage with torch's elastic launcher, and make sure that all of them end.

Called in the parent, which knows the configuration and never touches CUDA. Ranks show nothing: their output goes to files
under `folder`/ranks, and what rank 0 made of the stage is a file that the parent reads.
"""

import json
import logging
import multiprocessing
import os
import re
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import LaunchConfig, elastic_launch

from pgolf.errors import UserError
from pgolf.files import read_json
from pgolf.files.events import Events
from pgolf.machine import Machine
from pgolf.machine.rank import LOGS, die_with, errors_recorded, joined, leave_result, result_path
from pgolf.machine.server import METHOD, start_importing

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
USER_ERROR = "UserError: "  # begins the words of a mistake that a person can mend
# What a rank says when another has gone: never the cause.
_LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|NCCL.*remote process|Timed out waiting", re.DOTALL)


_HUNG = re.compile(r"collective operation timeout: WorkNCCL\([^)]*OpType=(\w+)[^)]*Timeout\(ms\)=(\d+)")


class RankError(RuntimeError):
    """A rank died; the message names it and holds its traceback."""


def launch(stage: Callable[..., dict], *args: Any, machine: Machine, folder: Path) -> dict[str, Any]:
    """Run `stage(world, *args, events)` on every rank; its value on rank 0, plain and JSON-able, is the value here.

    `stage` is an importable function, `args` are picklable; the events go to `folder`. Raises UserError if a rank met a
    user's mistake, RankError if one died, KeyboardInterrupt if this process was told to stop; no rank is left running.
    """
    start_importing()
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        return _launched(_rank_main, (reader, machine, folder, stage, args), machine, folder)


def launch_program(command: list[str], machine: Machine, folder: Path) -> dict[str, Any]:
    """Run a command on every rank and return what rank 0 left with `leave_result` in `folder`/ranks. Raises as `launch`."""
    return _launched(command[0], tuple(command[1:]), machine, folder)


def _launched(entry: Callable[..., Any] | str, args: tuple, machine: Machine, folder: Path) -> dict[str, Any]:
    for noisy in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    logs, result = folder / LOGS, result_path(folder)
    result.parent.mkdir(exist_ok=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=machine.world_size,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method=METHOD,
        shutdown_timeout=5,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
    )
    with _handlers_restored(), _start_method(), _without_empty(logs):
        try:
            elastic_launch(config, entry)(*args)
            if not result.exists():
                raise RankError(f"the ranks ended without a result; their output is under {logs}")
            return read_json(result)
        except ChildFailedError as failed:
            raise _explained(failed, logs) from None
        except SignalException as stop:
            raise KeyboardInterrupt(f"stopped by {stop.sigval.name}") from None
        finally:
            result.unlink(missing_ok=True)


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """The elastic agent replaces signal handlers and leaves its own behind."""
    before = {s: signal.getsignal(s) for s in SIGNALS}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def _start_method() -> Iterator[None]:
    """A new rank takes over the name of its parent's way to start processes, and does not know joblib's ("loky")."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(METHOD, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


@contextmanager
def _without_empty(logs: Path) -> Iterator[None]:
    """The launcher makes folders and files for output that mostly never comes."""
    try:
        yield
    finally:
        for path in sorted(logs.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and not path.stat().st_size:
                path.unlink()
        if logs.is_dir() and not any(logs.iterdir()):
            logs.rmdir()


def _explained(failed: ChildFailedError, logs: Path) -> Exception:
    """The first failure that is not of another rank's leaving: a UserError, or a RankError with its traceback."""
    rank, failure = failed.get_first_failure()
    died, words, stack = f"rank {rank} (process {failure.pid}) died with exit code {failure.exitcode}", "", ""
    files = sorted(logs.rglob("error.json"), key=lambda file: file.stat().st_mtime_ns)
    for message in filter(None, map(_message, files)):
        if not _LOST.search(message["extraInfo"]["py_callstack"]):
            rank, words, stack = message["rank"], message["message"], message["extraInfo"]["py_callstack"]
            died = f"rank {rank} failed"
            break
    if words.startswith(USER_ERROR):
        return UserError(words.removeprefix(USER_ERROR).strip())
    output = [path for path in (logs.rglob("std*.log")) if path.stat().st_size]
    where = f"\nIts output is under {logs}." if output else ""
    return RankError(f"{died}{_hung(output)}.{where}\n{stack}".rstrip())


def _hung(output: list[Path]) -> str:
    """Which collective NCCL's watchdog gave up waiting for, if that is why ranks were ended."""
    for path in output:
        if found := _HUNG.search(path.read_text(errors="replace")):
            return f", because a rank did not come to {found[1].lower()} within {int(found[2]) // 1000} s: another one hangs"
    return ""


def _message(error_file: Path) -> dict[str, Any] | None:
    """What a rank wrote down before it failed, and which rank; None where it was ended while writing."""
    with suppress(ValueError, LookupError, TypeError):
        return json.loads(error_file.read_text())["message"] | {"rank": int(error_file.parent.name)}
    return None


def _rank_main(parent: Connection, machine: Machine, folder: Path, stage: Callable[..., dict], args: tuple) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    with joined(machine) as world, errors_recorded():
        events = Events(folder if world.main else None)
        result = stage(world, *args, events)
        if world.main:
            leave_result(folder, result, events)


def _end_with(parent: Connection) -> None:
    """Nothing ever comes through this pipe but its end, when the parent is gone, however it went."""
    try:
        parent.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGKILL)
