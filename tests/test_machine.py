"""Ranks are started, agree, fail and stop as a whole."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from pgolf.errors import ConfigError, UserError
from pgolf.machine import Device, Machine
from pgolf.machine.launch import RankError, joined, launch
from pgolf.machine.world import World
from tests.ranks import free_port


def machine(ranks: int | None = 1, **changed) -> Machine:
    fields = {"device": Device.CPU, "threads": 1, "micro_batch_tokens": None, "compile": False}
    return Machine(ranks=ranks, **fields | changed)


def total(world: World, start: int) -> dict:
    numbers = torch.tensor([start + world.rank, 1.0])
    counts = torch.tensor(world.rank)
    world.sum_(numbers, counts)
    return {"sum": numbers.tolist(), "counts": counts.item(), "agreed": world.agree(float(world.rank + 7))}


def fail_on_one(world: World) -> None:
    if world.rank == 1:
        raise UserError("the shard is short")
    time.sleep(60)


def die_on_one(world: World) -> None:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def crash(world: World) -> None:
    raise ZeroDivisionError("an honest bug")


def test_ranks_add_and_agree(tmp_path):
    got = launch(total, 10, machine=machine(2), logs=tmp_path)
    assert got == {"sum": [21.0, 2.0], "counts": 1, "agreed": 7.0}


def gloo_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def join_and_leave(rank: int, port: int, queue) -> None:
    where = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2)
    os.environ.update({name: str(value) for name, value in where.items()})
    with joined(machine(2)) as world:
        world.sum_(torch.ones(3))
        within = gloo_threads()
    queue.put((world.size, within, gloo_threads()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_rank_that_leaves_takes_the_communication_threads_with_it():
    """One that still runs while the interpreter shuts down aborts the process, after its work is done."""
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.start_processes(join_and_leave, (free_port(), queue), nprocs=2, start_method="spawn")
    for size, within, after in (queue.get(), queue.get()):
        assert size == 2
        assert within
        assert after == []


def test_alone_collectives_are_the_identity():
    assert total(World.alone(), 10) == {"sum": [10.0, 1.0], "counts": 0, "agreed": 7.0}


def test_a_users_mistake_on_any_rank_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"^the shard is short$"):
        launch(fail_on_one, machine=machine(2), logs=tmp_path)


def test_a_killed_rank_ends_the_others(tmp_path):
    began = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 .* exit code -9"):
        launch(die_on_one, machine=machine(2), logs=tmp_path)
    assert time.monotonic() - began < 50, "rank 0 slept on"


def test_a_bug_shows_its_traceback(tmp_path):
    with pytest.raises(RankError, match=r"(?s)rank 0.*in crash.*ZeroDivisionError: an honest bug"):
        launch(crash, machine=machine(1), logs=tmp_path)


SLEEPER = """
    import os, sys, time
    from pathlib import Path
    from pgolf.machine import Device, Machine
    from pgolf.machine.launch import launch

    def sleep(world, folder):
        Path(folder, str(os.getpid())).touch()
        time.sleep(120)

    if __name__ == "__main__":
        from sleeper import sleep
        machine = Machine(ranks=2, device=Device.CPU, threads=1, micro_batch_tokens=None, compile=False)
        try:
            launch(sleep, sys.argv[1], machine=machine, logs=Path(sys.argv[2]))
        except KeyboardInterrupt as stop:
            print("stopped", stop)
"""


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_parent_leaves_no_orphans(tmp_path, how):
    (tmp_path / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    seen = tmp_path / "seen"
    seen.mkdir()
    command = [sys.executable, str(tmp_path / "sleeper.py"), str(seen), str(tmp_path / "logs")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(list(seen.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    ranks = [p.name for p in seen.iterdir()]
    assert len(ranks) == 2
    parent.send_signal(how)
    printed, _ = parent.communicate(timeout=60)
    assert ("stopped" in printed) == (how != signal.SIGKILL)
    while any(map(alive, ranks)) and time.monotonic() < deadline + 30:
        time.sleep(0.1)
    assert not any(map(alive, ranks))


@pytest.mark.parametrize(("field", "value"), [("ranks", 0), ("threads", 0), ("micro_batch_tokens", -4)])
def test_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"machine.{field}={value}"):
        machine(**{field: value})


def test_gpus_are_counted_without_touching_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5")
    auto = Machine(ranks=None, device=Device.AUTO, threads=None, micro_batch_tokens=None, compile=False)
    assert (auto.world_size, auto.on_gpu) == (3, True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (auto.world_size, auto.on_gpu) == (1, False)
    planned = machine(2, device=Device.CUDA)
    assert (planned.world_size, planned.on_gpu) == (2, True), "a plan for GPUs can be made without any"
    with pytest.raises(ConfigError, match=r"machine\.ranks=2: needs a GPU for every rank, and this machine has 0"):
        planned.require_devices()
