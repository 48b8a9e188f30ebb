"""Real gloo processes for tests: `run_ranks(fn, size, *args)` calls `fn(world, *args)` on every rank."""

import os
import socket
from collections.abc import Callable

import torch.multiprocessing as mp

from pgolf.machine import Device, Machine
from pgolf.machine.kernels import PlainKernels
from pgolf.machine.rank import joined

ONE_NODE = {"nodes": 1, "node_rank": 0, "rendezvous": None, "rendezvous_seconds": 60.0}  # of a Machine


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _main(rank: int, fn: Callable, size: int, port: int, queue, args: tuple) -> None:
    where = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size)
    os.environ.update({name: str(value) for name, value in where.items()})
    machine = Machine(
        ranks=size,
        device=Device.CPU,
        threads=1,
        micro_batch_tokens=None,
        compile=False,
        kernels=PlainKernels(),
        **ONE_NODE,
    )
    with joined(machine) as world:
        queue.put((rank, fn(world, *args)))
        world.barrier()


def run_ranks(fn: Callable, size: int, *args) -> list:
    """The results of `fn(world, *args)` in rank order; numpy arrays and plain values travel best."""
    ctx = mp.get_context("spawn")
    queue = ctx.SimpleQueue()
    running = mp.start_processes(
        _main, (fn, size, free_port(), queue, args), nprocs=size, join=False, start_method="spawn"
    )
    found = {}
    while len(found) < size:  # drained before joining: a full pipe would hold the ranks back
        while not queue.empty():
            rank, result = queue.get()
            found[rank] = result
        if running.join(timeout=0.05):
            break
    while not queue.empty():
        rank, result = queue.get()
        found[rank] = result
    return [found[rank] for rank in range(size)]
