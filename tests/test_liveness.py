"""Whether a run's process is still there: asked of the kernel here, and of the counter elsewhere, never of a clock."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pgolf.compare import main as compare
from pgolf.files import read_json, write_json
from pgolf.machine import liveness
from pgolf.machine.liveness import Process, beating, boot_id, start_of, state, still
from pgolf.report.run import run_page
from pgolf.results.runfolder import read_run
from pgolf.results.summary import summarise
from tests.processes import until
from tests.sweeps import died


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(liveness, "POLL_SECONDS", 0.01)


def running(place: Path, /, interval: float = 0.05, **changes) -> dict:
    """A record that says it is running, by this process but for `changes`."""
    place.mkdir(parents=True, exist_ok=True)
    process = Process.this(place).section(1) | {"interval": interval} | changes
    write_json(place / "record.json", {"status": "running", "process": process})
    return read_json(place / "record.json")


def read(folder: Path) -> dict:
    return read_json(folder / "record.json")


def dead_process() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


LOST = {
    "a process that is gone": lambda: {"pid": dead_process()},
    "another process of the same id": lambda: {"start": (start_of(os.getpid()) or 0) + 1},
    "the boot before": lambda: {"boot": boot_id() + "x"},
    "a copy of a folder": lambda: {"folder": 1},
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_is_gone_from_this_host_is_lost_at_once(tmp_path, how):
    assert state(tmp_path, running(tmp_path)) == "running"
    assert state(tmp_path, running(tmp_path, **LOST[how]())) == "lost"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_waits_for_its_parent_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: start_of(child.pid) is None, "it does not end")
    assert state(tmp_path, running(tmp_path, pid=child.pid)) == "lost"
    child.wait()


@pytest.mark.parametrize(
    "process", [None, 3, {}, {"pid": "x"}, {"host": "a", "boot": 1, "pid": 1, "start": 1, "folder": 1}]
)
def test_a_record_that_does_not_say_who_writes_it_is_taken_at_its_word(tmp_path, process):
    """Of an older version, or edited."""
    write_json(tmp_path / "record.json", {"status": "running", "process": process})
    assert state(tmp_path, read(tmp_path)) == "running"
    assert still(read, [tmp_path]) == set()


def test_elsewhere_a_counter_that_stands_still_is_lost_and_one_that_moves_is_not(tmp_path):
    """All at once, whatever the clocks say: the one that moves has the start of a clock that was set back."""
    for name in ("still", "moves", "here", "ended"):
        running(tmp_path / name, **({} if name == "here" else {"host": "another"}))
    write_json(tmp_path / "ended" / "record.json", read(tmp_path / "ended") | {"status": "complete"})
    moving = read(tmp_path / "moves") | {"started": "2099-01-01T00:00:00+00:00"}

    def beat(count: int) -> None:
        moving["process"]["beat"] += 1
        write_json(tmp_path / "moves" / "record.json", moving)

    with beating(beat, 0.01):
        found = still(read, [tmp_path / name for name in ("still", "moves", "here", "ended")])
    assert found == {tmp_path / "still"}


def test_nobody_waits_where_the_kernel_can_be_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness.time, "sleep", lambda seconds: pytest.fail("it waits"))
    running(tmp_path, interval=60.0)
    assert still(read, [tmp_path]) == set()


def test_beats_count_and_those_that_cannot_be_written_are_left_out():
    seen, enough = [], threading.Event()

    def beat(count: int) -> None:
        seen.append(count)
        if count == 5:
            enough.set()
        raise OSError(28, "No space left on device")

    with beating(beat, 0.001):
        assert enough.wait(60)
    assert seen[:5] == [1, 2, 3, 4, 5]


def test_lost_is_said_everywhere(tmp_path, capsys):
    folder = died(tmp_path, "0_seed1", 1, "running")
    record = json.loads((folder / "record.json").read_text())
    process = Process.this(folder).section(3) | {"pid": dead_process()}
    write_json(folder / "record.json", record | {"process": process})
    assert read_run(folder).status == "lost"
    (arm,) = summarise(tmp_path)["arms"]
    assert [(r["status"], r["why"]) for r in arm["not_complete"]] == [("lost", "its process is gone")]
    assert "its process is gone: it was killed" in run_page(folder)
    assert compare([str(folder), str(folder)]) == 2
    assert "its run is lost, so it has no score" in capsys.readouterr().err
