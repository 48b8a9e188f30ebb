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
