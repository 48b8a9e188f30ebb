"""A process beside a run: asked to finish, waited for, stopped; whatever becomes of it is a line."""

import sys
from pathlib import Path

import pytest

from pgolf.machine.helper import Helper
from tests.processes import until, until_gone

GOOD = "import sys\nsys.stdin.buffer.read()\nopen(sys.argv[1], 'a').write('finished')\n"
FAILS = "import sys\nsys.stdin.buffer.read()\nprint('first')\nsys.exit('the disk is full')\n"
TALKS = "import sys\nsys.stdin.buffer.read()\nprint('a warning')\n"
HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[1], 'w').write(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def helped(tmp_path, monkeypatch):
    """Starts a helper that runs this source, with a file to write to."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def started(source: str) -> tuple[Helper, Path]:
        (tmp_path / "helping.py").write_text(source)
        return Helper("helping", str(tmp_path / "made"), output=tmp_path / "helper.log"), tmp_path / "made"

    return started


def test_it_finishes_when_it_is_asked_to(helped):
    helper, made = helped(GOOD)
    assert not made.exists()
    assert helper.finish(60.0) == ""
    assert made.read_text() == "finished"
    assert not helper.output.exists(), "it said nothing"


def test_one_that_fails_is_told_with_its_last_words(helped):
    helper, _ = helped(FAILS)
    assert helper.finish(60.0) == f"ended with exit code 1. the disk is full (see {helper.output})"
    assert helper.output.read_text() == "first\nthe disk is full\n"


def test_what_it_says_is_told_even_if_all_is_well(helped):
    helper, _ = helped(TALKS)
    assert helper.finish(60.0) == f"a warning (see {helper.output})"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_that_hangs_is_stopped_with_all_that_it_started(helped):
    helper, made = helped(HANGS)
    until(lambda: made.exists() and made.read_text(), "it has started nothing")
    assert helper.finish(0.5) == "was not done 0.5 s after the end and was stopped"
    until_gone([int(made.read_text())])


def test_one_that_cannot_be_started_costs_a_line(tmp_path):
    assert (
        Helper("helping", output=tmp_path / "nowhere" / "helper.log").finish(1.0).startswith("could not be started: ")
    )
