"""Ranks: start N processes for one stage with torch's elastic launcher, and make sure that all of them end.

Called in the parent, which knows the configuration and never touches CUDA. Ranks show nothing: their output goes to files
under `folder`/ranks, and what rank 0 made of the stage is a file that the parent reads.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import LaunchConfig, elastic_launch

from pgolf.errors import RankError
from pgolf.files import read_json
from pgolf.files.events import Events
from pgolf.files.names import LOGS
from pgolf.machine import Machine
from pgolf.machine.faults import NODE, explained
from pgolf.machine.nodes import Meeting, Nodes, OneNode, Order, follow
from pgolf.machine.rank import (
    die_with,
    errors_recorded,
    joined,
    leave_result,
    request_path,
    result_path,
    steps_path,
)
from pgolf.machine.server import METHOD, method_left, start_importing, without_main
from pgolf.machine.signals import STOPPING, StoppedError, one_desk

STOP_SECONDS = 600.0  # that ranks have for a step and a checkpoint, once they are asked to stop
POLL_SECONDS = 0.1
WATCH_SECONDS = 5.0  # between two looks at the other nodes; a rank that lost one mostly fails before, and says more
NOISY = ("torch.distributed.elastic", "torch.multiprocessing.spawn")  # loggers that tell what is told here
# What runs a command that leaves stopping to its parent: signals may reach every process of a group or a Slurm step.
DEAF = (
    "import os, signal, sys; [signal.signal(int(s), signal.SIG_IGN) for s in sys.argv[1].split(',')];"
    " os.execv(sys.argv[2], sys.argv[2:])"
)


def launch(
    stage: Callable[..., dict], *args: Any, machine: Machine, folder: Path, nodes: Nodes | None = None
) -> dict[str, Any]:
    """Run `stage(world, *args, events)` on every rank; its value on rank 0, plain and JSON-able, is the value here.

    `stage` is an importable function, `args` are picklable; the events go to `folder`. `nodes` are those that take part, or
    None for this one alone. Raises UserError if a rank met a user's mistake, RankError if one died, KeyboardInterrupt if this
    process was told to stop; no rank is left running.
    """
    return _launched((stage, args), machine, folder, nodes or OneNode())


def launch_program(command: list[str], machine: Machine, folder: Path, nodes: Nodes | None = None) -> dict[str, Any]:
    """Run a Python program on every rank, with a word PARENT=<process> more, and return what rank 0 left with `leave_result`
    in `folder`/ranks. Raises as `launch`."""
    return _launched(command, machine, folder, nodes or OneNode())


def follow_node_0(machine: Machine, config_sha256: str) -> None:
    """Be a node of another's run: start ranks whenever node 0 does, until it has ended. Raises as `nodes.follow`."""

    def obey(order: Order, meeting: Meeting) -> None:
        _started(order.work, machine, order.folder, meeting, OneNode())

    start_importing()
    follow(machine, config_sha256, obey)


def _launched(work: tuple | list[str], machine: Machine, folder: Path, nodes: Nodes) -> dict[str, Any]:
    """Start `work` here, which is node 0, and on the other nodes; the result is what rank 0 left."""
    result = result_path(folder)
    result.parent.mkdir(exist_ok=True)
    for left in (result, steps_path(folder), request_path(folder)):  # by a run that was killed
        left.unlink(missing_ok=True)
    try:
        _started(work, machine, folder, nodes.meet(uuid.uuid4().hex, folder, work), nodes)
        if not result.exists():
            raise RankError(f"the ranks ended without a result; their output is under {folder / LOGS}")
        return read_json(result)
    finally:
        for left in (result, steps_path(folder), request_path(folder)):
            left.unlink(missing_ok=True)
        with suppress(OSError):
            (folder / LOGS).rmdir()


def _started(work: tuple | list[str], machine: Machine, folder: Path, meeting: Meeting, nodes: Nodes) -> None:
    """Start a stage with its arguments, or a program by its words, on the ranks of this node, and wait for them."""
    if isinstance(work, list):
        numbers = ",".join(str(int(s)) for s in STOPPING if s != signal.SIGTERM)  # by which the agent ends it
        words = ("-c", DEAF, numbers, sys.executable, *work, f"PARENT={os.getpid()}")
        return _together(sys.executable, words, machine, folder, meeting, nodes)
    start_importing()
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        _together(_rank_main, (reader, os.getpid(), machine, folder, *work), machine, folder, meeting, nodes)


def _together(
    entry: Callable[..., Any] | str, args: tuple, machine: Machine, folder: Path, meeting: Meeting, nodes: Nodes
) -> None:
    for name in [*logging.root.manager.loggerDict]:  # each has a level of its own
        if name.startswith(NOISY):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    logs = folder / LOGS / (f"{NODE}{machine.node_rank}" if machine.node_rank else "")
    config = LaunchConfig(
        min_nodes=machine.nodes,
        max_nodes=machine.nodes,
        nproc_per_node=machine.ranks,
        run_id=meeting.run_id,
        rdzv_backend=meeting.backend,
        rdzv_endpoint=meeting.endpoint,
        rdzv_configs=meeting.configs,
        local_addr="localhost" if machine.nodes == 1 else None,
        max_restarts=0,
        start_method=METHOD,
        shutdown_timeout=5,
        signals_to_handle="SIGQUIT",
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
    )
    with _requests(folder), method_left(), without_main(), _without_empty(logs), _watching(machine, nodes):
        # A new rank takes over the name of its parent's way to start processes, and does not know joblib's ("loky").
        multiprocessing.set_start_method(METHOD, force=True)
        try:
            elastic_launch(config, entry)(*args)
        except ChildFailedError as failed:
            with one_desk() as desk:
                if desk.number is not None:  # it was told to stop, and so was what failed
                    raise StoppedError(desk.number) from None
            raise explained(failed, logs, nodes) from None
        except json.JSONDecodeError:
            raise RankError("a rank failed and could not write down why: is the disk full?") from None
        except SignalException as stop:
            if lost := nodes.lost():
                raise RankError(lost) from None
            raise KeyboardInterrupt(f"stopped by {stop.sigval.name}") from None


@contextmanager
def _requests(folder: Path) -> Iterator[None]:
    """Signals are passed on to ranks that take steps, as a file that they look for; they have STOP_SECONDS to end.

    The elastic agent leaves its handler of SIGQUIT behind, which is put back.
    """
    ended, quit_before = threading.Event(), signal.getsignal(signal.SIGQUIT)

    def passed_on() -> bool:
        if not steps_path(folder).exists():
            return False
        request_path(folder).touch()
        threading.Thread(target=_insist, args=(folder, ended), daemon=True, name="stopping").start()
        return True

    with one_desk() as desk:
        desk.passed_on = passed_on
        try:
            yield
        finally:
            ended.set()
            desk.passed_on = lambda: False
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGQUIT, quit_before)


def _insist(folder: Path, ended: threading.Event) -> None:
    """End ranks that are past their last step, or take too long."""
    late = time.monotonic() + STOP_SECONDS
    while not ended.wait(POLL_SECONDS):
        if not steps_path(folder).exists() or time.monotonic() > late:
            os.kill(os.getpid(), signal.SIGTERM)
            return


@contextmanager
def _watching(machine: Machine, nodes: Nodes) -> Iterator[None]:
    """On node 0 ranks end once another node has failed or is gone, though they may not hear of it: by QUIT to torch's agent."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(WATCH_SECONDS):
            if nodes.lost() and callable(signal.getsignal(signal.SIGQUIT)):
                os.kill(os.getpid(), signal.SIGQUIT)
                return

    if machine.nodes > 1:
        threading.Thread(target=work, daemon=True, name="nodes").start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _without_empty(logs: Path) -> Iterator[None]:
    """The launcher makes folders and files for output that mostly never comes."""
    try:
        yield
    finally:
        found = [*logs.iterdir()] if logs.is_dir() else []
        own = [path for path in found if not path.name.startswith(NODE)]  # another node removes its own meanwhile
        inside = [path for top in own for path in top.rglob("*")]
        for path in [*sorted([*own, *inside], reverse=True), logs, logs.parent]:
            with suppress(OSError):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
                elif path.is_file() and not path.stat().st_size:
                    path.unlink()


def _rank_main(
    pipe: Connection, parent: int, machine: Machine, folder: Path, stage: Callable[..., dict], args: tuple
) -> None:
    _leave_stopping_to(parent)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    die_with(os.getppid())
    try:
        with errors_recorded(), joined(machine) as world, errors_recorded():
            events = Events(folder if world.main else None)
            result = stage(world, *args, events)
            if world.main:
                leave_result(folder, result, events)
    except Exception:
        # It is in torch's error file by now; of one that is raised torch leaves another file behind for good.
        sys.exit(1)


def _leave_stopping_to(parent: int) -> None:
    """Signals may reach the whole group, or every process of a Slurm step: the parent alone decides, and ends ranks by TERM."""
    for s in STOPPING:
        signal.signal(s, signal.SIG_DFL if s == signal.SIGTERM else signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by, args=(parent,), daemon=True, name="signals").start()


def _end_by(parent: int) -> None:
    """End at a TERM of the parent's; others are not for this process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _end_with(pipe: Connection) -> None:
    """Nothing ever comes through this pipe but its end, when the parent is gone, however it went."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGKILL)
