"""Ranks: start N processes for one stage with torch's elastic launcher, and make sure that all of them end.

`launch` is called in the parent, which knows the configuration and never touches CUDA; `stage` is an importable
function that gets a `World` and picklable arguments, and whose value on rank 0 is the value of the launch.
"""

import ctypes
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher import LaunchConfig, elastic_launch

from pgolf.errors import UserError
from pgolf.machine import Machine, spin_briefly
from pgolf.machine.world import World

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_USER_ERROR = re.compile(r"^pgolf\.errors\.UserError: (.*)\Z", re.MULTILINE | re.DOTALL)
# What a rank says when another has gone: never the cause.
_LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|NCCL.*remote process|Timed out waiting", re.DOTALL)


class RankError(RuntimeError):
    """A rank died; the message names it and holds its traceback."""


def launch(stage: Callable[..., Any], *args: Any, machine: Machine, logs: Path) -> Any:
    """Run `stage(world, *args)` on every rank and return rank 0's value.

    Ranks other than 0 write to files under `logs`. Raises UserError if a rank met a user's mistake, RankError if one
    died, KeyboardInterrupt if this process was told to stop; in each case no rank is left running.
    """
    for noisy in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    spin_briefly()
    others = dict.fromkeys(range(1, machine.world_size), Std.ALL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=machine.world_size,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        shutdown_timeout=5,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=others),
    )
    with _handlers_restored(), _spawning(), _without_empty(logs):
        try:
            return elastic_launch(config, _rank_main)(os.getpid(), machine, stage, args)[0]
        except ChildFailedError as failed:
            raise _explained(failed, logs) from None
        except SignalException as stop:
            raise KeyboardInterrupt(f"stopped by {stop.sigval.name}") from None


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
def _spawning() -> Iterator[None]:
    """A new rank takes over the name of its parent's way to start processes, and does not know joblib's ("loky")."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
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
    rank, failure = failed.get_first_failure()
    died = f"rank {rank} (process {failure.pid}) died with exit code {failure.exitcode}"
    said = _traceback(failure.message)
    if (cause := _cause(logs)) is not None:
        rank, said = cause
        died = f"rank {rank} failed"
    user = _USER_ERROR.search(said)
    if user:
        return UserError(user.group(1).strip())
    where = f"\nIts output is under {logs}." if rank else ""
    return RankError(f"{died}.{where}\n{said}")


def _cause(logs: Path) -> tuple[int, str] | None:
    """The rank and traceback of the first exception that is not of another rank's leaving, where one was written down."""
    files = sorted(logs.rglob("error.json"), key=lambda file: file.stat().st_mtime_ns)
    told = ((file, _traceback(json.loads(file.read_text())["message"])) for file in files)
    return next(((int(file.parent.name), said) for file, said in told if not _LOST.search(said)), None)


def _traceback(message: dict | str) -> str:
    """Torch hands over a mapping for an exception and a sentence for a signal."""
    return message["extraInfo"]["py_callstack"] if isinstance(message, dict) else message


def _rank_main(parent: int, machine: Machine, stage: Callable[..., Any], args: tuple) -> Any:
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    with joined(machine) as world, _told():
        return stage(world, *args)


@contextmanager
def _told() -> Iterator[None]:
    """An exception is on paper before this rank leaves the group, for the others then fail too, of its leaving."""
    try:
        yield
    except Exception as wrong:
        plain = UserError(str(wrong)) if isinstance(wrong, UserError) else wrong  # the parent looks for this very name
        get_error_handler().record_exception(plain)
        raise plain from wrong.__cause__


def _die_with(parent: int) -> None:
    """No orphans: the kernel ends this rank when its parent is gone, however it went (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the parent is gone")


@contextmanager
def joined(machine: Machine) -> Iterator[World]:
    """This process as one of the ranks that the environment (RANK, WORLD_SIZE, ...) describes."""
    torch.set_num_threads(machine.threads_per_rank)
    world = _join(machine)
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _join(machine: Machine) -> World:
    rank, size, local = (int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if not machine.on_gpu:
        dist.init_process_group("gloo", timeout=timedelta(minutes=10))
        return World(rank, size, torch.device("cpu"))
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, timeout=timedelta(minutes=10))
    return World(rank, size, device)
