"""Signals as one request, and what ends with what."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pgolf.errors import UserError
from pgolf.machine.family import PARENT
from pgolf.machine.lock import in_turn, locked
from pgolf.machine.signals import STOPPING, StoppedError, one_desk
from tests.processes import command_of, until_gone


def hear(number: int) -> None:
    """Get a signal, and be busy with something else."""
    os.kill(os.getpid(), number)
    time.sleep(60)


@pytest.fixture
def heeded():
    """All of them as a shell leaves them, though the tests run under nohup."""
    before = {
        s: signal.signal(s, signal.default_int_handler if s == signal.SIGINT else signal.SIG_DFL) for s in STOPPING
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_each_of_them_stops_with_its_code_and_75_where_it_can_be_taken_up(number, heeded):
    with pytest.raises(StoppedError, match=f"stopped by {signal.Signals(number).name}") as stopped, one_desk():
        hear(number)
    assert stopped.value.code == 128 + number
    assert StoppedError(number, "resume=x").code == (130 if number == signal.SIGINT else 75)


def test_the_first_request_is_passed_on_and_the_second_is_not_waited_for():
    with one_desk() as desk:
        asked = []
        desk.passed_on = lambda: asked.append(desk.number) or True
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked == [signal.SIGUSR1]
        with one_desk() as same:
            assert same is desk
        with pytest.raises(StoppedError, match="SIGUSR1"):
            hear(signal.SIGTERM)
        assert asked == [signal.SIGUSR1]


def test_a_handler_that_was_there_is_called_at_the_end_and_ignored_signals_stay_so():
    """As submitit's, which queues the job again, and as under nohup."""
    heard = []

    def hear_both() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard == []
        hear(signal.SIGUSR2)

    before = {s: signal.getsignal(s) for s in STOPPING}
    signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(StoppedError), one_desk():
            hear_both()
        assert heard == [signal.SIGUSR2]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


PARENTS = """
import os, subprocess, sys, time
from pgolf.machine.family import ending_with_me
child = "import time; from pgolf.machine.family import end_with_parent as end; end(); print(1, flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], env=ending_with_me(), stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_command_ends_with_the_one_that_asked_for_it(number, heeded):
    parent = subprocess.Popen([sys.executable, "-c", PARENTS], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert command_of(child) or sys.platform != "linux"
    parent.send_signal(number)
    parent.communicate()
    until_gone([child])


def test_one_whose_parent_is_gone_already_does_not_begin():
    code = "from pgolf.machine.family import end_with_parent; end_with_parent(); print('it began')"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {PARENT: "1"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


def test_one_cache_is_built_in_by_one_at_a_time(tmp_path):
    told = []
    waiting = f"""
from pathlib import Path
from pgolf.machine.lock import in_turn
with in_turn(Path({str(tmp_path / "x.lock")!r}), lambda: print("waits", flush=True)):
    print("has it", flush=True)
"""
    with in_turn(tmp_path / "x.lock", lambda: told.append("waits")):
        other = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "waits\n"
        assert other.poll() is None
    assert other.communicate()[0] == "has it\n"
    assert told == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to_is_not_locked(tmp_path):
    tmp_path.chmod(0o500)
    with in_turn(tmp_path / "x.lock", lambda: pytest.fail("waits")):
        pass
    with pytest.raises(UserError, match="cannot be opened to lock this"), locked(tmp_path / "x.lock", "this"):
        pass


def test_a_lock_in_no_folder_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be opened to lock this"), locked(tmp_path / "file" / "x", "this"):
        pass
