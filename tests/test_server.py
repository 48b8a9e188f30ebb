"""The process that ranks are forked from leaves nothing, however its parent goes."""

import os
import signal
import subprocess
import sys

import pytest

from tests.processes import descendants, until, until_gone

PARENT = """
import os, sys, time
from pgolf.machine import server
server.PRELOADED = ["pgolf.machine.sockets"]
server.start_importing()
print(os.environ.get("PGOLF_SOCKETS"), flush=True)
sys.stdin.read()
os._exit(0)
"""


NOWHERE = """
import sys, tempfile
from pgolf.errors import UserError
from pgolf.machine.server import start_importing
tempfile.tempdir = sys.argv[1]
try:
    start_importing()
except UserError as wrong:
    print(wrong)
"""
AGAIN = """
import multiprocessing, os, shutil
from pgolf.machine import server
server.PRELOADED = ["pgolf.machine.sockets"]
for _ in range(2):
    server.start_importing()
    shutil.rmtree(multiprocessing.current_process()._config["tempdir"])
    os.kill(multiprocessing.forkserver._forkserver._forkserver_pid, 9)
print(os.listdir(os.environ["TMPDIR"]))
"""


def test_no_place_for_a_socket_is_one_message(tmp_path):
    (long := tmp_path / ("long" * 25)).mkdir()
    for place, why in (("/nowhere", "No such file or directory"), (str(long), "AF_UNIX path too long")):
        done = subprocess.run([sys.executable, "-c", NOWHERE, place], capture_output=True, text=True)
        told = f"{place}: has no place for the sockets of ranks: {why}; TMPDIR=... names another folder\n"
        assert (done.stdout, done.stderr) == (told, "")
    assert not any(long.iterdir())


def test_a_server_that_died_is_started_again_with_a_folder_of_its_own(tmp_path):
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", AGAIN], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "told", "left"])
def test_its_socket_goes_with_it(tmp_path, number):
    """By a signal, and by the short way out that a run takes in the end."""
    env = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "None\n", "it is told, and not what this process starts later"
    family = descendants(parent.pid)
    assert list(tmp_path.glob("pymp-*/listener-*"))
    if number:
        parent.send_signal(number)
    parent.communicate()
    until_gone(family)
    until(lambda: not list(tmp_path.iterdir()), "something is left")


REFUSED = """
import os, tempfile
from pathlib import Path
from pgolf.machine import server
server.stop_importing()
server.PRELOADED = ["pgolf.machine.sockets", "torch._dynamo"]
server.start_importing()
print(server.multiprocessing.forkserver._forkserver._forkserver_pid, flush=True)
server.stop_importing()
print(os.listdir(tempfile.gettempdir()), flush=True)
input()
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_is_ended_while_it_imports_where_nothing_will_run(tmp_path):
    env = os.environ | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", REFUSED], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    server = int(parent.stdout.readline())
    assert parent.stdout.readline() == "[]\n"
    until_gone([server])
    parent.communicate("\n")
    assert parent.returncode == 0


MAIN = """
import sys
from pathlib import Path
with open(sys.argv[1], "a") as told:
    told.write(f"{__name__} ")
if __name__ == "__main__":
    from pgolf.machine.launch import launch
    from tests.test_machine import machine, total
    print(launch(total, 1, machine=machine(2), folder=Path(sys.argv[2])), __import__("__main__").__name__)
"""


def test_ranks_do_not_run_the_commands_own_module_again(tmp_path):
    script, told = tmp_path / "script.py", tmp_path / "told"
    script.write_text(MAIN)
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, script, told, tmp_path], env=env, capture_output=True, text=True, check=True)
    assert (told.read_text(), done.stdout.split()[-1]) == ("__main__ ", "__main__")
