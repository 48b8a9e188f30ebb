"""One process as a rank: joining the others, leaving a result, saying why it failed, and not outliving its parent."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from pgolf.errors import UserError
from pgolf.files import write_json
from pgolf.files.events import Events
from pgolf.files.names import LOGS
from pgolf.machine import Machine
from pgolf.machine.world import World


@contextmanager
def joined(machine: Machine) -> Iterator[World]:
    """This process as one of the ranks that the environment (RANK, WORLD_SIZE, LOCAL_RANK) describes, or alone without it.

    A rank that is alone opens no socket.
    """
    torch.set_num_threads(machine.threads)
    rank, size, local = (int(os.environ.get(k, v)) for k, v in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    device = torch.device("cuda", local) if machine.on_gpu else torch.device("cpu")
    if machine.on_gpu:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank, size, device)
        return
    timeout = timedelta(minutes=10)
    if machine.on_gpu:
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, timeout=timeout)
    else:
        dist.init_process_group("gloo", timeout=timeout)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


@contextmanager
def errors_recorded() -> Iterator[None]:
    """An exception is in torch's error file before this rank leaves the group, for the others then fail too, of its leaving.

    A UserError of any kind becomes a plain one, the word that the parent looks for. A RuntimeError may be of another's leaving:
    torch's agent, which tells of the lowest rank that it finds ended, is given time to find that one alone.
    """
    try:
        yield
    except Exception as wrong:
        plain = UserError(str(wrong)) if isinstance(wrong, UserError) else wrong
        file = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if file and not os.path.exists(file):
            get_error_handler().record_exception(plain)
            if isinstance(wrong, RuntimeError):
                time.sleep(2)
        raise plain from wrong.__cause__


def steps_path(folder: Path) -> Path:
    """There while ranks take steps, and can be asked to stop after one."""
    return folder / LOGS / "steps"


def request_path(folder: Path) -> Path:
    """There once they are asked."""
    return folder / LOGS / "stop"


def result_path(folder: Path) -> Path:
    """Where rank 0 of the running stage leaves its result."""
    return folder / LOGS / "result.json"


def leave_result(folder: Path, result: dict[str, Any], events: Events) -> None:
    """Rank 0's account of a stage, as a file that is whole or absent, with what its events could not say."""
    write_json(result_path(folder), {"result": result, "fault": events.fault})


def die_with(parent: int) -> None:
    """No orphans: the kernel ends this rank when its parent is gone, however it went (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the parent is gone")
