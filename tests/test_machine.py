"""Ranks are started, agree, fail and stop as a whole."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
import torch

from pgolf.errors import ConfigError, UserError
from pgolf.files.events import EVENTS, Events
from pgolf.machine import Device, Machine
from pgolf.machine.kernels import PlainKernels
from pgolf.machine.launch import RankError, launch, launch_program
from pgolf.machine.rank import LOGS, errors_recorded, joined, leave_result, result_path
from pgolf.machine.world import World
from tests.processes import PATIENCE, until, until_gone
from tests.ranks import ONE_NODE, free_port


def machine(ranks: int | None = 1, **changed) -> Machine:
    fields = {
        "device": Device.CPU,
        "threads": 1,
        "micro_batch_tokens": None,
        "compile": False,
        "kernels": PlainKernels(),
        **ONE_NODE,
    }
    return Machine(ranks=ranks, **fields | changed)


def total(world: World, start: int, events: Events) -> dict:
    events.write("notice", text=f"rank {world.rank}")
    numbers = torch.tensor([start + world.rank, 1.0])
    counts = torch.tensor(world.rank)
    world.sum_(numbers, counts)
    return {"sum": numbers.tolist(), "counts": counts.item(), "agreed": world.agree(float(world.rank + 7))}


def fail_on_one(world: World, events: Events) -> dict:
    if world.rank == 1:
        raise ConfigError("data.shard", 3, "is short")
    time.sleep(1200)


def fail_amid_collectives(world: World, events: Events) -> dict:
    if world.rank == 1:
        raise UserError("the shard is short")
    while True:
        world.barrier()


def die_on_one(world: World, events: Events) -> dict:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1200)


def die_amid_collectives(world: World, events: Events) -> dict:
    """Rank 0 hears of it at once, by its next sum."""
    world.sum_(torch.ones(1))
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        world.sum_(torch.ones(1))


def crash(world: World, events: Events) -> dict:
    raise ZeroDivisionError("an honest bug")


def talk(world: World, events: Events) -> dict:
    print(f"a library of rank {world.rank} talks", flush=True)
    os.write(2, b"and so does its C code")
    return {}


def not_plain(world: World, events: Events) -> dict:
    return {"path": Path()}


def test_ranks_add_and_agree_and_rank_0_tells(tmp_path):
    got = launch(total, 10, machine=machine(2), folder=tmp_path)
    assert got == {"result": {"sum": [21.0, 2.0], "counts": 1, "agreed": 7.0}, "fault": None}
    (event,) = map(json.loads, (tmp_path / EVENTS).read_text().splitlines())
    assert event["text"] == "rank 0"
    assert [path.name for path in tmp_path.iterdir()] == [EVENTS], "ranks that said nothing leave no files"


def test_events_that_cannot_be_written_are_a_fault_beside_the_result(tmp_path):
    (tmp_path / EVENTS).mkdir()
    got = launch(total, 10, machine=machine(1), folder=tmp_path)
    assert got["result"] == {"sum": [10.0, 1.0], "counts": 0, "agreed": 7.0}
    assert got["fault"].startswith(f"{EVENTS}: cannot be written")


def test_what_ranks_say_goes_to_files_and_nowhere_else(tmp_path, capfd):
    assert launch(talk, machine=machine(2), folder=tmp_path)["result"] == {}
    assert capfd.readouterr() == ("", "")
    out, err = ([file.read_text() for file in (tmp_path / LOGS).rglob(name)] for name in ("stdout.log", "stderr.log"))
    assert sorted(out) == ["a library of rank 0 talks\n", "a library of rank 1 talks\n"]
    assert err == ["and so does its C code"] * 2


def test_a_result_must_be_plain(tmp_path):
    with pytest.raises(RankError, match=r"rank 0.*(?s:.)*not JSON serializable"):
        launch(not_plain, machine=machine(1), folder=tmp_path)


def test_what_was_set_for_this_process_is_set_again(tmp_path):
    def now() -> list:
        return [*map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)), multiprocessing.get_start_method(True)]

    before = now()
    launch(total, 10, machine=machine(1), folder=tmp_path)
    with pytest.raises(RankError):
        launch(crash, machine=machine(1), folder=tmp_path)
    assert now() == before


def gloo_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def join_and_leave(rank: int, port: int, queue) -> None:
    where = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2)
    os.environ.update({name: str(value) for name, value in where.items()})
    with joined(machine(2)) as world:
        world.sum_(torch.ones(3))
        within = gloo_threads()
    until(lambda: not gloo_threads(), f"left: {gloo_threads()}")  # one that is joined is listed for a moment longer
    queue.put((world.size, within))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_rank_that_leaves_takes_the_communication_threads_with_it():
    """One that still runs while the interpreter shuts down aborts the process, after its work is done."""
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.start_processes(join_and_leave, (free_port(), queue), nprocs=2, start_method="spawn")
    for size, within in (queue.get(), queue.get()):
        assert size == 2
        assert within


def test_alone_collectives_are_the_identity():
    assert total(World.alone(), 10, Events(None)) == {"sum": [10.0, 1.0], "counts": 0, "agreed": 7.0}


def test_a_users_mistake_on_any_rank_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"^data\.shard=3: is short$"):
        launch(fail_on_one, machine=machine(2), folder=tmp_path)


def test_what_others_say_of_a_rank_that_left_is_not_the_cause(tmp_path):
    with pytest.raises(UserError, match=r"^the shard is short$"):
        launch(fail_amid_collectives, machine=machine(2), folder=tmp_path)


def fail_on_a_full_disk(world: World, events: Events) -> dict:
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).touch()
    os._exit(1)


def test_a_rank_that_cannot_write_down_why_it_failed_is_one_message(tmp_path, capfd):
    with pytest.raises(RankError, match=r"^a rank failed and could not write down why: is the disk full\?$"):
        launch(fail_on_a_full_disk, machine=machine(1), folder=tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("die", [die_on_one, die_amid_collectives])
def test_a_killed_rank_ends_the_others(tmp_path, die):
    began = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 .* exit code -9"):
        launch(die, machine=machine(2), folder=tmp_path)
    assert time.monotonic() - began < 1200, "rank 0 slept on"


def test_a_bug_shows_its_traceback(tmp_path):
    with pytest.raises(RankError, match=r"(?s)rank 0.*in crash.*ZeroDivisionError: an honest bug"):
        launch(crash, machine=machine(1), folder=tmp_path)


def test_ranks_that_failed_leave_no_file_of_torchs(tmp_path, monkeypatch):
    """It writes one for every exception, and removes none."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for stage in (crash, fail_on_one):
        with pytest.raises((RankError, UserError)):
            launch(stage, machine=machine(2), folder=tmp_path)
    assert not [*(tmp_path / "tmp").glob("pytorch-*")]


PROGRAM = """
    import sys
    from pathlib import Path
    from pgolf.files.events import Events
    from pgolf.machine import Device, Machine
    from pgolf.machine.kernels import PlainKernels
    from pgolf.machine.rank import errors_recorded, joined, leave_result
    from tests.ranks import ONE_NODE
    import torch

    few = dict(threads=1, micro_batch_tokens=None, compile=False, **ONE_NODE)
    machine = Machine(ranks=2, device=Device.CPU, kernels=PlainKernels(), **few)
    with errors_recorded(), joined(machine) as world:
        number = torch.tensor(world.rank + 1)
        world.sum_(number)
        if sys.argv[2] == "fail" and world.rank == 1:
            1 / 0
        if world.main and sys.argv[2] == "leave":
            leave_result(Path(sys.argv[1]), {"sum": number.item()}, Events(None))
        world.barrier()
"""


# torch leaves the files open into which a program's output goes.
unclosed = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def program(tmp_path):
    script, folder = tmp_path / "program.py", tmp_path / "run"
    script.write_text(textwrap.dedent(PROGRAM))
    folder.mkdir()
    return lambda word: launch_program([str(script), str(folder), word], machine(2), folder)


@unclosed
def test_ranks_may_be_a_program(program):
    assert program("leave") == {"result": {"sum": 3}, "fault": None}


@unclosed
def test_a_program_that_fails_is_a_rank_that_failed(program):
    with pytest.raises(RankError, match=r"rank 1(?s:.)*ZeroDivisionError"):
        program("fail")


@unclosed
def test_a_result_of_earlier_ranks_is_not_that_of_these(program):
    assert program("leave")["result"] == {"sum": 3}
    with pytest.raises(RankError, match="the ranks ended without a result"):
        program("nothing")


def test_a_result_is_left_with_what_the_events_could_not_say(tmp_path):
    result_path(tmp_path).parent.mkdir()
    pen = Events(tmp_path / "nowhere")
    pen.write("dev", step=1)
    leave_result(tmp_path, {"loss": float("nan")}, pen)
    assert json.loads(result_path(tmp_path).read_text()) == {"result": {"loss": None}, "fault": pen.fault}
    assert pen.fault


def test_a_mistake_of_any_kind_is_recorded_by_one_word(tmp_path, monkeypatch):
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    with pytest.raises(UserError), errors_recorded(), errors_recorded():
        raise ConfigError("a.b", 3, "must be 4")
    assert json.loads(file.read_text())["message"]["message"] == "UserError: a.b=3: must be 4"
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    with pytest.raises(ZeroDivisionError), errors_recorded():
        _ = 1 / 0


def test_a_rank_whose_parent_is_gone_ends():
    code = "import os; from pgolf.machine.rank import die_with; die_with(os.getppid()); print('on'); die_with(1 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "on\n", "the parent is gone\n")


SLEEPER = """
    import os, sys, time
    from pathlib import Path
    from pgolf.machine import Device, Machine
    from pgolf.machine.kernels import PlainKernels
    from pgolf.machine.launch import launch
    from tests.ranks import ONE_NODE

    def sleep(world, folder, events):
        Path(folder, str(os.getpid())).touch()
        time.sleep(1200)

    if __name__ == "__main__":
        from sleeper import sleep
        few = dict(threads=1, micro_batch_tokens=None, compile=False, **ONE_NODE)
        machine = Machine(ranks=2, device=Device.CPU, kernels=PlainKernels(), **few)
        try:
            launch(sleep, sys.argv[1], machine=machine, folder=Path(sys.argv[2]))
        except KeyboardInterrupt as stop:
            print("stopped", stop)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_parent_leaves_no_orphans(tmp_path, how):
    (tmp_path / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    seen = tmp_path / "seen"
    seen.mkdir()
    command = [sys.executable, str(tmp_path / "sleeper.py"), str(seen), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    until(lambda: len(list(seen.iterdir())) == 2, "two ranks are not there")
    ranks = [int(p.name) for p in seen.iterdir()]
    parent.send_signal(how)
    printed, _ = parent.communicate(timeout=PATIENCE)
    assert ("stopped" in printed) == (how != signal.SIGKILL)
    until_gone(ranks)


@pytest.mark.parametrize(("field", "value"), [("ranks", 0), ("threads", 0), ("micro_batch_tokens", -4)])
def test_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"machine.{field}={value}"):
        machine(**{field: value})


def test_a_plan_for_gpus_can_be_made_without_any():
    planned = machine(2, device=Device.CUDA)
    assert (planned.world_size, planned.on_gpu) == (2, True)
    with pytest.raises(ConfigError, match=r"machine\.ranks=2: needs a GPU for every rank, and this machine has 0"):
        planned.require_gpus(0)
